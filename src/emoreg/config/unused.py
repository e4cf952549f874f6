"""Settings that nothing reads in the mode of a recipe, although they were changed.

They are no error: one recipe is often trained in several modes, such as `--regulation.mode none` for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter

from emoreg.config.recipe import TrainRecipe, defaults
from emoreg.config.schema import LEARNED

# Settings, by dotted key, with what must hold for a recipe that reads them.
READ_IF: tuple[tuple[tuple[str, ...], Callable[[TrainRecipe], bool]], ...] = (
    (("loss.mutual", "loss.budget", "regulation.mix"), lambda recipe: recipe.has_two_responses),
    (("regulation.lam",), lambda recipe: recipe.regulation.mode in ("fixed", "learned")),
    (("regulation.lr_factor", "regulation.warmup"), lambda recipe: recipe.regulation.mode in LEARNED),
    (
        ("encoder.backbone", "encoder.frozen", "encoder.lr_factor", "encoder.anchor"),
        lambda recipe: recipe.has_two_responses or recipe.regulation.mode == "transfer",
    ),
)


def unused_settings(recipe: TrainRecipe) -> Iterator[str]:
    """Yield a line for each setting that differs from its edition's default and is not read in the recipe's mode."""
    mode = f"in regulation.mode {recipe.regulation.mode}"
    for keys, is_read in READ_IF:
        for key in keys:
            if not is_read(recipe) and _is_set(recipe, key):
                yield f"{key} is not used {mode}"
    if recipe.encoder.takeover != "shrunk" and _is_set(recipe, "encoder.shrink"):
        yield f"encoder.shrink is not used with encoder.takeover {recipe.encoder.takeover}"


def _is_set(recipe: TrainRecipe, key: str) -> bool:
    read = attrgetter(key)
    return bool(read(recipe) != read(defaults(TrainRecipe, recipe.edition)))

"""The image sets that a study asks for and that are not here: what each is, where it is got, how it must lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.data.images.table import About
from emoreg.data.stimuli import SETS
from emoreg.errors import UserError
from emoreg.study.kept_data import Settings
from emoreg.study.plan import PlannedRun


@dataclass(frozen=True)
class MissingSet:
    """A set of which nothing is here.

    Args:
        name: of the set.
        root: as the study's file has it; None if it names none.
        asked_by: the entries that ask for it, such as "stimuli emoset".
        runs: of stage 1 and of stage 2 that read it.
        image_size: of the images that they see.
        about: what is known of it; None of a set of the user's own.
    """

    name: str
    root: str | None
    asked_by: tuple[str, ...]
    runs: int
    image_size: int
    about: About | None

    @property
    def line(self) -> str:
        """All that is needed to get it, in one line."""
        place = f"nothing at {self.root}" if self.root else "no root is given"
        asked = f"{' and '.join(self.asked_by)} ({self.runs:,} runs): {place}"
        if self.about is None:
            return f"{asked}: put it there, or correct root"
        about, out = self.about, self.root or f"data/{self.name}-{self.image_size}"
        return (
            f"{asked}. {about.title}, images: {about.size}; licence: {about.licence}; from: {about.source}. Its root "
            f"is a folder or zip with {about.layout}; or a pack of that, decoded once for all runs: emoreg data pack "
            f"{self.name} --root FOLDER --image-size {self.image_size} --out {out}"
        )


def missing_sets(planned: Iterable[PlannedRun]) -> list[MissingSet]:
    """The sets of these runs that are not here, in the order of the plan. Nothing is downloaded, or read.

    Args:
        planned: runs with the roots where their images are now.
    """
    found: dict[tuple[str, str | None], MissingSet] = {}
    for run in planned:
        entry = f"stimuli {run.stimuli}" if isinstance(run.recipe, PretrainRecipe) else f"target {run.target}"
        for settings in run.recipe.sections.values():
            key = (settings.name, settings.root)
            if key in found:
                was = found[key]
                asked_by = was.asked_by if entry in was.asked_by else (*was.asked_by, entry)
                found[key] = dataclasses.replace(was, asked_by=asked_by, runs=was.runs + 1)
            elif is_missing(settings):
                about = SETS[settings.name][0] if settings.name in SETS else None
                found[key] = MissingSet(*key, (entry,), 1, settings.image_size, about)
    return list(found.values())


def is_missing(settings: Settings) -> bool:
    """Whether a set is one that people must bring, and is not here; others are fetched when they are needed."""
    is_brought = settings.name in SETS or settings.name == "folder"
    return is_brought and (settings.root is None or not Path(settings.root).exists())


def not_here(recipe: Recipe) -> list[str]:
    """The roots of a recipe's sets that are missing, or their names."""
    return [settings.root or settings.name for settings in recipe.sections.values() if is_missing(settings)]


def refuse_missing(planned: Iterable[PlannedRun]) -> None:
    """UserError that names all sets of these runs that are not here."""
    if missing := missing_sets(planned):
        count = "an image set is" if len(missing) == 1 else f"{len(missing)} image sets are"
        raise UserError(
            f"{count} not here, and no run was begun (--only LABEL ... does the part whose sets are here): "
            + "; ".join(f"[{number}] {each.line}" for number, each in enumerate(missing, start=1))
        )

"""In which columns rows of results differ: a row there, of another machine or of an earlier plan, and one here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from emoreg.config.recipe import EXECUTION_ONLY, PretrainRecipe, TrainRecipe, added
from emoreg.runs.catalogue import is_missing
from emoreg.study.columns import RECIPES, SETTINGS

Row = Mapping[Any, Any]
PATHS = tuple(f"{SETTINGS}{name}" for name in ("encoder.experience", "target.root", "stimuli.root"))
IGNORED = (*PATHS, *(f"{SETTINGS}training.{name}" for name in EXECUTION_ONLY))
COMPARED = tuple(name for name in RECIPES if name not in IGNORED)  # settings that make two rows different runs
# Tables of an earlier emoreg lack the settings that came later: what was done without them.
WITHOUT = {key: value for recipe in (TrainRecipe(), PretrainRecipe()) for key, _, value in added(recipe, SETTINGS)}
SHOWN = 3  # differences in an error


class Difference(NamedTuple):
    """A column in which two rows differ."""

    name: str  # of the setting or measurement
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} ({self.there} there, {self.here} here)"


def differences(there: Row, here: Row, names: Iterable[str]) -> list[Difference]:
    """The columns of these names in which two rows differ."""
    pairs = ((name, _value(there, name), _value(here, name)) for name in names)
    return [
        Difference(name.removeprefix(SETTINGS), _in_words(one), _in_words(other))
        for name, one, other in pairs
        if one != other and not _is_rounded(one, other)
    ]


def by_arm_and_seed(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows among which `nearest` searches."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(_arm_and_seed(row), []).append(row)
    return found


def nearest(
    row: Row, others: Mapping[tuple[Any, ...], Sequence[Row]], compare: Callable[[Row, Row], list[Difference]]
) -> Row | None:
    """Of the rows of its arm and seed the one that differs the least; those of other targets and stimuli do in more."""
    return min(others.get(_arm_and_seed(row), ()), key=lambda other: len(compare(row, other)), default=None)


def first_few(reasons: Sequence[object], separator: str) -> str:
    """The first of some reasons, and how many more there are."""
    more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return f"{separator.join(map(str, reasons[:SHOWN]))}{more}"


def _arm_and_seed(row: Row) -> tuple[Any, ...]:
    return tuple(_value(row, name) for name in ("mode", "experience", "seed"))


def _is_rounded(one: Any, other: Any) -> bool:
    """Whether two numbers differ by no more than a table of 32-bit floats makes them."""
    return isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-7)


def _value(row: Row, name: str) -> Any:
    """The value in a row: of a setting that is missing, what was done without it; of all else None."""
    value = row.get(name)
    return WITHOUT.get(name) if is_missing(value) else value


def _in_words(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

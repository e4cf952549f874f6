"""Columns in which two rows of results differ: one of another machine or an earlier plan, and one of this study."""

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
# Tables of an earlier emoreg lack settings that were added later; these values describe what it did.
BEFORE_ADDED = {key: value for recipe in (TrainRecipe(), PretrainRecipe()) for key, _, value in added(recipe, SETTINGS)}


class Difference(NamedTuple):
    """A column in which two rows differ."""

    name: str  # of the setting or measurement
    other: str  # value in the row of another machine or an earlier plan
    here: str  # value in the row of this study

    def __str__(self) -> str:
        return f"{self.name} ({self.other} there, {self.here} here)"


def differences(other: Row, here: Row, names: Iterable[str]) -> list[Difference]:
    """The named columns in which two rows differ by more than rounding to 32 bits."""
    differing = []
    for name in names:
        theirs, ours = _value(other, name), _value(here, name)
        if not _allclose(theirs, ours):
            differing.append(Difference(name.removeprefix(SETTINGS), _in_words(theirs), _in_words(ours)))
    return differing


def by_arm_and_seed(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows for `nearest`."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_arm_and_seed(row), []).append(row)
    return groups


def nearest(
    row: Row, others: Mapping[tuple[Any, ...], Sequence[Row]], compare: Callable[[Row, Row], list[Difference]]
) -> Row | None:
    """The row with the fewest differences among those of the same arm and seed; None if there is none.

    Rows of other targets and stimuli are candidates too, but differ in more settings.
    """
    return min(others.get(_arm_and_seed(row), ()), key=lambda other: len(compare(row, other)), default=None)


def _arm_and_seed(row: Row) -> tuple[Any, ...]:
    return tuple(_value(row, name) for name in ("mode", "experience", "seed"))


def _allclose(one: Any, other: Any) -> bool:
    """Return whether two values are equal, or floats that differ by no more than rounding to 32 bits."""
    is_float = isinstance(one, float) and isinstance(other, float)
    return math.isclose(one, other, rel_tol=1e-7) if is_float else bool(one == other)


def _value(row: Row, name: str) -> Any:
    """The value in a row; for a missing setting the one of `BEFORE_ADDED`, and otherwise None."""
    value = row.get(name)
    return BEFORE_ADDED.get(name) if is_missing(value) else value


def _in_words(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"{value:g}" if isinstance(value, float) else str(value)

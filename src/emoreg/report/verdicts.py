"""The verdicts of a family of contrasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from emoreg.report.contrast_kinds import KINDS
from emoreg.report.contrast_plan import PlannedContrast
from emoreg.report.contrast_sizes import Size
from emoreg.report.looks import nominal_levels
from emoreg.report.run_frame import EXPLORATION
from emoreg.report.statistics import LEVEL, TIE, holm, smallest_tail


class Verdict(StrEnum):
    """The result of a tested contrast: the values of the column `verdict`."""

    ABOVE = "above"
    NOT_ABOVE = "not_above"
    BELOW = "below"  # only for practical contrasts
    MISSING_TWIN = "missing_twin"
    TOO_FEW = "too_few"  # with so few seeds no data could pass
    TIED = "tied"  # so many seeds agree that no difference could pass, however large
    BETWEEN_LOOKS = "between_looks"  # the study planned no look at this number of seeds
    COLLAPSED = "collapsed"  # one of its runs collapsed: means say nothing
    EXPLORATION = "exploration"  # on validation images, to be confirmed with other seeds


class Decision(NamedTuple):
    """The result of a test."""

    verdict: Verdict | None = None
    p: float = math.nan
    p_corrected: float = math.nan
    p_below: float = math.nan
    p_below_corrected: float = math.nan
    family: int = 0  # number of arms that the correction allows for
    decided_at: int | None = None  # number of seeds at the look that decided; None unless above or below

    @property
    def p_of_verdict(self) -> float:
        """The p corrected for the family: for being below if that is the verdict, else for being above."""
        return self.p_below_corrected if self.verdict is Verdict.BELOW else self.p_corrected


NOTHING = Decision()


def decide(family: Sequence[PlannedContrast], sizes: Sequence[Sequence[Size]], arms: int) -> list[Decision]:
    """The verdicts of a family, the same contrast of all regulated arms of a cell.

    Args:
        family: the contrasts.
        sizes: their sizes at all looks.
        arms: number of regulated arms in the plan, including those without a finished run.
    """
    last = [of_looks[-1] for of_looks in sizes]
    obstacles = [_obstacle(contrast, size) for contrast, size in zip(family, last, strict=True)]
    if any(len(contrast.planned) > 1 for contrast in family):  # the levels of the looks are fixed before any run
        return [
            Decision(obstacle, family=arms) if obstacle else _at_looks(contrast, of_looks, arms)
            for contrast, of_looks, obstacle in zip(family, sizes, obstacles, strict=True)
        ]
    tested = [place for place, obstacle in enumerate(obstacles) if obstacle is None]
    # A test that is never possible is not in the family.
    number = arms - sum(
        obstacle is Verdict.MISSING_TWIN and bool(contrast.unplanned)
        for contrast, obstacle in zip(family, obstacles, strict=True)
    )
    waiting = [1.0] * (number - len(tested))  # a test that is not possible yet counts as p = 1
    above = holm([*(last[place].p for place in tested), *waiting])
    below = holm([*(last[place].p_below for place in tested), *waiting])
    decisions = [Decision(obstacle, family=number) for obstacle in obstacles]
    for place, p, p_below in zip(tested, above, below, strict=False):
        decisions[place] = _corrected(family[place], last[place], p, p_below, number)
    return decisions


def _obstacle(contrast: PlannedContrast, size: Size) -> Verdict | None:
    """The reason why there can be no test, or None."""
    look = contrast.looks[-1]
    if contrast.cell.purpose == EXPLORATION:
        return Verdict.EXPLORATION
    if contrast.missing:
        return Verdict.MISSING_TWIN
    if size.collapsed:
        return Verdict.COLLAPSED
    if look.number is None:
        return Verdict.BETWEEN_LOOKS
    return Verdict.TOO_FEW if len(look.seeds) < 2 else None


def _corrected(contrast: PlannedContrast, size: Size, p: float, p_below: float, family: int) -> Decision:
    """The verdict of a contrast with a single look, given its p-values corrected by Holm's method."""
    seeds, is_practical = len(contrast.looks[-1].seeds), KINDS[contrast.name].is_practical
    if p <= LEVEL + TIE:
        verdict = Verdict.ABOVE
    elif is_practical and p_below <= LEVEL + TIE:
        verdict = Verdict.BELOW
    else:
        verdict = _not_found(smallest_tail(seeds) * family > LEVEL + TIE, size)
    decided_at = seeds if verdict in (Verdict.ABOVE, Verdict.BELOW) else None
    below = (size.p_below, p_below) if is_practical else (math.nan, math.nan)
    return Decision(verdict, size.p, p, *below, family, decided_at)


def _not_found(is_too_few: bool, size: Size) -> Verdict:
    """The verdict of a test that did not pass; it depends on whether the test could pass."""
    if is_too_few:
        return Verdict.TOO_FEW
    return Verdict.TIED if size.is_tied else Verdict.NOT_ABOVE


def _at_looks(contrast: PlannedContrast, sizes: Sequence[Size], arms: int) -> Decision:
    """The verdict of a contrast with planned looks: the first that passes at its own level decides."""
    is_practical = KINDS[contrast.name].is_practical
    levels = nominal_levels(contrast.planned, LEVEL / arms)
    last, size, level = contrast.looks[-1], sizes[-1], levels[len(contrast.looks) - 1]
    decided_at: int | None = None
    seeds = len(last.seeds)
    verdict = Verdict.BETWEEN_LOOKS if contrast.seeds > seeds else _not_found(smallest_tail(seeds) > level + TIE, size)
    for look, at_look, level_at_look in zip(contrast.looks, sizes, levels, strict=False):
        is_above = at_look.p <= level_at_look + TIE
        if is_above or (is_practical and at_look.p_below <= level_at_look + TIE):
            verdict, decided_at = Verdict.ABOVE if is_above else Verdict.BELOW, len(look.seeds)
            break
    # Scaled to compare with the level of the interval as the p-values compare with that of the family.
    p, p_below = (min(1.0, p * last.level / level) for p in (size.p, size.p_below))
    below = (size.p_below, p_below) if is_practical else (math.nan, math.nan)
    return Decision(verdict, size.p, p, *below, arms, decided_at)


def specific(emotion: Decision, label: Decision) -> Decision:
    """Withdraw `above` from an emotion effect without a label effect, as a smaller family or other seeds can give."""
    if emotion.verdict is not Verdict.ABOVE or label.verdict is Verdict.ABOVE:
        return emotion
    p = max(emotion.p_corrected, 1.0 if math.isnan(label.p_corrected) else label.p_corrected)
    return emotion._replace(verdict=label.verdict, p_corrected=p, decided_at=None)

"""What the tests of a family of contrasts came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from emoreg.report.contrast_kinds import KINDS
from emoreg.report.contrast_plan import Comparison
from emoreg.report.contrast_sizes import Size
from emoreg.report.looks import nominal_levels
from emoreg.report.run_frame import EXPLORATION
from emoreg.report.statistics import LEVEL, TIE, holm, smallest_tail


class Verdict(StrEnum):
    """What a tested contrast came to: the values of the column `verdict`."""

    ABOVE = "above"
    NOT_ABOVE = "not_above"
    BELOW = "below"  # of practical contrasts alone
    MISSING_TWIN = "missing_twin"
    TOO_FEW = "too_few"  # with so few seeds no data could pass
    TIED = "tied"  # so many seeds agree that no difference could pass, however large
    BETWEEN_LOOKS = "between_looks"  # the study planned no look at this number of seeds
    COLLAPSED = "collapsed"  # a run of it did: means say nothing
    EXPLORATION = "exploration"  # on validation images, to be confirmed with other seeds


class Decision(NamedTuple):
    """What a test came to."""

    verdict: Verdict | None = None
    p: float = math.nan
    p_corrected: float = math.nan
    p_below: float = math.nan
    p_below_corrected: float = math.nan
    family: int = 0
    decided_at: int | None = None

    @property
    def p_of_verdict(self) -> float:
        """For the family: of being below where that is the verdict, else of being above."""
        return self.p_below_corrected if self.verdict is Verdict.BELOW else self.p_corrected


NOTHING = Decision()


def decide(family: Sequence[Comparison], sizes: Sequence[Sequence[Size]], arms: int) -> list[Decision]:
    """The verdicts of a family, the same contrast of all regulated arms of a cell.

    Args:
        family: the contrasts.
        sizes: their sizes at all looks.
        arms: regulated arms in the plan, also those of which no run is finished yet.
    """
    barred = [_without_test(contrast, of_looks[-1]) for contrast, of_looks in zip(family, sizes, strict=True)]
    if any(len(contrast.planned) > 1 for contrast in family):  # what a look may spend is settled before any run
        return [
            Decision(verdict, family=arms) if verdict else _spent(contrast, of_looks, arms)
            for contrast, of_looks, verdict in zip(family, sizes, barred, strict=True)
        ]
    never = [
        verdict is Verdict.MISSING_TWIN and bool(contrast.unplanned)
        for contrast, verdict in zip(family, barred, strict=True)
    ]
    number = arms - sum(never)
    last = [of_looks[-1] for of_looks in sizes]
    above = _holm([size.p for size in last], barred, never, arms)
    below = _holm([size.p_below for size in last], barred, never, arms)
    return [
        Decision(verdict, family=number) if verdict else _corrected(contrast, size, p, p_below, number)
        for contrast, size, verdict, p, p_below in zip(family, last, barred, above, below, strict=True)
    ]


def _without_test(contrast: Comparison, size: Size) -> Verdict | None:
    """Why there can be no test, or None."""
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


def _holm(ps: Sequence[float], barred: Sequence[Verdict | None], never: Sequence[bool], arms: int) -> list[float]:
    """p-values corrected for the whole family: what cannot be tested yet counts as 1, what never can does not."""
    known = [
        math.nan if is_out else 1.0 if verdict else p for p, verdict, is_out in zip(ps, barred, never, strict=True)
    ]
    return holm([*known, *[1.0] * (arms - len(known))])[: len(known)]


def _corrected(contrast: Comparison, size: Size, p: float, p_below: float, family: int) -> Decision:
    """The verdict of a contrast that is looked at once, with its p-values corrected by Holm's method."""
    seeds, is_practical = len(contrast.looks[-1].seeds), KINDS[contrast.name].is_practical
    verdict = Verdict.NOT_ABOVE
    if p <= LEVEL + TIE:
        verdict = Verdict.ABOVE
    elif is_practical and p_below <= LEVEL + TIE:
        verdict = Verdict.BELOW
    elif smallest_tail(seeds) * family > LEVEL + TIE:
        verdict = Verdict.TOO_FEW
    elif size.is_tied:
        verdict = Verdict.TIED
    decided_at = seeds if verdict in (Verdict.ABOVE, Verdict.BELOW) else None
    below = (size.p_below, p_below) if is_practical else (math.nan, math.nan)
    return Decision(verdict, size.p, p, *below, family, decided_at)


def _spent(contrast: Comparison, sizes: Sequence[Size], arms: int) -> Decision:
    """The verdict of a contrast with planned looks: the first that passes at its own level decides."""
    is_practical = KINDS[contrast.name].is_practical
    levels = nominal_levels(contrast.planned, LEVEL / arms)
    verdict, decided_at = None, None
    for look, size, level in zip(contrast.looks, sizes, levels, strict=False):
        if size.p <= level + TIE:
            verdict = Verdict.ABOVE
        elif is_practical and size.p_below <= level + TIE:
            verdict = Verdict.BELOW
        if verdict:
            decided_at = len(look.seeds)
            break
    look, size = contrast.looks[-1], sizes[-1]
    level = levels[len(contrast.looks) - 1]
    if not verdict:
        verdict = Verdict.NOT_ABOVE
        if contrast.seeds > len(look.seeds):
            verdict = Verdict.BETWEEN_LOOKS
        elif smallest_tail(len(look.seeds)) > level + TIE:
            verdict = Verdict.TOO_FEW
        elif size.is_tied:
            verdict = Verdict.TIED
    # Stretched so that they stand to the level of the interval as the p-values do to that of the family.
    p, p_below = (min(1.0, p * look.level / level) for p in (size.p, size.p_below))
    below = (size.p_below, p_below) if is_practical else (math.nan, math.nan)
    return Decision(verdict, size.p, p, *below, arms, decided_at)


def specific(emotion: Decision, label: Decision) -> Decision:
    """An effect of emotion is one of the labels first, which a smaller family or other seeds could belie."""
    if emotion.verdict is not Verdict.ABOVE or label.verdict is Verdict.ABOVE:
        return emotion
    p = max(emotion.p_corrected, 1.0 if math.isnan(label.p_corrected) else label.p_corrected)
    return emotion._replace(verdict=label.verdict, p_corrected=p, decided_at=None)

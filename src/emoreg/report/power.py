"""How many seeds a study needs, from the spread of a pilot's differences."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emoreg.errors import UserError
from emoreg.report.analysis import analyse
from emoreg.report.statistics import ALPHA, Interval, least_seeds
from emoreg.study.columns import RunStatus

if TYPE_CHECKING:
    import pandas as pd

MAX_SEEDS = 1_000_000


@dataclass(frozen=True)
class Need:
    """Seeds that one comparison needs. Differences are in percentage points."""

    target: str
    backbone: str
    arm: str  # label
    against: str  # label: Backbone, or the best control
    pilot: int  # seeds
    mean: float  # of the pilot's differences
    sd: float  # of the pilot's differences
    sd_safe: float  # its upper 80 % confidence limit
    width: int  # seeds for a 95 % interval of the wanted half-width, if sd is right
    width_safe: int  # the same for sd_safe
    power: int  # seeds to detect the wanted difference with the wanted power, if sd is right
    power_safe: int  # the same for sd_safe
    exact: int  # the least with which the exact test can decide anything in this family

    @property
    def seeds(self) -> int:
        """The most demanding of them: what to plan with."""
        return max(self.width_safe, self.power_safe, self.exact)


def needed_seeds(table: pd.DataFrame, points: float, power: float = 0.8, alpha: float = ALPHA) -> list[Need]:
    """Seeds for every regulated arm of every cell, against Backbone and against the best control.

    A pilot's standard deviation is itself uncertain, so each number comes twice: for the sd as it is, and for its
    upper 80 % confidence limit (chi-square), with which the study is large enough in about 80 % of pilots (Browne
    1995). For an emotion effect an arm must be above every control; the best one, as the hardest, stands for all.

    Args:
        table: one row per run of the pilot, as `emoreg.study.results` makes it.
        points: wanted half-width of the 95 % interval, and difference to detect, in percentage points.
        power: wanted probability of detecting that difference, in (0, 1).
        alpha: family-wise error rate; each of m comparisons gets alpha / m, the first and hardest step of Holm's
            correction.

    Raises:
        UserError: no regulated arm shares a seed with Backbone or a control, or all share fewer than two.
    """
    from scipy import stats

    analysis = analyse("pilot", table)
    found: list[tuple[tuple[str, str, str, str], Interval, int]] = []  # names, differences, size of the family
    for cell in analysis.cells:
        for arm in cell.arms:
            if arm.arm.is_regulated and arm.gain is not None:
                names = (cell.target, cell.backbone, arm.label, "Backbone")
                found.append((names, arm.gain.difference, analysis.tested_gains))
            if arm.effect is not None:
                names = (cell.target, cell.backbone, arm.label, arm.effect.control)
                found.append((names, arm.effect.difference, analysis.tested_effects))
    if not found:
        raise UserError(
            "the pilot has no finished regulated arm with Backbone or a control on the same seed: "
            "run its study to the end with 'emoreg study STUDY.yaml'"
        )
    needs = []
    for names, difference, family in found:
        if (n := difference.n) < 2:
            continue
        least = least_seeds(family, alpha)
        if least is None:
            raise UserError(
                f"{family} comparisons are too many for the exact test at {alpha}: study fewer arms or cells"
            )
        mean, sd = 100 * difference.mean, 100 * float(stats.tstd(difference.values))
        sd_safe = sd * math.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1))
        width, width_safe = (seeds_for_width(spread, points) for spread in (sd, sd_safe))
        seen, seen_safe = (seeds_for_power(spread, points, power, alpha / family) for spread in (sd, sd_safe))
        needs.append(Need(*names, n, mean, sd, sd_safe, width, width_safe, seen, seen_safe, least))
    if not needs:
        raise UserError(
            "the pilot has one seed, but the spread between seeds needs at least two, better five: "
            "run 'emoreg study STUDY.yaml --seeds 5'"
        )
    return needs


def training_hours(table: pd.DataFrame, seeds: int) -> float:
    """Training time of a whole study, both stages, with this many seeds, one run at a time.

    From the mean time of the finished seeds of each kind of run; a kind without any is not counted.
    """
    done = table[table["status"] == RunStatus.FINISHED]
    kinds = done.groupby(["stage", "arm", "target", "backbone", "experience", "pretext"], dropna=False)
    return float(kinds["seconds"].mean().sum()) * seeds / 3600


def seeds_for_width(sd: float, half_width: float) -> int:
    """The least seeds whose 95 % t-interval has at most this half-width, in the unit of the standard deviation."""
    from scipy import stats

    return _least(lambda n: stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) <= half_width)


def seeds_for_power(sd: float, difference: float, power: float, alpha: float) -> int:
    """The least seeds with which a paired two-sided t-test detects this difference with this probability."""
    from statsmodels.stats.power import TTestPower

    effect_size = min(difference / sd, 20.0) if sd > 0 else 20.0  # scipy has no noncentral t far above
    # The upper tail alone: the lower one, a verdict in the wrong direction, adds next to nothing and may be NaN.
    return _least(lambda n: TTestPower().power(effect_size, n, alpha / 2, alternative="larger") >= power)


def _least(is_enough: Callable[[int], bool]) -> int:
    """The least number of seeds, from two on, that is enough; more seeds must never be worse."""
    high = 2
    while not is_enough(high):
        if high > MAX_SEEDS:
            raise UserError("more than a million seeds would be needed; ask for a larger difference in points")
        high *= 2
    return bisect_left(range(high), True, lo=max(2, high // 2), key=is_enough)

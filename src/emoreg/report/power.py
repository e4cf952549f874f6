"""How many seeds a study needs, from the spread of a pilot's differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emoreg.errors import UserError
from emoreg.report.analysis import ArmResult, analyse
from emoreg.report.statistics import ALPHA, Comparison, least_seeds

if TYPE_CHECKING:
    import pandas as pd

MOST = 1_000_000  # seeds that are looked at


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
    width_safe: int  # the same if sd_safe is
    power: int  # seeds to see the wanted difference with the wanted power, if sd is right
    power_safe: int  # the same if sd_safe is
    exact: int  # the least with which the exact test can decide anything in this family

    @property
    def seeds(self) -> int:
        """The most demanding of them: what to plan with."""
        return max(self.width_safe, self.power_safe, self.exact)


def needed_seeds(table: pd.DataFrame, points: float, power: float = 0.8, alpha: float = ALPHA) -> list[Need]:
    """Seeds for every regulated arm of every cell, against Backbone and against the best control.

    A pilot's standard deviation is itself uncertain, so each number comes twice: for the sd as it is, and for its
    upper 80 % confidence limit (chi-square), with which the study is large enough in about 80 % of pilots (Browne
    1995). To see an emotion effect an arm must be above every control; the best stands for them, as the hardest.

    Args:
        table: a row a run of the pilot, as `emoreg.study.results` makes it.
        points: wanted half-width of the 95 % interval, and the difference to be seen, in percentage points.
        power: wanted probability to see such a difference, in (0, 1).
        alpha: of the family; each of m comparisons gets alpha / m, the first and hardest step of Holm's correction.

    Raises:
        UserError: no regulated arm with a Backbone or a control beside it, or fewer than two seeds.
    """
    analysis = analyse("pilot", table)
    found = [
        (cell.target, cell.backbone, arm, against, comparison)
        for cell in analysis.cells
        for arm in cell.arms
        if arm.arm.is_regulated
        for against, comparison in _comparisons(arm)
    ]
    if not found:
        raise UserError(
            "the pilot has no finished regulated arm with Backbone or a control beside it on the same seed: "
            "run its study to the end with 'emoreg study STUDY.yaml'"
        )
    if all(comparison.difference.n < 2 for *_, comparison in found):
        raise UserError(
            "the pilot has one seed, and the spread between seeds needs two or more, better five: "
            "run 'emoreg study STUDY.yaml --seeds 5'"
        )
    return [
        _need(
            (target, backbone, arm.label, against),
            [100 * value for value in comparison.difference.values],
            analysis.gains if against == "Backbone" else analysis.effects,
            (points, power, alpha),
        )
        for target, backbone, arm, against, comparison in found
        if comparison.difference.n > 1
    ]


def training_hours(table: pd.DataFrame, seeds: int) -> float:
    """How long all runs of a study, both stages, would train with so many seeds, one run at a time.

    From the mean time of each kind of run over its finished seeds; a kind without any is not counted.
    """
    done = table[table["status"] == "finished"]
    kinds = done.groupby(["stage", "arm", "target", "backbone", "experience", "pretext"], dropna=False)
    return float(kinds["seconds"].mean().sum()) * seeds / 3600


def _comparisons(arm: ArmResult) -> list[tuple[str, Comparison]]:
    gain = [] if arm.gain is None else [("Backbone", arm.gain)]
    return gain if arm.effect is None else [*gain, (arm.effect.control, arm.effect.size)]


def _need(
    names: tuple[str, str, str, str], differences: Sequence[float], family: int, wanted: tuple[float, float, float]
) -> Need:
    from scipy import stats

    points, power, alpha = wanted
    n = len(differences)
    mean, sd = stats.tmean(differences), stats.tstd(differences)
    sd_safe = sd * math.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1))
    least = least_seeds(family, alpha)
    if least is None:
        raise UserError(f"{family} comparisons are too many for the exact test at {alpha}: study fewer arms or cells")
    width, width_safe = (seeds_for_width(spread, points) for spread in (sd, sd_safe))
    seen, seen_safe = (seeds_for_power(spread, points, power, alpha / family) for spread in (sd, sd_safe))
    return Need(*names, n, float(mean), float(sd), sd_safe, width, width_safe, seen, seen_safe, least)


def seeds_for_width(sd: float, half_width: float) -> int:
    """The least seeds whose 95 % t-interval has at most this half-width, in the unit of the standard deviation."""
    from scipy import stats

    return _least(lambda n: stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) <= half_width)


def seeds_for_power(sd: float, difference: float, power: float, alpha: float) -> int:
    """The least seeds with which a paired two-sided t-test sees this difference with this probability."""
    from statsmodels.stats.power import TTestPower

    effect_size = min(difference / sd, 20.0) if sd > 0 else 20.0  # scipy has no noncentral t far above
    # The upper tail alone: the lower one, a verdict in the wrong direction, adds next to nothing and may be NaN.
    return _least(lambda n: TTestPower().power(effect_size, n, alpha / 2, alternative="larger") >= power)


def _least(is_enough: Callable[[int], bool]) -> int:
    """The least number of seeds, from two on, that is enough, where more are never worse."""
    if is_enough(2):
        return 2
    low, high = 2, 4
    while not is_enough(high):
        if high > MOST:
            raise UserError("more than a million seeds would be needed; ask for a larger difference in points")
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high

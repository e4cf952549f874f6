"""Intervals over seeds, paired comparisons, exact tests and their correction."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05  # of every verdict, two-sided, after Holm's correction
EXACT_SEEDS = 16  # up to here all flips are taken
FLIPS = 2**EXACT_SEEDS  # of more seeds as many random ones
TIE = 1e-12  # accuracies are ratios of counts: what is nearer than this differs by rounding only


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % Student-t confidence interval over seeds.

    With one seed there is no interval: `low` and `high` are NaN. Without any value the mean is NaN too.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]  # one a seed, in the order of the seeds

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def sign(self) -> int:
        """1 if the interval lies above zero, -1 if below, 0 if that cannot be told.

        Values that are the same in every seed count as 0: without any spread there is nothing to judge by.
        """
        if not self.low < self.high:  # NaN too
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Comparison:
    """One arm minus another, paired by seed."""

    difference: Interval  # of accuracies, in [-1, 1]
    p: float  # exact two-sided sign-flip permutation test; NaN with one seed
    p_holm: float  # corrected over all comparisons of its kind in the study (Holm 1979); NaN where not in the family
    effect_size: float  # Hedges' g of paired differences; NaN without spread

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p is at most 0.05."""
        return self.p_holm <= ALPHA


def interval(values: Sequence[float]) -> Interval:
    """Mean of `values` (one a seed) with its 95 % Student-t interval."""
    from scipy import stats

    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, ())
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, tuple(values))
    if max(values) - min(values) < TIE:  # scipy would give NaN, or an interval of rounding errors
        return Interval(mean, mean, mean, tuple(values))
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=stats.sem(values))
    return Interval(mean, float(low), float(high), tuple(values))


def compare(one: Sequence[float], other: Sequence[float]) -> Comparison:
    """`one` minus `other`, paired: both one value a seed, in the same order of seeds. `p_holm` is NaN.

    ValueError if they have not the same number of seeds.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    p = float(sign_flip_p(differences)) if len(differences) > 1 else math.nan
    return Comparison(interval(differences), p, math.nan, hedges_g(differences))


def sign_flip_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p of paired differences (..., seeds): could their mean be so far from 0 if each sign were a coin's?

    Fisher's randomisation test. Up to 16 seeds it is exact: all 2^n flips. Above, it takes 65,536 random ones
    with a fixed seed and counts the observed one among them, which keeps the test valid (Phipson & Smyth 2010).

    Returns:
        (...), in (0, 1].
    """
    data = np.asarray(differences, dtype=float)
    seeds = data.shape[-1]
    means = np.abs(data @ _flips(seeds).T) / seeds
    extreme = (means >= np.abs(data.mean(axis=-1, keepdims=True)) - TIE).sum(axis=-1)
    p = extreme / 2**seeds if seeds <= EXACT_SEEDS else (extreme + 1) / (FLIPS + 1)
    return np.asarray(p, dtype=float)


@functools.lru_cache(maxsize=2)
def _flips(seeds: int) -> NDArray[np.float64]:
    """Signs ±1 (flips, seeds): all that there are, or 65,536 random ones."""
    if seeds > EXACT_SEEDS:
        bits = np.random.default_rng(0).integers(0, 2, (FLIPS, seeds))
    else:
        bits = np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1
    return np.where(bits == 1, -1.0, 1.0)


def above_all(differences: ArrayLike, ps: ArrayLike) -> NDArray[np.float64]:
    """p of "above every control", from the mean differences (..., controls) to each and their p's.

    Intersection-union test (Berger 1982): the largest p, where a difference that is not positive has p = 1. As
    all must be passed, none is chosen, and nothing is corrected for their number.

    Returns:
        (...); NaN where one of the p's is.
    """
    p = np.where(np.asarray(differences) > TIE, np.asarray(ps, dtype=float), 1.0)
    largest: NDArray[np.float64] = np.where(np.isnan(ps), np.nan, p).max(axis=-1)
    return largest


def holm(ps: Sequence[float]) -> list[float]:
    """p's corrected for their number (Holm 1979), in the same order; a NaN is not in the family and stays NaN."""
    from statsmodels.stats.multitest import multipletests

    corrected = np.array(ps, dtype=float)
    family = ~np.isnan(corrected)
    if family.sum() > 1:
        corrected[family] = multipletests(corrected[family], method="holm")[1]
    return [float(p) for p in corrected]


def hedges_g(differences: Sequence[float]) -> float:
    """Mean of paired differences over their standard deviation, times Hedges' J (Hedges 1981, the exact one).

    NaN without spread, and below three seeds, where J is 0 or not defined.
    """
    n = len(differences)
    if n < 3 or max(differences) - min(differences) < TIE:
        return math.nan
    df = n - 1
    j = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return float(j * np.mean(differences) / np.std(differences, ddof=1))


def smallest_p(seeds: int) -> float:
    """The least p that the sign-flip test can give: both signs of "all differences point the same way"."""
    return max(2.0 ** (1 - seeds), 1 / (FLIPS + 1))


def least_seeds(family: int, alpha: float = ALPHA) -> int | None:
    """With how many seeds one of `family` comparisons can come out at `alpha` after Holm's correction.

    None where the 65,536 random flips above 16 seeds are too few for that.
    """
    return next((n for n in range(2, 18) if smallest_p(n) * family <= alpha), None)

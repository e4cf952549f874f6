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
EXACT_SEEDS = 16  # up to this number all flips are taken
FLIPS = 2**EXACT_SEEDS  # random flips for more seeds
TIE = 1e-12  # accuracies are ratios of counts: smaller differences are rounding errors


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % Student-t confidence interval over seeds.

    With one seed there is no interval: `low` and `high` are NaN. Without any value the mean is NaN too.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]  # one per seed, in the order of the seeds

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def sign(self) -> int:
        """1 if the interval lies above zero, -1 if below, else 0.

        Also 0 if every seed has the same value: without any spread there is nothing to judge by.
        """
        if not self.low < self.high:  # NaN too
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Comparison:
    """One arm minus another, paired by seed."""

    difference: Interval  # of accuracies, in [-1, 1]
    p: float  # exact two-sided sign-flip permutation test; NaN with one seed
    p_holm: float  # corrected over its family of comparisons in the study (Holm 1979); NaN if it is in none
    effect_size: float  # Hedges' g of paired differences; NaN without spread

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p is at most 0.05."""
        return self.p_holm <= ALPHA


def interval(values: Sequence[float]) -> Interval:
    """Mean of `values`, one per seed, with its 95 % Student-t interval."""
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
    """`one` minus `other`, paired: one value per seed each, in the same order of seeds. `p_holm` is NaN.

    Raises:
        ValueError: the numbers of seeds differ.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    p = float(sign_flip_p(differences)) if len(differences) > 1 else math.nan
    return Comparison(interval(differences), p, math.nan, hedges_g(differences))


def sign_flip_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p of paired differences (..., seeds) by Fisher's randomisation test, which flips their signs.

    With up to 16 seeds it is exact, over all 2^n flips. With more it takes 65,536 random flips with a fixed seed and
    counts the observed signs among them, which keeps the test valid (Phipson & Smyth 2010).

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
    """Signs ±1, (flips, seeds): all of them, or 65,536 random ones."""
    if seeds > EXACT_SEEDS:
        bits = np.random.default_rng(0).integers(0, 2, (FLIPS, seeds))
    else:
        bits = np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1
    return np.where(bits == 1, -1.0, 1.0)


def above_all(differences: ArrayLike, ps: ArrayLike) -> NDArray[np.float64]:
    """p for "above every control", from the mean differences to each control and their p-values, both (..., controls).

    Intersection-union test (Berger 1982): the largest p, where a difference that is not positive has p = 1. Since
    all must be passed, none is chosen and no correction for their number is needed.

    Returns:
        (...); NaN where one of the p-values is.
    """
    p = np.where(np.asarray(differences) > TIE, np.asarray(ps, dtype=float), 1.0)
    largest: NDArray[np.float64] = np.where(np.isnan(ps), np.nan, p).max(axis=-1)
    return largest


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order; NaN is not counted and stays NaN."""
    from statsmodels.stats.multitest import multipletests

    corrected = np.array(ps, dtype=float)
    family = ~np.isnan(corrected)
    if family.sum() > 1:
        corrected[family] = multipletests(corrected[family], method="holm")[1]
    return [float(p) for p in corrected]


def hedges_g(differences: Sequence[float]) -> float:
    """Mean of paired differences over their standard deviation, times Hedges' exact J (Hedges 1981).

    NaN without spread, and with fewer than three seeds, where J is 0 or undefined.
    """
    n = len(differences)
    if n < 3 or max(differences) - min(differences) < TIE:
        return math.nan
    df = n - 1
    j = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return float(j * np.mean(differences) / np.std(differences, ddof=1))


def smallest_p(seeds: int) -> float:
    """The smallest p of the sign-flip test: all differences have one sign, and either sign counts."""
    return max(2.0 ** (1 - seeds), 1 / (FLIPS + 1))


def least_seeds(family: int, alpha: float = ALPHA) -> int | None:
    """The fewest seeds with which one of `family` comparisons can reach `alpha` after Holm's correction.

    None if the 65,536 random flips above 16 seeds are too few for that.
    """
    return next((n for n in range(2, 18) if smallest_p(n) * family <= alpha), None)

"""Intervals and tests of means over seeds and test images, and the correction for multiple tests."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TIE = 1e-12  # accuracies are ratios of counts: smaller differences are rounding errors
LEVEL = 0.025  # one-sided level of every verdict, so that the 95 % interval agrees
RESAMPLES = 9_999  # makes shares of resamples multiples of 0.0001
BLOCK = 4  # pairs at a time, so that their resamples fit into the processor's cache
ENOUGH = 4  # seeds for an interval: with fewer no test can pass (`smallest_tail`), and Student's t says little
ROUNDING = 1e-5  # error of single precision in a resample's variance, in units of the spread


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval; Student's if `interval` made it.

    With too few seeds there is no interval: `low` and `high` are NaN. Without any value the mean is NaN too.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]  # one per seed, in the order of the seeds

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)


def interval(values: Sequence[float], floor: float = -math.inf, ceiling: float = math.inf) -> Interval:
    """Mean of `values` with its 95 % Student-t interval.

    Args:
        values: one per seed; with fewer than four there is no interval.
        floor: least possible value, such as 0 for an accuracy; the interval ends there.
        ceiling: largest possible value, such as 1 for an accuracy.
    """
    from scipy import stats

    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, ())
    mean = math.fsum(values) / n
    if n < ENOUGH:
        return Interval(mean, math.nan, math.nan, tuple(values))
    if max(values) - min(values) < TIE:  # scipy would give NaN, or an interval of rounding errors
        return Interval(mean, mean, mean, tuple(values))
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=stats.sem(values))
    return Interval(mean, max(float(low), floor), min(float(high), ceiling), tuple(values))


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979), in the same order.

    Not statsmodels' `multipletests`, which runs the garbage collector at every call; that takes longer than all else.
    """
    corrected = np.array(ps, dtype=float)
    order = np.argsort(corrected)
    steps = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]


@dataclass(frozen=True)
class Estimates:
    """Means of paired differences with bootstrap tests and limits; fields have shape (pairs,) unless noted."""

    mean: NDArray[np.float64]
    p_above: NDArray[np.float64]  # one-sided, for a mean above 0
    p_below: NDArray[np.float64]  # one-sided, for a mean below 0
    low: NDArray[np.float64]  # above 0 exactly if p_above is at most `lower`
    high: NDArray[np.float64]  # below 0 exactly if p_below is at most `upper`; has the shape of `upper`


def estimate(
    differences: ArrayLike,
    image_variance: ArrayLike = 0.0,
    lower: ArrayLike = LEVEL,
    upper: ArrayLike | None = None,
    is_early: ArrayLike = False,
) -> Estimates:
    """Studentised bootstrap of means over seeds, and over test images if their variance is known.

    A resample of seeds has t* = (m* - m + e √v) / √(s*² / n + v), with v the variance that the test images add and e
    a standard normal draw; the limits are m - t*_(1 - lower) · se and m - t*_(upper) · se (Efron & Tibshirani 1993,
    chapter 12). Without v it is the plain bootstrap-t, which adapts to skewed distributions; where v dominates it
    becomes the normal one, which is right for thousands of images. A resample without spread and without v counts as
    infinitely far away. scipy.stats.bootstrap has no studentised method.

    At an early look the level is so small that resamples of few seeds have too thin a tail. There Student's t must
    agree: the larger p and the wider limit count (with v, Satterthwaite's degrees of freedom). Without this, studies
    that look after every seed from 5 to 12 err in 3.2 % of cases; with it, in 2.5 %.

    Args:
        differences: (pairs, seeds), or (seeds,) for one pair.
        image_variance: v of each pair, from `image_variance`; 0 for an interval over seeds alone.
        lower: one-sided probability of the tail below `low`, of each pair: 0.025 for a 95 % interval.
        upper: one-sided probability of the tail above `high`; (pairs,), or (pairs, m) for m limits each. Default: as
            `lower`.
        is_early: whether a pair is estimated at a look before the last planned one.

    Returns:
        The estimates. With fewer than two seeds tests and limits are NaN. Pairs whose differences are all the same,
        without v, give no evidence: both p are 1 and the limits are infinite. A limit is infinite, too, if the
        resamples do not determine it, for a tail below `smallest_tail`.
    """
    from scipy.special import stdtr, stdtrit

    data = np.atleast_2d(np.asarray(differences, dtype=float))
    pairs, seeds = data.shape
    below = np.broadcast_to(np.asarray(lower, dtype=float), pairs)
    above = below if upper is None else np.asarray(upper, dtype=float)
    above = above if above.ndim > 1 else np.broadcast_to(above, pairs)
    mean = data.mean(axis=1) if seeds else np.full(pairs, math.nan)
    if seeds < 2:
        nothing = np.full(pairs, math.nan)
        return Estimates(mean, nothing, nothing, nothing, np.full(above.shape, math.nan))
    v = np.broadcast_to(np.asarray(image_variance, dtype=float), pairs)
    se = np.sqrt(data.var(axis=1, ddof=1) / seeds + v)
    has_spread = (np.ptp(data, axis=1) > TIE) | (v > 0)
    p_above, p_below = np.ones(pairs), np.ones(pairs)
    low, high = mean.copy(), np.broadcast_to(mean.reshape(-1, *[1] * (above.ndim - 1)), above.shape).copy()
    low[~has_spread & ~np.isnan(mean)] = -math.inf
    high[~has_spread & ~np.isnan(mean)] = math.inf
    beyond_low, beyond_high = _beyond(below), _beyond(above)
    for start in range(0, pairs, BLOCK):
        block = np.flatnonzero(has_spread[start : start + BLOCK]) + start
        t = np.sort(_resampled_t(data[block], v[block]), axis=1)
        t = np.concatenate([np.full((len(block), 1), -np.inf, np.float32), t, np.full((len(block), 1), np.inf)], axis=1)
        for row, pair in zip(t, block, strict=True):
            observed = mean[pair] / se[pair]
            p_above[pair] = (1 + RESAMPLES - np.searchsorted(row[1:-1], observed, side="left")) / (RESAMPLES + 1)
            p_below[pair] = (1 + np.searchsorted(row[1:-1], observed, side="right")) / (RESAMPLES + 1)
            low[pair] -= row[-1 - beyond_low[pair]] * se[pair]
            high[pair] -= row[beyond_high[pair]] * se[pair]
    if (early := np.flatnonzero(np.broadcast_to(np.asarray(is_early), pairs) & has_spread)).size:
        freedom = _freedom(data[early], v[early])
        p_above[early] = np.maximum(p_above[early], stdtr(freedom, -mean[early] / se[early]))
        p_below[early] = np.maximum(p_below[early], stdtr(freedom, mean[early] / se[early]))
        low[early] = np.minimum(low[early], mean[early] + stdtrit(freedom, below[early]) * se[early])
        by_limit = (early.size, *[1] * (above.ndim - 1))
        far, middle = -stdtrit(freedom.reshape(by_limit), above[early]) * se[early].reshape(by_limit), mean[early]
        high[early] = np.maximum(high[early], middle.reshape(by_limit) + far)
    return Estimates(mean, p_above, p_below, low, high)


def _beyond(tail: NDArray[np.float64]) -> NDArray[np.intp]:
    """The rank, from the outside, of the resample at the end of a tail: 0 for infinity, 1 for the outermost."""
    return np.floor(tail * (RESAMPLES + 1) + TIE).astype(np.intp)


def _freedom(data: NDArray[np.float64], v: ArrayLike) -> NDArray[np.float64]:
    """Degrees of freedom of the variance of a mean, of which the part v is known (Satterthwaite 1946); (pairs,)."""
    seeds = data.shape[1]
    of_seeds = data.var(axis=1, ddof=1) / seeds
    with np.errstate(divide="ignore"):
        freedom: NDArray[np.float64] = (seeds - 1) * (1 + v / of_seeds) ** 2
    return np.minimum(freedom, 1e9)


def p_above(
    differences: NDArray[np.float64], image_variance: float = 0.0, shifts: ArrayLike = 0.0, is_early: bool = False
) -> NDArray[np.float64]:
    """Only `estimate(...).p_above`, for simulations: faster for many pairs, and for several shifts of the mean at once.

    Args:
        differences: (pairs, seeds), with spread in every pair.
        image_variance: v, the same for all pairs.
        shifts: added to the differences; a number or (shifts,).
        is_early: as for `estimate`, the same for all pairs.

    Returns:
        p of shape (pairs,) or (shifts, pairs).
    """
    from scipy.special import stdtr

    pairs, seeds = differences.shape
    se = np.sqrt(differences.var(axis=1, ddof=1) / seeds + image_variance)
    observed = (differences.mean(axis=1) + np.asarray(shifts)[..., None]) / se
    beyond = np.empty(observed.shape)
    for start in range(0, pairs, BLOCK):
        block = slice(start, start + BLOCK)
        t = _resampled_t(differences[block], np.full(len(differences[block]), image_variance))
        for shift in np.ndindex(observed.shape[:-1]):
            beyond[*shift, block] = np.count_nonzero(t >= observed[*shift, block, None], axis=1)
    p: NDArray[np.float64] = (1 + beyond) / (RESAMPLES + 1)
    return np.maximum(p, stdtr(_freedom(differences, image_variance), -observed)) if is_early else p


def _resampled_t(data: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float32]:
    """t* of every resample, (pairs, RESAMPLES), computed in units of a pair's spread, so single precision suffices."""
    seeds = data.shape[1]
    counts, normal = _resamples(seeds)
    unit = np.sqrt(data.var(axis=1, keepdims=True) + v[:, None])
    centred = ((data - data.mean(axis=1, keepdims=True)) / unit).astype(np.float32)
    v = (v[:, None] / unit**2).astype(np.float32)
    shift = centred @ counts / np.float32(seeds)  # m* - m
    variance = centred**2 @ counts / np.float32(seeds)
    variance -= shift**2
    is_same = variance < ROUNDING
    variance[is_same] = 0
    variance /= np.float32(seeds - 1)  # s*² / n: s*² divides by n - 1
    if v.any():
        variance += v
        shift += normal * np.sqrt(v)
    with np.errstate(divide="ignore", invalid="ignore"):
        t: NDArray[np.float32] = shift / np.sqrt(variance)
    if is_same.any():
        t[is_same & ((variance == 0) & (np.abs(shift) < ROUNDING))] = 0
    return t


@functools.lru_cache(maxsize=64)
def _resamples(seeds: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How often each resample holds each seed, (seeds, RESAMPLES), and a standard normal value for each resample.

    They are fixed, so that the same differences give the same p. The normal values are quantiles in random order.
    """
    from scipy.special import ndtri

    rng = np.random.default_rng(seeds)
    counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    normal = rng.permutation(ndtri((np.arange(RESAMPLES) + 0.5) / RESAMPLES))
    return np.ascontiguousarray(counts.T, dtype=np.float32), normal.astype(np.float32)


@functools.lru_cache(maxsize=256)
def smallest_tail(seeds: int) -> float:
    """The smallest p that this number of seeds can give; with fewer than four it is above 0.025.

    At least one seed lies above the mean, and the resamples that repeat only it, about one in n^n, are infinitely far
    away. They are counted for the seed with the fewest of them.
    """
    if seeds < 2:
        return 1.0
    counts, _ = _resamples(seeds)
    return float(1 + np.count_nonzero(counts == seeds, axis=1).min()) / (RESAMPLES + 1)


def image_variance(sums: NDArray[np.float64], squares: float, seed_means: ArrayLike) -> float:
    """The variance that test images add to a mean over seeds and images, from the table of seeds × images.

    With s²_image the variance of the images' means and s²_rest the residual variance (two-way table without
    replication), it is s²_image / N - s²_rest / (n N), at least 0; s²_seed / n is the rest of the variance.

    Args:
        sums: (images,), each image's sum over seeds of paired differences in right or wrong, or of right or wrong.
        squares: sum of the squares of these differences over seeds and images.
        seed_means: (seeds,), means over images.
    """
    by_seed = np.asarray(seed_means, dtype=float)
    seeds, images = len(by_seed), len(sums)
    if seeds < 2 or images < 2:
        return 0.0
    total = float(sums.sum())
    mean = total / (seeds * images)
    # Sums of squares: images, seeds, residual.
    of_images = float(np.dot(sums, sums)) / seeds - total * mean
    of_seeds = images * float(((by_seed - mean) ** 2).sum())
    rest = max(0.0, squares - total * mean - of_images - of_seeds)
    s2_image, s2_rest = of_images / seeds / (images - 1), rest / ((seeds - 1) * (images - 1))
    return max(0.0, s2_image / images - s2_rest / (seeds * images))

"""What a set of runs says: each arm's mean, its interval, and its gain over the plain backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % Student-t confidence interval over `n` seeds.

    With one seed there is no interval: `low` and `high` are NaN.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ArmSummary:
    """One row of the results table."""

    name: str  # as in the code, e.g. "learned"
    label: str  # as in reports, e.g. "Learn-E-Reg"
    is_control: bool
    accuracy: Interval  # on the test split, in [0, 1]
    gain: Interval | None  # accuracy minus the backbone's, paired by seed; None for the backbone
    lam: tuple[float, ...]  # λ at the end of training, one value a seed; empty without an emotional branch
    seconds: float  # mean training time of one run
    curves: pd.DataFrame  # columns seed, epoch, val_accuracy, train_loss, lambda: one row a seed and epoch


def interval(values: Sequence[float]) -> Interval:
    """Mean of `values` (one a seed) with its 95 % Student-t interval."""
    from scipy import stats

    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    error = stats.sem(values)
    if error == 0.0:  # every seed gave the same value: scipy's t interval of scale 0 is NaN
        return Interval(mean, mean, mean, n)
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high), n)

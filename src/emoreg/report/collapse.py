"""How often runs collapse and branches starve: frequencies with exact intervals, in place of means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from emoreg.report.run_frame import Runs


@dataclass(frozen=True)
class Frequency:
    """How many of an arm's runs did something, with the exact 95 % interval of the share.

    That is Clopper and Pearson's (1934): of 8 runs none collapses in 43 % of samples at a rate of 0.1.
    """

    count: int
    runs: int  # in which it was measured
    low: float  # NaN without any
    high: float


def collapsed(runs: Runs, rows: Iterable[int]) -> Frequency:
    """Of these runs, those whose accuracy is not finite or below `read_runs.collapse_threshold`."""
    return _frequency([bool(runs.is_collapsed[row]) for row in rows])


def starved(runs: Runs, rows: Iterable[int]) -> Frequency:
    """Of these runs with both branches measured alone, those in which one has starved.

    Its accuracy is under half of the other's, on training images at the end.
    """
    return _frequency([runs.starved[row] != "" for row in rows if runs.starved[row] is not None])


def _frequency(those: list[bool]) -> Frequency:
    from statsmodels.stats.proportion import proportion_confint

    count, number = sum(those), len(those)
    low, high = proportion_confint(count, number, alpha=0.05, method="beta") if those else (math.nan, math.nan)
    return Frequency(count, number, float(low), float(high))

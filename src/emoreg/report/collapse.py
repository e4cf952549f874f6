"""How often runs collapse and branches starve: frequencies with exact intervals, instead of means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from emoreg.report.run_frame import Runs

STARVED = 0.5  # share of the better branch's outcome


@dataclass(frozen=True)
class Frequency:
    """The number of an arm's runs with an event, and the exact 95 % interval of its rate (Clopper & Pearson 1934)."""

    count: int
    runs: int  # number of runs in which it was measured
    low: float  # NaN if there are no such runs
    high: float


def collapsed(runs: Runs, rows: Iterable[int]) -> Frequency:
    """How many of these runs have collapsed: their accuracy is not finite or below `read_runs.collapse_threshold`."""
    return _frequency([bool(runs.is_collapsed[row]) for row in rows])


def starved(runs: Runs, rows: Iterable[int]) -> Frequency:
    """How many of these runs have a starved branch, among those in which both branches were measured alone."""
    return _frequency([runs.starved[row] != "" for row in rows if runs.starved[row] is not None])


def is_starved(weaker: float, stronger: float) -> bool:
    """Whether a branch has starved, from the outcomes of both alone; no branch has if neither learned anything."""
    return stronger > 0 and weaker < STARVED * stronger


def _frequency(events: list[bool]) -> Frequency:
    from statsmodels.stats.proportion import proportion_confint

    count, number = sum(events), len(events)
    low, high = proportion_confint(count, number, alpha=0.05, method="beta") if events else (math.nan, math.nan)
    return Frequency(count, number, float(low), float(high))

"""The size and p-values of contrasts at each of their looks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from emoreg.report.contrast_kinds import KINDS, to_beat
from emoreg.report.contrast_plan import Look, PlannedContrast
from emoreg.report.run_frame import TWINS, Arm, Runs, variance_of_images
from emoreg.report.statistics import estimate


class Size(NamedTuple):
    """The size of a contrast at one look, against the hardest of the other arms."""

    hardest: Arm | None  # None if there is no other arm
    images: int
    point: float
    low: float
    high: float
    low_seeds: float
    high_seeds: float
    p: float
    p_below: float
    is_tied: bool  # so many seeds agree that resampling gives no lower limit, whatever the difference
    collapsed: int

    @property
    def against(self) -> str | None:
        """The hardest twin's experience, or a reference's mode."""
        other = self.hardest
        return other and (other.experience if other.experience in TWINS else other.mode)


class _Pair(NamedTuple):
    """An arm and another, or an arm alone, at one look."""

    one: tuple[int, ...]  # rows
    other: tuple[int, ...] | None
    level: float
    is_early: bool
    bounds: tuple[float, float]  # range of the outcome


def sizes_of(runs: Runs, contrasts: Sequence[PlannedContrast]) -> list[list[Size]]:
    """The sizes of each contrast at all its looks."""
    pairs = [[_pairs(runs, contrast, look) for look in contrast.looks] for contrast in contrasts]
    by_seeds: dict[int, dict[_Pair, None]] = defaultdict(dict)  # each pair once; those of equal seeds together
    for pair in (pair for at_looks in pairs for at_look in at_looks for pair in at_look):
        by_seeds[len(pair.one)][pair] = None
    estimated: dict[_Pair, _Estimated] = {}
    for distinct in by_seeds.values():
        estimated.update(zip(distinct, _estimated(runs, list(distinct)), strict=True))
    return [
        [_hardest([estimated[pair] for pair in at_look], contrast) if at_look else _UNKNOWN for at_look in at_looks]
        for contrast, at_looks in zip(contrasts, pairs, strict=True)
    ]


def _pairs(runs: Runs, contrast: PlannedContrast, look: Look) -> list[_Pair]:
    arms, outcome = runs.cells[contrast.cell], runs.outcomes[contrast.cell]
    bounds = runs.bounds or (outcome.least, outcome.largest)
    one = rows_of(arms[contrast.arm], look.seeds)
    others = [None if other is None else rows_of(arms[other], look.seeds) for other in contrast.others]
    return [_Pair(one, other, look.level, look.is_early, bounds) for other in others]


def rows_of(by_seed: Mapping[int, int], seeds: Sequence[int]) -> tuple[int, ...]:
    """The rows of an arm's runs with these seeds."""
    return tuple(by_seed[seed] for seed in seeds)


_UNKNOWN = Size(None, 0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, False, 0)
OTHERS = tuple(sorted(set(map(to_beat, KINDS))))  # an upper limit for each, at 1 - level / k


class _Estimated(NamedTuple):
    """The estimate of a pair, over seeds and images and over seeds alone, with an upper limit for each of OTHERS."""

    images: int
    mean: float
    low: float
    high: list[float]
    low_seeds: float
    high_seeds: list[float]
    p: float
    p_below: float
    is_tied: bool
    collapsed: frozenset[int]  # rows


def _estimated(runs: Runs, pairs: Sequence[_Pair]) -> list[_Estimated]:
    ones = np.array([pair.one for pair in pairs], dtype=np.intp)
    others = np.array([pair.other or pair.one for pair in pairs], dtype=np.intp)
    is_alone, is_early = np.array([(pair.other is None, pair.is_early) for pair in pairs]).T
    values = runs.scores[ones] - np.where(is_alone[:, None], 0.0, runs.scores[others])
    lower = np.array([pair.level for pair in pairs])
    upper = lower[:, None] / np.array(OTHERS)
    by_seed = estimate(values, 0.0, lower, upper, is_early)
    v, images = np.zeros(len(pairs)), np.zeros(len(pairs), dtype=np.int64)
    for place, pair in enumerate(pairs):
        v[place], images[place] = variance_of_images(runs, pair.one, pair.other)
    both = estimate(values, v, lower, upper, is_early) if v.any() else by_seed
    # Where resampling gives no limit, only the range of the outcome is known.
    least, largest = np.array([pair.bounds for pair in pairs]).T
    floor = np.where(is_alone, least, least - largest)
    ceiling = np.where(is_alone, largest, largest - least)
    low_seeds, high_seeds = np.maximum(by_seed.low, floor), np.minimum(by_seed.high, ceiling[:, None])
    # Images must not make an interval narrower, as the bootstrap of both may do very slightly if they add little.
    low = np.minimum(np.maximum(both.low, floor), low_seeds)
    high = np.maximum(np.minimum(both.high, ceiling[:, None]), high_seeds)
    p, p_below = np.maximum(by_seed.p_above, both.p_above), np.maximum(by_seed.p_below, both.p_below)
    is_tied = np.isneginf(np.minimum(by_seed.low, both.low))
    collapsed = [frozenset(row for row in (*pair.one, *(pair.other or ())) if runs.is_collapsed[row]) for pair in pairs]
    columns = (images, by_seed.mean, low, high, low_seeds, high_seeds, p, p_below, is_tied)
    return [_Estimated(*of_pair) for of_pair in zip(*(column.tolist() for column in columns), collapsed, strict=True)]


def _hardest(pairs: Sequence[_Estimated], contrast: PlannedContrast) -> Size:
    """The size against the hardest of several other arms: for each number, the other that makes it smallest."""
    limit = OTHERS.index(to_beat(contrast.name))
    collapsed = len(frozenset().union(*(pair.collapsed for pair in pairs)))
    # If a run has no outcome, there is no mean and no hardest arm: the size is that against the arm with this run.
    hardest = min(range(len(pairs)), key=lambda place: (not math.isnan(pairs[place].mean), pairs[place].mean))
    if math.isnan(pairs[hardest].mean):
        pairs = [pairs[hardest]]
    return Size(
        hardest=contrast.others[hardest],
        images=min(pair.images for pair in pairs),
        point=min(pair.mean for pair in pairs),
        low=min(pair.low for pair in pairs),
        high=min(pair.high[limit] for pair in pairs),
        low_seeds=min(pair.low_seeds for pair in pairs),
        high_seeds=min(pair.high_seeds[limit] for pair in pairs),
        p=max(pair.p for pair in pairs),
        p_below=max(pair.p_below for pair in pairs),
        is_tied=any(pair.is_tied for pair in pairs),
        collapsed=collapsed,
    )

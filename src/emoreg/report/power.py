"""The power of a study to find an effect of some size, from simulations of the test that the study uses."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from emoreg.errors import UserError
from emoreg.report.contrast_kinds import LABEL_TWINS
from emoreg.report.contrast_plan import BACKBONE
from emoreg.report.contrast_sizes import rows_of
from emoreg.report.looks import nominal_levels
from emoreg.report.read_runs import read_runs
from emoreg.report.run_frame import TWINS, Arm, Cell, Runs, variance_of_images
from emoreg.report.statistics import LEVEL, TIE, p_above, smallest_tail
from emoreg.study.arms import REGULATED
from emoreg.study.columns import RunStatus, each_once

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

STUDIES = 2000  # simulated for each number of seeds: the standard error of a power is 0.01
KINDS = ("stage", *Arm._fields, "target", "backbone")
WANTED = 0.8  # conventional power (Cohen 1988)
SAFE = 0.8  # confidence of the upper limit of the spread


@dataclass(frozen=True)
class Spread:
    """What the power of a study depends on, besides the effect. Standard deviations are in percentage points.

    Args:
        sd: standard deviation of differences between two arms, paired by seed.
        sd_safe: upper 80 % confidence limit of `sd`, as a pilot estimates it with error; `sd` if the user gave that.
        image_sd: standard deviation that the choice of test images adds to a mean difference; 0 if it is not known.
        arms: number of regulated arms in the family.
        label: the cell, such as "cifar10, resnet20"; empty if the user gave the spread.
        runs: number of runs of the pilot that it is estimated from; 0 if the user gave the spread.
        freedom: degrees of freedom of that estimate.
        collapsed: number of runs of the pilot that collapsed and are left out.
    """

    sd: float
    sd_safe: float
    image_sd: float = 0.0
    arms: int = 1
    label: str = ""
    runs: int = 0
    freedom: int = 0
    collapsed: int = 0


@dataclass(frozen=True)
class Power:
    """The probability of finding an effect with one number of seeds."""

    seeds: int
    looks: tuple[int, ...]  # the last is `seeds`
    gain: float
    label: float
    emotion: float


def spreads_of(table: pd.DataFrame) -> list[Spread]:
    """The spread of each target and backbone of a pilot.

    It is estimated from all runs of Backbone, the regulated arms and their twins, each once: the residuals of additive
    effects of arms and seeds (least squares, because arms may have different seeds), times √2 for a difference. All
    arms are assumed to vary alike. Collapsed runs count as missing: a contrast with one is not tested, so they do not
    affect any test.

    Args:
        table: results as for `contrasts.analyse`.

    Raises:
        UserError: no cell has two arms with two seeds in common, or other runs that leave a degree of freedom.
    """
    runs = read_runs(table)
    spreads = [spread for cell in runs.cells if (spread := spread_of(runs, cell)) is not None]
    if not spreads:
        raise UserError(
            "the pilot has no two arms (Backbone, regulated or twins) with two seeds in common that finished and did "
            "not collapse: train more seeds, or give --sd"
        )
    return spreads


def spread_of(runs: Runs, cell: Cell, among: Collection[int] | None = None) -> Spread | None:
    """The spread of a cell; None if its runs leave no degree of freedom; two arms with two seeds in common leave one.

    Args:
        runs: runs of this and other cells.
        cell: the cell.
        among: the seeds to use; None for all.
    """
    from scipy import stats

    used = _each_run_once(runs, cell, among)
    collapsed = sum(int(runs.is_collapsed[row]) for by_seed in used for row in by_seed.values())
    arms = [{seed: row for seed, row in by_seed.items() if not runs.is_collapsed[row]} for by_seed in used]
    places = [(arm, seed, row) for arm, by_seed in enumerate(arms) for seed, row in by_seed.items()]
    if not places:
        return None
    of_arm, of_seed, rows = np.array(places).T
    effects = np.hstack([np.equal.outer(number, np.unique(number)) for number in (of_arm, of_seed)]).astype(float)
    scores = runs.scores[rows]
    fitted, _, rank, _ = np.linalg.lstsq(effects, scores, rcond=None)
    freedom = len(rows) - int(rank)
    if not freedom:
        return None
    rest = scores - effects @ fitted
    sd = 100 * math.sqrt(2 * float((rest**2).sum()) / freedom)
    sd_safe = sd * math.sqrt(freedom / stats.chi2.ppf(1 - SAFE, freedom))
    image_sd = 100 * math.sqrt(_image_variance(runs, arms))
    planned = sum(arm.is_regulated for arm in runs.planned[cell])
    label = ", ".join(part for part in (cell.target, cell.backbone) if part)
    return Spread(sd, sd_safe, image_sd, max(1, planned), label, len(rows), freedom, collapsed)


def _each_run_once(runs: Runs, cell: Cell, among: Collection[int] | None) -> list[dict[int, int]]:
    """Rows by seed of Backbone, the regulated arms and their twins; a run that variants share is left to the first."""
    known: set[str] = set()
    arms = []
    for arm, by_seed in runs.cells[cell].items():
        if arm == BACKBONE or arm.mode in REGULATED:
            used = {seed: row for seed, row in by_seed.items() if among is None or seed in among}
            arms.append({seed: row for seed, row in used.items() if runs.ids[row] not in known})
            known |= {name for row in used.values() if (name := runs.ids[row]) is not None}
    return arms


def given_spread(sd: float, correlation: float = 0.0) -> Spread:
    """The spread of differences, from a given spread of runs.

    Args:
        sd: standard deviation of an arm's accuracy between seeds, in percentage points.
        correlation: correlation of two arms with the same seed, below 1; 0 for independent arms.
    """
    of_differences = sd * math.sqrt(2 * (1 - correlation))
    return Spread(of_differences, of_differences)


def simulate_power(
    spread: Spread, effect: float, seeds: Sequence[int], looks: Sequence[int] = (), studies: int = STUDIES
) -> list[tuple[Power, Power]]:
    """The power for each number of seeds: with the estimated spread, and with its upper limit.

    Simulated studies have Backbone and five twins, all worse than the regulated arm by `effect`, which is the hardest
    case, and normally distributed differences. They are tested as in `contrasts.analyse`: by the studentised bootstrap,
    against every twin, at the level of the first step of Holm's correction, or of each look.

    Args:
        spread: the spread of differences.
        effect: the true difference, in percentage points.
        seeds: numbers of seeds to try.
        looks: numbers of seeds at which the study looks before its end; those below each of `seeds` count.
        studies: number of studies to simulate.

    Raises:
        UserError: the spread is not finite, or zero.
    """
    if not math.isfinite(spread.sd + spread.sd_safe + spread.image_sd):
        raise UserError(f"the spread is {spread.sd} points, at most {spread.sd_safe}; give finite numbers")
    if (reason := without_spread(spread)) is not None:
        raise UserError(reason)
    return [
        _powers(spread, effect, number, (*sorted({look for look in looks if look < number}), number), studies)
        for number in seeds
    ]


def without_spread(spread: Spread) -> str | None:
    """Why the power of a cell cannot be computed because its seeds agree; None if they have a spread."""
    if spread.sd > 100 * TIE:
        return None
    where = f"{spread.label}: " if spread.label else ""
    return (
        f"{where}the arms differ alike in all seeds of the pilot, so there is no spread to plan with: "
        "run more of them, score more test images, or give --sd"
    )


def simulated_differences(share: float, others: int, seeds: int, studies: int) -> NDArray[np.float64]:
    """Simulate studies without an effect: an arm minus each other, (studies * others, seeds), with spread 1.

    Args:
        share: spread that test images add to a mean difference, in units of the spread between seeds.
        others: number of arms that the first is compared with.
        seeds: number of seeds of a study.
        studies: number of studies.
    """
    rng = np.random.default_rng(0)
    # In units of the spread of differences, in which an arm alone has 1 / √2.
    draws = rng.normal(0, math.sqrt(0.5), (studies, 1 + others, seeds))
    draws += rng.normal(0, share * math.sqrt(0.5), (studies, 1 + others, 1))
    return (draws[:, :1] - draws[:, 1:]).reshape(studies * others, seeds)


def _powers(spread: Spread, effect: float, seeds: int, looks: tuple[int, ...], studies: int) -> tuple[Power, Power]:
    others = 1 + len(TWINS)
    share = spread.image_sd / spread.sd
    differences = simulated_differences(share, others, seeds, studies)
    shifts = [min(effect / sd, 1e6) for sd in (spread.sd, spread.sd_safe)]
    passed = []  # at each look: (shifts, studies, others)
    for look, level in zip(looks, nominal_levels(looks, LEVEL / spread.arms), strict=True):
        if look < 2 or smallest_tail(look) > level:
            continue
        is_early = look < seeds
        p = p_above(differences[:, :look], share**2, shifts, is_early)
        if share:  # as in `contrast_sizes`: images must not make a p smaller
            p = np.maximum(p, p_above(differences[:, :look], 0.0, shifts, is_early))
        passed.append(p.reshape(len(shifts), studies, others) <= level + TIE)
    # Backbone and the twins are alike here, so any one, three or five of them can represent a contrast.
    at_looks = np.array(passed) if passed else np.zeros((1, len(shifts), studies, others), dtype=bool)
    by_kind = []
    for k in (1, len(LABEL_TWINS), len(TWINS)):
        found = [at_looks[..., chosen].all(axis=-1).any(axis=0) for chosen in combinations(range(others), k)]
        by_kind.append(np.mean(found, axis=(0, 2)))
    sure, safe = (Power(seeds, looks, *map(float, of_spread)) for of_spread in zip(*by_kind, strict=True))
    return sure, safe


def _image_variance(runs: Runs, arms: Sequence[Mapping[int, int]]) -> float:
    """The variance that test images add to a difference, mean over pairs of arms; 0 if it is not known."""
    known = []
    for one, other in combinations(arms, 2):
        seeds = [seed for seed in one if seed in other]
        variance, images = variance_of_images(runs, rows_of(one, seeds), rows_of(other, seeds))
        if images and len(seeds) > 1:
            known.append(variance)
    return float(np.mean(known)) if known else 0.0


def training_hours(table: pd.DataFrame, seeds: int) -> float:
    """Training time of a whole study, both stages, with this many seeds, one run at a time.

    It uses the mean time over the finished seeds of each kind of run and ignores kinds without any. A run that variants
    share counts once. NaN if no time is known.
    """
    done = each_once(table[table["status"] == RunStatus.FINISHED])
    kinds = done.groupby([name for name in KINDS if name in done], dropna=False)
    return float(kinds["seconds"].mean().sum(min_count=1)) * seeds / 3600

"""Every contrast of a study: what it is, how large, and whether it was found, in one frame.

A regulated arm is a mode of the method with an encoder that experienced `affect`; its twins are the same with another
experience. Contrasts, each paired by seed:

    accuracy         of an arm itself; of several labels mean_average_precision, of values ccc
    gain             an arm minus Backbone
    over_ensemble    a regulated arm minus the ensemble of two plain backbones
    twin             a regulated arm minus one twin
    label            a regulated arm minus the hardest of the twins fresh, moments and shuffled
    emotion          a regulated arm minus the hardest of these and neutral and rotation

Only contrasts of regulated arms are tested, and `accuracy` and `twin` never: they describe. What is said of
accuracy holds of the other outcomes, but that right or wrong for each image stands behind accuracy alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emoreg.report.looks import nominal_levels
from emoreg.report.own_results import runs_of
from emoreg.report.read_runs import ArrowFrame
from emoreg.report.run_frame import EXPLORATION, TWINS, Arm, Cell, Runs, variance_of_images
from emoreg.report.statistics import LEVEL, TIE, Estimates, estimate, holm, smallest_tail

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

LABEL_TWINS = TWINS[:3]  # what the labels must beat; all five are what emotion must beat
BACKBONE, ENSEMBLE = Arm("none", None, None, None), Arm("ensemble", None, None, None)
PRACTICAL = ("gain", "over_ensemble")  # read in both directions
TESTED = (*PRACTICAL, "label", "emotion")
COLUMNS = ["purpose", "target", "backbone", "mode", "experience", "variant", "stimuli", "contrast", "against"]
COLUMNS += ["n", "images", "point", "low", "high", "low_seeds", "high_seeds", "p", "p_corrected", "p_below"]
COLUMNS += ["p_below_corrected", "level", "family", "decided_at", "extra_seeds", "missing", "collapsed", "mixed"]
COLUMNS += ["verdict"]


class Verdict(StrEnum):
    """What a tested contrast came to: the values of the column `verdict`."""

    ABOVE = "above"
    NOT_ABOVE = "not_above"
    BELOW = "below"  # of practical contrasts alone
    MISSING_TWIN = "missing_twin"
    TOO_FEW = "too_few"  # with so few seeds no data could pass
    BETWEEN_LOOKS = "between_looks"  # the study planned no look at this number of seeds
    COLLAPSED = "collapsed"  # a run of it did: means say nothing
    EXPLORATION = "exploration"  # on validation images, to be confirmed with other seeds


def analyse(frame: pd.DataFrame | ArrowFrame) -> pd.DataFrame:
    """Compare the arms of a study: every contrast with its size, its interval, its p and its verdict.

    Tests are one-sided at 0.025, by a studentised bootstrap over seeds and test images (`statistics.estimate`), so that
    a contrast is `above` exactly where its 95 % interval is, before the correction for the number of arms. Against
    several twins p is the largest; the size is told against the hardest twin: the smallest mean (biased low), the
    smallest lower limit, and the smallest upper limit at 1 - 0.025 / k for k twins.

    The family of a test is the same contrast of all regulated arms (mode, variant, stimuli) of a target and backbone:
    Holm's correction, or, where looks are planned, a level of 0.025 / m for each of m arms, spent over the looks
    (`looks.nominal_levels`). Seeds count from 0; a look is complete when a contrast has all of its first seeds, and
    `above` at one look holds for good. What is no label effect is none of emotion. Intervals ignore the family.

    Args:
        frame: of pandas, polars, DuckDB or pyarrow: a row per run, with at least the columns `mode`, `experience`,
            `seed` and `accuracy`, or `arm`, `seed` and `accuracy`; docs/own-results.md has the others. A study's table
            of results fits as it is.

    Returns:
        A row per contrast. Outcomes and differences are shares: 0.01 is a point. Columns:

        purpose, target, backbone, mode, experience, variant, stimuli: the arm; null where it has none.
        contrast, against: see above; against is the (hardest) twin's experience, or Backbone's or the ensemble's mode.
        n: seeds of the estimate, those of the last complete look; images: test images that the interval covers, 0
            where right or wrong per image is missing or of other images, so that it is over seeds alone.
        point, low, high: mean difference with its limits over seeds and images; low_seeds, high_seeds: over seeds
            alone. NaN with one seed; limits at the ends of the range where so few seeds cannot tell them.
        p, p_below: one-sided, for above and, of practical contrasts, below; p_corrected, p_below_corrected: for the
            family, to be held against `level`. NaN where no verdict rests on them.
        level: one-sided level of the limits: 0.025, or the look's. family: arms in the family; 0 where nothing is
            tested.
        decided_at: seeds of the look that decided for above or below; extra_seeds: seeds beyond the plan, not used.
        missing: twins that are not there, comma-separated; collapsed: runs of the contrast that have collapsed.
        mixed: what differs between the runs of the contrast, of device, precision and edition, comma-separated.
        verdict: a `Verdict`; null where nothing is tested.

    Raises:
        UserError: a column is unknown or missing, a value is wrong, or a run is there twice.
    """
    return analyse_runs(runs_of(frame))


def analyse_runs(runs: Runs) -> pd.DataFrame:
    """As `analyse`, of runs that have been read, or of another figure in place of their outcome, within its bounds.

    A figure of which less is better is given with its sign changed, so that `above` is better.
    """
    import pandas as pd

    contrasts = [contrast for cell in runs.cells for contrast in _contrasts(runs, cell)]
    sizes = _sizes(runs, contrasts)
    families: dict[tuple[Cell, str], list[_Contrast]] = defaultdict(list)
    for contrast in contrasts:
        if contrast.is_tested:
            families[contrast.cell, contrast.name].append(contrast)
    decisions: dict[int, _Decision] = {}
    for (cell, _), members in families.items():
        arms = sum(arm.is_regulated for arm in runs.planned[cell])
        decided = _decide(members, [sizes[id(contrast)] for contrast in members], arms)
        decisions |= {id(contrast): decision for contrast, decision in zip(members, decided, strict=True)}
    labels = {(one.cell, one.arm): decisions[id(one)] for one in contrasts if one.is_tested and one.name == "label"}
    for one in contrasts:
        if one.is_tested and one.name == "emotion":
            decisions[id(one)] = _specific(decisions[id(one)], labels[one.cell, one.arm])
    rows = [_row(runs, one, sizes[id(one)], decisions.get(id(one), _NOTHING)) for one in contrasts]
    return pd.DataFrame(rows, columns=COLUMNS)


def key_of(row: Mapping[str, Any]) -> tuple[Cell, Arm]:
    """The cell and the arm of a row of a contrast frame, or of another frame about arms."""
    text = {name: row[name] if isinstance(row[name], str) else None for name in (*Cell._fields, *Arm._fields)}
    return Cell(*(text[name] for name in Cell._fields)), Arm(str(row["mode"]), *(text[n] for n in Arm._fields[1:]))


@dataclass(frozen=True)
class _Look:
    """One analysis of a contrast."""

    seeds: tuple[int, ...]
    level: float  # one-sided, of its limits
    number: int | None  # among the planned looks; None for what is shown before the first
    is_early: bool = False  # more looks are planned


@dataclass(frozen=True)
class _Contrast:
    """An arm minus others, all on the same seeds."""

    cell: Cell
    arm: Arm
    name: str
    others: tuple[Arm | None, ...]  # None: the arm's own outcome
    missing: tuple[str, ...]  # twins
    looks: tuple[_Look, ...]  # complete ones, or one before the first; the last is shown
    planned: tuple[int, ...]  # numbers of seeds at all looks, also those to come
    seeds: int  # that are there and planned
    extra: int  # seeds beyond the plan

    @property
    def is_tested(self) -> bool:
        return self.arm.is_regulated and self.name in TESTED


class _Size(NamedTuple):
    """How large a contrast is at one look, against the hardest of its others."""

    hardest: int
    images: int
    point: float
    low: float
    high: float
    low_seeds: float
    high_seeds: float
    p: float
    p_below: float
    collapsed: int


class _Decision(NamedTuple):
    """What a test came to."""

    verdict: Verdict | None = None
    p: float = math.nan
    p_corrected: float = math.nan
    p_below: float = math.nan
    p_below_corrected: float = math.nan
    family: int = 0
    decided_at: int | None = None


_NOTHING = _Decision()


def _contrasts(runs: Runs, cell: Cell) -> Iterable[_Contrast]:
    arms = runs.cells[cell]
    for arm in arms:
        yield _contrast(runs, cell, arm, runs.outcomes[cell].name, [None])
        if arm != BACKBONE and BACKBONE in arms:
            yield _contrast(runs, cell, arm, "gain", [BACKBONE])
        if not arm.is_regulated:
            continue
        if ENSEMBLE in arms:
            yield _contrast(runs, cell, arm, "over_ensemble", [ENSEMBLE])
        twins = {name: twin for name in TWINS if (twin := twin_of(arms, arm, name)) is not None}
        for twin in twins.values():
            yield _contrast(runs, cell, arm, "twin", [twin])
        for contrast, names in (("label", LABEL_TWINS), ("emotion", TWINS)):
            missing = tuple(name for name in names if name not in twins)
            yield _contrast(runs, cell, arm, contrast, [twins[name] for name in names if name in twins], missing)


def twin_of(arms: Iterable[Arm], arm: Arm, experience: str) -> Arm | None:
    """A fresh encoder saw no stimuli: one such twin serves all of them."""
    own, shared = arm._replace(experience=experience), arm._replace(experience=experience, stimuli=None)
    return own if own in arms else shared if shared in arms else None


def _contrast(
    runs: Runs, cell: Cell, arm: Arm, name: str, others: Sequence[Arm | None], missing: tuple[str, ...] = ()
) -> _Contrast:
    arms, plan = runs.cells[cell], runs.plans.get((cell, arm))
    common = [seed for seed in arms[arm] if all(other is None or seed in arms[other] for other in others)]
    if not others:
        common = []
    if plan is None or cell.purpose == EXPLORATION:
        look = _Look(tuple(common), LEVEL, 0)
        return _Contrast(cell, arm, name, tuple(others), missing, (look,), (len(common),), len(common), 0)
    seeds = [seed for seed in common if seed < plan.seeds]
    # An outcome alone is no test that could be repeated.
    at = plan.looks if others != [None] else plan.looks[-1:]
    levels = nominal_levels(at, LEVEL)
    looks = [
        _Look(tuple(seeds[:number]), levels[place], place, number < at[-1])
        for place, number in enumerate(at)
        if seeds[:number] == list(range(number))
    ]
    looks = looks or [_Look(tuple(seeds), levels[0], None, len(at) > 1)]
    return _Contrast(cell, arm, name, tuple(others), missing, tuple(looks), at, len(seeds), len(common) - len(seeds))


# Sizes


class _Pair(NamedTuple):
    """An arm and another, or itself alone, at one look."""

    one: tuple[int, ...]  # rows
    other: tuple[int, ...] | None
    level: float
    is_early: bool
    bounds: tuple[float, float]  # of the outcome


@dataclass
class _Pairs:
    """Pairs of arms of the same number of seeds, estimated together; each pair once."""

    places: dict[_Pair, int] = field(default_factory=dict)

    def place(self, pair: _Pair) -> int:
        return self.places.setdefault(pair, len(self.places))


def _sizes(runs: Runs, contrasts: Sequence[_Contrast]) -> dict[int, list[_Size]]:
    """The sizes at all looks of each contrast, by its identity."""
    pairs: dict[int, _Pairs] = defaultdict(_Pairs)
    wanted: dict[int, list[list[int]]] = {}
    for contrast in contrasts:
        arms = runs.cells[contrast.cell]
        outcome = runs.outcomes[contrast.cell]
        bounds = runs.bounds or (outcome.least, outcome.largest)
        wanted[id(contrast)] = []
        for look in contrast.looks:
            one = _rows(arms[contrast.arm], look.seeds)
            others = [None if other is None else _rows(arms[other], look.seeds) for other in contrast.others]
            wanted[id(contrast)].append(
                [pairs[len(one)].place(_Pair(one, other, look.level, look.is_early, bounds)) for other in others]
            )
    estimated = {seeds: _estimated(runs, list(of_n.places)) for seeds, of_n in pairs.items()}
    return {
        id(contrast): [
            _hardest([estimated[len(look.seeds)][place] for place in places], contrast.name) if places else _UNKNOWN
            for look, places in zip(contrast.looks, wanted[id(contrast)], strict=True)
        ]
        for contrast in contrasts
    }


def _rows(by_seed: Mapping[int, int], seeds: Sequence[int]) -> tuple[int, ...]:
    return tuple(by_seed[seed] for seed in seeds)


_UNKNOWN = _Size(-1, 0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0)
TWIN_COUNTS = (1, len(LABEL_TWINS), len(TWINS))  # an upper limit for each, at 1 - level / k


class _Estimated(NamedTuple):
    """The estimate of a pair: over seeds and images, and over seeds alone, with an upper limit per TWIN_COUNTS."""

    images: int
    mean: float
    low: float
    high: list[float]
    low_seeds: float
    high_seeds: list[float]
    p: float
    p_below: float
    collapsed: frozenset[int]  # rows


def _estimated(runs: Runs, pairs: Sequence[_Pair]) -> list[_Estimated]:
    ones = np.array([pair.one for pair in pairs], dtype=np.intp)
    others = np.array([pair.other or pair.one for pair in pairs], dtype=np.intp)
    is_alone, is_early = np.array([(pair.other is None, pair.is_early) for pair in pairs]).T
    values = runs.scores[ones] - np.where(is_alone[:, None], 0.0, runs.scores[others])
    lower = np.array([pair.level for pair in pairs])
    upper = lower[:, None] / np.array(TWIN_COUNTS)
    by_seed = estimate(values, 0.0, lower, upper, is_early)
    v, images = np.zeros(len(pairs)), np.zeros(len(pairs), dtype=np.int64)
    for place, pair in enumerate(pairs):
        v[place], images[place] = variance_of_images(runs, pair.one, pair.other)
    both = by_seed
    if (rest := np.flatnonzero(v)).size:
        both = _with(by_seed, rest, estimate(values[rest], v[rest], lower[rest], upper[rest], is_early[rest]))
    # Outcomes have their bounds, and where resamples set no limit these are all that is known.
    least, largest = np.array([pair.bounds for pair in pairs]).T
    floor = np.where(is_alone, least, least - largest)
    ceiling = np.where(is_alone, largest, largest - least)
    low_seeds, high_seeds = np.maximum(by_seed.low, floor), np.minimum(by_seed.high, ceiling[:, None])
    # Images never make an interval narrower, though the bootstrap of both might by a hair where they add little.
    low = np.minimum(np.maximum(both.low, floor), low_seeds)
    high = np.maximum(np.minimum(both.high, ceiling[:, None]), high_seeds)
    p, p_below = np.maximum(by_seed.p_above, both.p_above), np.maximum(by_seed.p_below, both.p_below)
    collapsed = [frozenset(row for row in (*pair.one, *(pair.other or ())) if runs.is_collapsed[row]) for pair in pairs]
    columns = (images, by_seed.mean, low, high, low_seeds, high_seeds, p, p_below)
    return [_Estimated(*of_pair) for of_pair in zip(*(column.tolist() for column in columns), collapsed, strict=True)]


def _with(estimates: Estimates, places: NDArray[np.intp], new: Estimates) -> Estimates:
    """Estimates with those of some pairs replaced."""
    fields = {name: getattr(estimates, name).copy() for name in ("mean", "p_above", "p_below", "low", "high")}
    for name, values in fields.items():
        values[places] = getattr(new, name)
    return Estimates(**fields)


def _hardest(pairs: Sequence[_Estimated], contrast: str) -> _Size:
    """The size against the hardest of several: each number is that of the other which makes it smallest."""
    limit = {"label": 1, "emotion": 2}.get(contrast, 0)
    collapsed = len(frozenset().union(*(pair.collapsed for pair in pairs)))
    # Where a run has no outcome there is no mean, and no hardest: it is told of the other that is without one.
    hardest = min(range(len(pairs)), key=lambda place: (not math.isnan(pairs[place].mean), pairs[place].mean))
    if math.isnan(pairs[hardest].mean):
        pairs = [pairs[hardest]]
    return _Size(
        hardest=hardest,
        images=min(pair.images for pair in pairs),
        point=min(pair.mean for pair in pairs),
        low=min(pair.low for pair in pairs),
        high=min(pair.high[limit] for pair in pairs),
        low_seeds=min(pair.low_seeds for pair in pairs),
        high_seeds=min(pair.high_seeds[limit] for pair in pairs),
        p=max(pair.p for pair in pairs),
        p_below=max(pair.p_below for pair in pairs),
        collapsed=collapsed,
    )


# Verdicts


def _decide(family: Sequence[_Contrast], sizes: Sequence[Sequence[_Size]], arms: int) -> list[_Decision]:
    """The verdicts of a family, the same contrast of all regulated arms of a cell.

    Args:
        family: the contrasts.
        sizes: their sizes at all looks.
        arms: regulated arms in the plan, also those of which no run is finished yet.
    """
    barred = [_without_test(contrast, of_looks[-1]) for contrast, of_looks in zip(family, sizes, strict=True)]
    number = arms - sum(verdict is Verdict.MISSING_TWIN for verdict in barred)
    if any(len(contrast.planned) > 1 for contrast in family):
        return [
            _Decision(verdict, family=number) if verdict else _spent(contrast, of_looks, arms)
            for contrast, of_looks, verdict in zip(family, sizes, barred, strict=True)
        ]
    last = [of_looks[-1] for of_looks in sizes]
    above = _holm([size.p for size in last], barred, arms)
    below = _holm([size.p_below for size in last], barred, arms)
    return [
        _Decision(verdict, family=number) if verdict else _corrected(contrast, size, p, p_below, number)
        for contrast, size, verdict, p, p_below in zip(family, last, barred, above, below, strict=True)
    ]


def _without_test(contrast: _Contrast, size: _Size) -> Verdict | None:
    """Why there can be no test, or None."""
    look = contrast.looks[-1]
    if contrast.cell.purpose == EXPLORATION:
        return Verdict.EXPLORATION
    if contrast.missing:
        return Verdict.MISSING_TWIN
    if size.collapsed:
        return Verdict.COLLAPSED
    if look.number is None:
        return Verdict.BETWEEN_LOOKS
    return Verdict.TOO_FEW if len(look.seeds) < 2 else None


def _holm(ps: Sequence[float], barred: Sequence[Verdict | None], arms: int) -> list[float]:
    """p-values corrected for the whole family: what cannot be tested yet counts as 1, what never can does not."""
    known = [1.0 if verdict else p for p, verdict in zip(ps, barred, strict=True)]
    known = [math.nan if verdict is Verdict.MISSING_TWIN else p for p, verdict in zip(known, barred, strict=True)]
    return holm([*known, *[1.0] * (arms - len(known))])[: len(known)]


def _corrected(contrast: _Contrast, size: _Size, p: float, p_below: float, family: int) -> _Decision:
    """The verdict of a contrast that is looked at once, with its p-values corrected by Holm's method."""
    seeds, is_practical = len(contrast.looks[-1].seeds), contrast.name in PRACTICAL
    verdict = Verdict.NOT_ABOVE
    if p <= LEVEL + TIE:
        verdict = Verdict.ABOVE
    elif is_practical and p_below <= LEVEL + TIE:
        verdict = Verdict.BELOW
    elif smallest_tail(seeds) * family > LEVEL + TIE:
        verdict = Verdict.TOO_FEW
    decided_at = seeds if verdict in (Verdict.ABOVE, Verdict.BELOW) else None
    below = (size.p_below, p_below) if is_practical else (math.nan, math.nan)
    return _Decision(verdict, size.p, p, *below, family, decided_at)


def _spent(contrast: _Contrast, sizes: Sequence[_Size], arms: int) -> _Decision:
    """The verdict of a contrast with planned looks: the first that passes at its own level decides."""
    is_practical = contrast.name in PRACTICAL
    levels = nominal_levels(contrast.planned, LEVEL / arms)
    verdict, decided_at = None, None
    for look, size, level in zip(contrast.looks, sizes, levels, strict=False):
        if size.p <= level + TIE:
            verdict = Verdict.ABOVE
        elif is_practical and size.p_below <= level + TIE:
            verdict = Verdict.BELOW
        if verdict:
            decided_at = len(look.seeds)
            break
    look, size = contrast.looks[-1], sizes[-1]
    level = levels[len(contrast.looks) - 1]
    if not verdict:
        verdict = Verdict.NOT_ABOVE
        if contrast.seeds > len(look.seeds):
            verdict = Verdict.BETWEEN_LOOKS
        elif smallest_tail(len(look.seeds)) > level + TIE:
            verdict = Verdict.TOO_FEW
    # Stretched so that they stand to the level of the interval as the p-values do to that of the family.
    p, p_below = (min(1.0, p * look.level / level) for p in (size.p, size.p_below))
    below = (size.p_below, p_below) if is_practical else (math.nan, math.nan)
    return _Decision(verdict, size.p, p, *below, arms, decided_at)


def _specific(emotion: _Decision, label: _Decision) -> _Decision:
    """An effect of emotion is one of the labels first, which a smaller family or other seeds could belie."""
    if emotion.verdict is not Verdict.ABOVE or label.verdict is Verdict.ABOVE:
        return emotion
    p = max(emotion.p_corrected, 1.0 if math.isnan(label.p_corrected) else label.p_corrected)
    return emotion._replace(verdict=label.verdict, p_corrected=p, decided_at=None)


def _row(runs: Runs, contrast: _Contrast, sizes: Sequence[_Size], decision: _Decision) -> dict[str, Any]:
    size, look = sizes[-1], contrast.looks[-1]
    arms = runs.cells[contrast.cell]
    hardest = contrast.others[size.hardest] if size.hardest >= 0 else None
    rows = [row for arm in (contrast.arm, *contrast.others) if arm for row in _rows(arms[arm], look.seeds)]
    mixed = [name for name, values in runs.facts.items() if len({values[row] for row in rows}) > 1]
    return {
        **contrast.cell._asdict(),
        **contrast.arm._asdict(),
        "contrast": contrast.name,
        "against": hardest and (hardest.experience or hardest.mode),
        "n": len(look.seeds),
        "images": size.images,
        **{name: getattr(size, name) for name in ("point", "low", "high", "low_seeds", "high_seeds")},
        **{name: getattr(decision, name) for name in ("p", "p_corrected", "p_below", "p_below_corrected")},
        "level": look.level,
        "family": decision.family,
        "decided_at": decision.decided_at,
        "extra_seeds": contrast.extra,
        "missing": ", ".join(contrast.missing) or None,
        "collapsed": size.collapsed,
        "mixed": ", ".join(mixed) or None,
        "verdict": decision.verdict and str(decision.verdict),
    }

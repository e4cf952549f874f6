"""From a table of runs to what is compared: intervals, gains, emotion effects, all paired by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.errors import UserError
from emoreg.report.machine_notes import facts_of
from emoreg.report.statistics import Comparison, Interval, above_all, compare, holm, interval
from emoreg.study.arms import ARMS, Arm
from emoreg.study.columns import CURVES

if TYPE_CHECKING:
    import pandas as pd

CELL = ("target", "backbone")
EXPERIENCE = ("experience", "pretext", "backbone")
TOO_FAR = 1e12  # for a chart: a loss that has run away, or is infinite, leaves a gap in its curve
WRONG_GATE_CURVES = "0.1.0"  # this version recorded, for one λ per image, the gate's λ at features of zero


@dataclass(frozen=True)
class Effect:
    """The emotion effect: a regulated arm against the controls of its cell.

    Two things are told apart. The *p* makes no choice of a control: to pass, the arm must be above every one, so p
    is the largest of those against each (intersection-union test, Berger 1982), and 1 where a difference is not
    positive. The *size* is the difference to one control, the best on validation images. Images that choose are
    not images that measure; what luck remains, as a run that trained well is good on both, favours the control.
    """

    control: str  # label of the control with the highest mean accuracy on validation images
    size: Comparison  # against that control; its p_holm is not used
    against: tuple[tuple[str, Comparison], ...]  # (label, difference) of every control
    p: float  # of "above every control"
    p_holm: float  # corrected over all effects of the study
    by_validation: bool = True  # False: without validation images the control with the best test accuracy was chosen


@dataclass(frozen=True)
class ArmResult:
    """What one arm did in one cell, one value a seed."""

    name: str  # as in ARMS, e.g. "learned"
    arm: Arm
    experience: str | None  # of its emotional encoder; None for an arm without stage 1
    accuracy: Interval  # on the test split, in [0, 1]
    validation: Interval | None  # accuracy on validation images; None without any
    gain: Comparison | None  # test accuracy minus Backbone's; None for Backbone, or if it was not run
    effect: Effect | None  # of regulated arms with a control beside them
    lam: tuple[float, ...]  # mean λ over test images, one value per seed; empty without an emotional branch
    # Test accuracy of each response by itself: non-emotional, emotional; None without an emotional branch.
    responses: tuple[Interval, Interval] | None
    ece: Interval  # expected calibration error on the test split
    reliability: tuple[tuple[float, float, int], ...]  # (mean confidence, accuracy, images) a bin, all seeds
    per_class: tuple[Interval, ...]  # test accuracy of each class
    per_class_gain: tuple[Interval, ...]  # minus Backbone's, paired by seed; empty for Backbone
    seconds: float  # mean training time of a run
    parameters: int
    flops: int  # forward, one image
    images_per_second: float  # mean over seeds, in training
    curves: pd.DataFrame  # seed, epoch, train_loss, val_accuracy, lambda, lambda_0, ...: a row a seed and epoch
    omits_lambda_curve: bool = False  # whether `curves` leave out a recorded λ that is not the mean over images

    @property
    def label(self) -> str:
        """As in reports, with the experience where there is one: "Learn-E-Reg (oasis)"."""
        return self.arm.label if self.experience is None else f"{self.arm.label} ({self.experience})"


@dataclass(frozen=True)
class Cell:
    """All arms on one target with one backbone. Backbone first, then the arms in the order of ARMS."""

    target: str
    backbone: str
    classes: tuple[str, ...]  # names
    arms: tuple[ArmResult, ...]

    @property
    def title(self) -> str:
        """For headings: "cifar10, resnet20"."""
        return f"{self.target}, {self.backbone}"


@dataclass(frozen=True)
class Experience:
    """What a stage-1 encoder learned, for the report: one row an experience, pretext and backbone."""

    label: str  # "oasis"
    pretext: str  # affect, shuffled, rotation
    backbone: str
    metrics: tuple[tuple[str, Interval], ...]  # on validation images: ("ccc", ...), ("accuracy", ...), ("loss", ...)
    seconds: float


@dataclass(frozen=True)
class Analysis:
    """All that a report says of a study."""

    name: str
    cells: tuple[Cell, ...]
    experiences: tuple[Experience, ...]
    seeds: tuple[int, ...]  # that at least one finished run of stage 2 has
    planned: int  # runs in the plan, both stages
    finished: int
    failures: tuple[tuple[str, str], ...]  # (run, error)
    facts: tuple[tuple[str, str], ...]  # what ran where: (name, value)

    @property
    def gains(self) -> int:
        """How many gains over Backbone the correction is over: those with two seeds or more."""
        return sum(arm.gain is not None and arm.gain.p_holm >= 0 for cell in self.cells for arm in cell.arms)

    @property
    def effects(self) -> int:
        """How many emotion effects the correction is over: those with two seeds or more."""
        return sum(arm.effect is not None and arm.effect.p_holm >= 0 for cell in self.cells for arm in cell.arms)


def analyse(name: str, table: pd.DataFrame) -> Analysis:
    """What the runs of a study say.

    Only seeds that both arms of a pair have are compared; a run that is not finished is as if it were not there.
    The correction has two families, each over all cells: the gains of the regulated arms, and their emotion
    effects. What a control gains has a p of its own, outside both.

    Args:
        name: of the study.
        table: a row a run, as `emoreg.study.results` makes it.

    Raises:
        UserError: the table holds a run twice.
    """
    done = table[table["status"] == "finished"]
    stage_1, stage_2 = done[done["stage"] == 1], done[done["stage"] == 2]
    keys = stage_2[["target", "backbone", "arm", "experience", "seed"]]
    if (twice := stage_2[keys.duplicated()]).size:
        raise UserError(f"the results hold the run {twice['run'].iloc[0]} twice: give each study's results once")
    failed = table[table["status"] == "failed"]
    return Analysis(
        name=name,
        cells=_corrected([_cell(target, backbone, runs) for (target, backbone), runs in _groups(stage_2, CELL)]),
        experiences=tuple(_experience(runs, *key) for key, runs in _groups(stage_1, EXPERIENCE)),
        seeds=tuple(sorted({int(seed) for seed in stage_2["seed"]})),
        planned=len(table),
        finished=len(done),
        failures=tuple((str(run), str(error)) for run, error in zip(failed["run"], failed["error"], strict=True)),
        facts=facts_of(done),
    )


def _groups(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Runs by their values of `keys`, None where there is none, in the order in which they come."""
    groups = table.groupby(list(keys), sort=False, dropna=False)
    return [(tuple(part if isinstance(part, str) else None for part in key), runs) for key, runs in groups]


def _cell(target: str, backbone: str, runs: pd.DataFrame) -> Cell:
    order = list(ARMS)
    arms = {key: of_arm.set_index("seed").sort_index() for key, of_arm in _groups(runs, ("arm", "experience"))}
    keys = sorted(arms, key=lambda key: order.index(key[0]))  # stable: experiences stay in their order
    plain = arms.get(("backbone", None))
    results = [_arm(name, experience, arms[name, experience], plain) for name, experience in keys]
    by_key = {(result.name, result.experience): (result, arms[result.name, result.experience]) for result in results}
    judged = [
        dataclasses.replace(result, effect=_effect(result, own, by_key.values())) for result, own in by_key.values()
    ]
    named = next(iter(_lists(runs, "classes").values()), ())
    return Cell(target, backbone, tuple(str(label) for label in named), tuple(judged))


def _arm(name: str, experience: str | None, runs: pd.DataFrame, plain: pd.DataFrame | None) -> ArmResult:
    other = None if name == "backbone" else plain
    validation = _values(runs, "validation_accuracy")
    return ArmResult(
        name=name,
        arm=ARMS[name],
        experience=experience,
        accuracy=interval(_values(runs, "test_accuracy")),
        validation=interval(validation) if validation else None,
        gain=_difference(runs, other),
        effect=None,
        lam=_lambdas(runs),
        responses=_responses(runs),
        ece=interval(_values(runs, "test_ece")),
        reliability=_reliability(runs),
        per_class=_per_class([np.asarray(row, dtype=float) for row in _lists(runs, "test_per_class").values()]),
        per_class_gain=() if other is None else _per_class(_class_gains(runs, other)),
        seconds=_mean(runs, "seconds"),
        parameters=next((int(count) for count in _values(runs, "parameters")), 0),
        flops=next((int(count) for count in _values(runs, "flops")), 0),
        images_per_second=_mean(runs, "images_per_second"),
        curves=_curves(runs),
        omits_lambda_curve=bool(_has_wrong_gate_curve(runs).any()),
    )


def _lambdas(runs: pd.DataFrame) -> tuple[float, ...]:
    """Mean λ over test images; where that was not measured, the module's own λ."""
    columns = runs.reindex(columns=["test_lambda", "lambda"]).astype(float)
    return tuple(columns["test_lambda"].fillna(columns["lambda"]).dropna())


def _has_wrong_gate_curve(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which runs have one λ per image and a λ curve that is not its mean over images."""
    columns = runs.reindex(columns=["recipe.regulation.granularity", "env.emoreg"])
    return (columns["recipe.regulation.granularity"] == "per_sample") & (columns["env.emoreg"] == WRONG_GATE_CURVES)


def _effect(result: ArmResult, runs: pd.DataFrame, all_arms: Iterable[tuple[ArmResult, pd.DataFrame]]) -> Effect | None:
    """Against the controls that have the arm's own experience, or none; None without any that shares a seed."""
    if not result.arm.is_regulated:
        return None
    controls = [
        (control, difference)
        for control, others in all_arms
        if control.arm.is_control and control.experience in (None, result.experience)
        if (difference := _difference(runs, others)) is not None
    ]
    if not controls:
        return None
    chosen, by_validation = best_control([control for control, _ in controls])
    differences = [difference for _, difference in controls]
    return Effect(
        control=controls[chosen][0].label,
        size=differences[chosen],
        against=tuple((control.label, difference) for control, difference in controls),
        p=float(above_all([d.difference.mean for d in differences], [d.p for d in differences])),
        p_holm=math.nan,
        by_validation=by_validation,
    )


def best_control(controls: Sequence[ArmResult]) -> tuple[int, bool]:
    """Which control is highest on validation images, and True; on test images, and False, if one has no others."""
    validation = [control.validation.mean for control in controls if control.validation is not None]
    by_validation = len(validation) == len(controls)
    accuracies = validation if by_validation else [control.accuracy.mean for control in controls]
    return int(np.argmax(accuracies)), by_validation


def _corrected(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """With every `p_holm` of the two families."""
    arms = [arm for cell in cells for arm in cell.arms]
    gains = iter(holm([arm.gain.p for arm in arms if arm.gain is not None and arm.arm.is_regulated]))
    effects = iter(holm([arm.effect.p for arm in arms if arm.effect is not None]))

    def corrected(arm: ArmResult) -> ArmResult:
        gain, effect = arm.gain, arm.effect
        if gain is not None and arm.arm.is_regulated:
            gain = dataclasses.replace(gain, p_holm=next(gains))
        if effect is not None:
            effect = dataclasses.replace(effect, p_holm=next(effects))
        return dataclasses.replace(arm, gain=gain, effect=effect)

    return tuple(dataclasses.replace(cell, arms=tuple(corrected(arm) for arm in cell.arms)) for cell in cells)


def _difference(one: pd.DataFrame, other: pd.DataFrame | None) -> Comparison | None:
    """Test accuracies of two arms (runs indexed by seed) on the seeds that both have; None without any."""
    if other is None or (seeds := one.index.intersection(other.index)).empty:
        return None
    return compare(*(arm["test_accuracy"].loc[seeds].astype(float).tolist() for arm in (one, other)))


def _responses(runs: pd.DataFrame) -> tuple[Interval, Interval] | None:
    """Of the seeds that have both."""
    columns = ["test_accuracy_non_emotional", "test_accuracy_emotional"]
    if not set(columns) <= set(runs.columns) or (both := runs.dropna(subset=columns)).empty:
        return None
    alone, emotional = (interval(_values(both, column)) for column in columns)
    return alone, emotional


def _values(runs: pd.DataFrame, column: str) -> tuple[float, ...]:
    """Those that are there."""
    return tuple(runs[column].dropna().astype(float)) if column in runs else ()


def _mean(runs: pd.DataFrame, column: str) -> float:
    return interval(_values(runs, column)).mean


def _lists(runs: pd.DataFrame, column: Any) -> dict[Any, Any]:
    """Those that are there, by index, of a column of lists (arrays, if the table was read from a file)."""
    if column not in runs:
        return {}
    return {key: row for key, row in runs[column].items() if isinstance(row, list | tuple | np.ndarray)}


def _per_class(rows: Sequence[np.ndarray]) -> tuple[Interval, ...]:
    """An interval a class from rows (K,), one a seed; a class without images (NaN) has no values."""
    if len({len(row) for row in rows}) > 1:
        raise UserError("runs of one arm tell the accuracy of different numbers of classes: a final.json was edited")
    columns = np.transpose(rows).tolist()
    return tuple(interval([value for value in of_class if not math.isnan(value)]) for of_class in columns)


def _class_gains(runs: pd.DataFrame, plain: pd.DataFrame) -> list[np.ndarray]:
    """Differences (K,) of the seeds that both have."""
    own, other = (_lists(arm, "test_per_class") for arm in (runs, plain))
    return [
        np.asarray(own[seed], dtype=float) - np.asarray(other[seed], dtype=float)
        for seed in own
        if seed in other and len(own[seed]) == len(other[seed])
    ]


def _reliability(runs: pd.DataFrame) -> tuple[tuple[float, float, int], ...]:
    """Confidence and accuracy of each bin, over all images of all seeds; NaN in a bin without images."""
    columns = ("test_reliability_confidence", "test_reliability_accuracy", "test_reliability_count")
    lists = [[*_lists(runs, column).values()] for column in columns]
    if len({len(row) for rows in lists for row in rows}) != 1 or len({len(rows) for rows in lists}) != 1:
        return ()  # of none, or of runs that were measured in different bins
    confidence, accuracy, count = (np.array(rows, dtype=float) for rows in lists)
    images = count.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        means = [(np.nan_to_num(value) * count).sum(axis=0) / images for value in (confidence, accuracy)]
    return tuple((float(c), float(a), int(n)) for c, a, n in zip(*means, images, strict=True))


def _curves(runs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    lists = {
        str(column).removeprefix(CURVES): _lists(runs, column) for column in runs if str(column).startswith(CURVES)
    }
    if "lambda" in lists:
        lists["lambda"] = _lists(runs[~_has_wrong_gate_curve(runs)], f"{CURVES}lambda")
    curves = [
        pd.DataFrame({column: of_seed[seed] for column, of_seed in lists.items() if seed in of_seed}).assign(seed=seed)
        for seed in lists.get("epoch", ())
    ]
    if not curves:
        return pd.DataFrame({"seed": [], "epoch": []})
    together = pd.concat(curves, ignore_index=True)
    return together.where(together.abs() < TOO_FAR)


def _experience(runs: pd.DataFrame, label: str, pretext: str, backbone: str) -> Experience:
    prefix = "validation_"
    measured = {column: _values(runs, column) for column in runs.columns if column.startswith(prefix)}
    metrics = tuple((column.removeprefix(prefix), interval(values)) for column, values in measured.items() if values)
    return Experience(label, pretext, backbone, metrics, _mean(runs, "seconds"))

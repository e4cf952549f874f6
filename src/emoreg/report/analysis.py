"""From a table of runs to what is compared: intervals, gains and emotion effects, all paired by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.errors import UserError
from emoreg.report.machine_notes import facts_of
from emoreg.report.old_arms import ARMS, Arm, with_arms
from emoreg.report.statistics import ALPHA, Comparison, Interval, above_all, compare, holm, interval
from emoreg.study.columns import CURVES, SETTINGS, RunStatus

if TYPE_CHECKING:
    import pandas as pd

DIVERGED = 1e12  # losses beyond this, or infinite, leave a gap in their curve


@dataclass(frozen=True)
class Effect:
    """The emotion effect: a regulated arm against the controls of its cell.

    Its *p* chooses no control: to pass, the arm must be above every one, so p is the largest of the p-values against
    each (intersection-union test, Berger 1982), and 1 where a difference is not positive. Its *size* is the
    difference to one control, the best on validation images. The images that choose are not the images that measure;
    the luck that remains, since a run that trained well is good on both, favours the control.
    """

    control: str  # label of the best control
    difference: Interval  # test accuracy minus that control's, in [-1, 1]
    against: tuple[tuple[str, Comparison], ...]  # (label, difference) of every control
    p: float  # for being above every control
    p_holm: float  # corrected over all effects of the study
    by_validation: bool = True  # False: without validation images the control with the best test accuracy was chosen

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p is at most 0.05."""
        return self.p_holm <= ALPHA


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm in one cell; intervals are over seeds."""

    name: str  # key of ARMS, e.g. "learned"
    arm: Arm
    experience: str | None  # of its emotional encoder; None for an arm without stage 1
    accuracy: Interval  # on the test split, in [0, 1]
    validation: Interval | None  # accuracy on validation images; None without any
    gain: Comparison | None  # test accuracy minus Backbone's; None for Backbone, or if it was not run
    effect: Effect | None  # for regulated arms with a control that shares a seed
    lam: tuple[float, ...]  # mean λ over test images, one value per seed; empty without an emotional branch
    # Test accuracy of each response alone: non-emotional, emotional; None without an emotional branch.
    responses: tuple[Interval, Interval] | None
    ece: Interval  # expected calibration error on the test split
    reliability: tuple[tuple[float, float, int], ...]  # (mean confidence, accuracy, images) of each bin, all seeds
    per_class_gain: tuple[Interval, ...]  # test accuracy of each class minus Backbone's, paired; empty for Backbone
    seconds: float  # mean training time of a run
    parameters: int
    flops: int  # forward, one image
    images_per_second: float  # mean over seeds, in training
    curves: pd.DataFrame  # seed, epoch, train_loss, val_accuracy, lambda, lambda_0, ...: a row per seed and epoch
    omits_lambda_curve: bool = False  # whether `curves` leave out a recorded λ that is not the mean over images

    @property
    def label(self) -> str:
        """For reports, with the experience if it has one: "Learn-E-Reg (oasis)"."""
        return self.arm.label if self.experience is None else f"{self.arm.label} ({self.experience})"

    @property
    def number(self) -> int:
        """Place in ARMS, which decides colour and marker."""
        return list(ARMS).index(self.name)

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy over the test images of all seeds; NaN if it was not measured."""
        bins = [entry for entry in self.reliability if entry[2]]
        if not bins:
            return math.nan
        excess = math.fsum((confidence - accuracy) * images for confidence, accuracy, images in bins)
        return excess / sum(images for _, _, images in bins)

    def control_name(self, label: str) -> str:
        """A control's label next to this arm: without the experience that both have."""
        return label if self.experience is None else label.removesuffix(f" ({self.experience})")


@dataclass(frozen=True)
class CellResult:
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
class ExperienceResult:
    """What the encoders of one experience, pretext and backbone learned in stage 1."""

    label: str  # "oasis"
    pretext: str  # affect, shuffled, rotation
    backbone: str
    metrics: tuple[tuple[str, Interval], ...]  # on validation images: ("ccc", ...), ("accuracy", ...), ("loss", ...)
    seconds: float


@dataclass(frozen=True)
class Analysis:
    """Everything a report shows of a study."""

    name: str
    cells: tuple[CellResult, ...]
    experiences: tuple[ExperienceResult, ...]
    seeds: tuple[int, ...]  # with at least one finished run of stage 2
    planned: int  # runs in the plan, both stages
    finished: int
    failures: tuple[tuple[str, str], ...]  # (run, error)
    facts: tuple[tuple[str, str], ...]  # settings and machines: (name, value)

    @property
    def arms(self) -> tuple[ArmResult, ...]:
        """The arms of all cells."""
        return tuple(arm for cell in self.cells for arm in cell.arms)

    @property
    def tested_gains(self) -> int:
        """Size of the family of gains over Backbone: those with two seeds or more."""
        return sum(arm.gain is not None and not math.isnan(arm.gain.p_holm) for arm in self.arms)

    @property
    def tested_effects(self) -> int:
        """Size of the family of emotion effects: those with two seeds or more."""
        return sum(arm.effect is not None and not math.isnan(arm.effect.p_holm) for arm in self.arms)


def analyse(name: str, table: pd.DataFrame) -> Analysis:
    """Compare the arms of a study.

    A pair of arms is compared on the seeds that both have; runs that are not finished are ignored. Holm's correction
    has two families, each over all cells: the gains of the regulated arms, and their emotion effects. The gain of a
    control has a p of its own, outside both.

    Args:
        name: of the study.
        table: one row per run, as `emoreg.study.results` makes it.

    Raises:
        UserError: the table holds a run twice.
    """
    table = with_arms(table)
    done = table[table["status"] == RunStatus.FINISHED]
    stage_1, stage_2 = done[done["stage"] == 1], done[done["stage"] == 2]
    repeated = stage_2[stage_2[["target", "backbone", "arm", "experience", "seed"]].duplicated()]
    if len(repeated):
        raise UserError(f"the results hold the run {repeated['run'].iloc[0]} twice: give each study's results once")
    failed = table[table["status"] == RunStatus.FAILED]
    cells = [
        _cell_result(target, backbone, runs) for (target, backbone), runs in _groups(stage_2, "target", "backbone")
    ]
    experiences = _groups(stage_1, "experience", "pretext", "backbone")
    return Analysis(
        name=name,
        cells=_corrected(cells),
        experiences=tuple(
            _experience_result(label, pretext, backbone, runs) for (label, pretext, backbone), runs in experiences
        ),
        seeds=tuple(sorted({int(seed) for seed in stage_2["seed"]})),
        planned=len(table),
        finished=len(done),
        failures=tuple((str(run), str(error)) for run, error in zip(failed["run"], failed["error"], strict=True)),
        facts=facts_of(done),
    )


def _groups(table: pd.DataFrame, *columns: str) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Runs by their values of `columns` (None where absent), in order of appearance."""
    groups = table.groupby(list(columns), sort=False, dropna=False)
    return [(tuple(part if isinstance(part, str) else None for part in key), runs) for key, runs in groups]


def _cell_result(target: str, backbone: str, runs: pd.DataFrame) -> CellResult:
    order = list(ARMS)
    groups = [(key, own.set_index("seed").sort_index()) for key, own in _groups(runs, "arm", "experience")]
    groups.sort(key=lambda group: order.index(group[0][0]))  # stable: experiences stay in their order
    plain = dict(groups).get(("backbone", None))
    arms = [(_arm_result(name, experience, own, plain), own) for (name, experience), own in groups]
    judged = tuple(dataclasses.replace(arm, effect=_effect(arm, own, arms)) for arm, own in arms)
    classes = next(iter(_lists_by_index(runs, "classes").values()), ())
    return CellResult(target, backbone, tuple(str(name) for name in classes), judged)


def _arm_result(name: str, experience: str | None, runs: pd.DataFrame, plain: pd.DataFrame | None) -> ArmResult:
    """All but the effect, which needs the other arms. `runs` and `plain` (Backbone's) are indexed by seed."""
    reference = None if name == "backbone" else plain
    validation = _interval(runs, "validation_accuracy")
    return ArmResult(
        name=name,
        arm=ARMS[name],
        experience=experience,
        accuracy=_interval(runs, "test_accuracy"),
        validation=validation if validation.n else None,
        gain=_paired(runs, reference),
        effect=None,
        lam=_lambdas(runs),
        responses=_responses(runs),
        ece=_interval(runs, "test_ece"),
        reliability=_reliability(runs),
        per_class_gain=() if reference is None else _per_class_gain(runs, reference),
        seconds=_interval(runs, "seconds").mean,
        parameters=next((int(value) for value in _values(runs, "parameters")), 0),
        flops=next((int(value) for value in _values(runs, "flops")), 0),
        images_per_second=_interval(runs, "images_per_second").mean,
        curves=_curves(runs),
        omits_lambda_curve=bool(_has_wrong_gate_curve(runs).any()),
    )


def _effect(result: ArmResult, runs: pd.DataFrame, arms: Iterable[tuple[ArmResult, pd.DataFrame]]) -> Effect | None:
    """Against the controls of the arm's own experience and those without one; None without any that shares a seed."""
    if not result.arm.is_regulated:
        return None
    pairs = [
        (control, difference)
        for control, control_runs in arms
        if control.arm.is_control and control.experience in (None, result.experience)
        if (difference := _paired(runs, control_runs)) is not None
    ]
    if not pairs:
        return None
    validation = [control.validation.mean for control, _ in pairs if control.validation is not None]
    by_validation = len(validation) == len(pairs)
    best = int(np.argmax(validation if by_validation else [control.accuracy.mean for control, _ in pairs]))
    return Effect(
        control=pairs[best][0].label,
        difference=pairs[best][1].difference,
        against=tuple((control.label, difference) for control, difference in pairs),
        p=float(above_all([d.difference.mean for _, d in pairs], [d.p for _, d in pairs])),
        p_holm=math.nan,
        by_validation=by_validation,
    )


def _corrected(cells: Sequence[CellResult]) -> tuple[CellResult, ...]:
    """The cells with every `p_holm` of the two families filled in; `holm` leaves NaN out of a family."""
    arms = [arm for cell in cells for arm in cell.arms]
    gains = holm([arm.gain.p if arm.gain and arm.arm.is_regulated else math.nan for arm in arms])
    effects = holm([arm.effect.p if arm.effect else math.nan for arm in arms])
    corrected = iter(
        dataclasses.replace(
            arm,
            gain=arm.gain and dataclasses.replace(arm.gain, p_holm=gain_p),
            effect=arm.effect and dataclasses.replace(arm.effect, p_holm=effect_p),
        )
        for arm, gain_p, effect_p in zip(arms, gains, effects, strict=True)
    )
    return tuple(dataclasses.replace(cell, arms=tuple(islice(corrected, len(cell.arms)))) for cell in cells)


def _paired(runs: pd.DataFrame, others: pd.DataFrame | None) -> Comparison | None:
    """Test accuracies of two arms (runs indexed by seed) on the seeds that both have; None without any."""
    if others is None or (seeds := runs.index.intersection(others.index)).empty:
        return None
    return compare(*(arm["test_accuracy"].loc[seeds].astype(float).tolist() for arm in (runs, others)))


def _responses(runs: pd.DataFrame) -> tuple[Interval, Interval] | None:
    """Test accuracy of each response on the seeds that have both."""
    columns = ["test_accuracy_non_emotional", "test_accuracy_emotional"]
    both = runs.reindex(columns=columns).dropna()
    if both.empty:
        return None
    non_emotional, emotional = (interval(_values(both, column)) for column in columns)
    return non_emotional, emotional


def _lambdas(runs: pd.DataFrame) -> tuple[float, ...]:
    """Mean λ over test images; where that was not measured, the module's own λ."""
    columns = runs.reindex(columns=["test_lambda", "lambda"]).astype(float)
    return tuple(columns["test_lambda"].fillna(columns["lambda"]).dropna())


def _has_wrong_gate_curve(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which runs have one λ per image and recorded the gate's λ at features of zero, as emoreg 0.1.0 did."""
    granularity = f"{SETTINGS}regulation.granularity"
    columns = runs.reindex(columns=[granularity, "lambda", "test_lambda"])
    return (columns[granularity] == "per_sample") & (columns["lambda"] != columns["test_lambda"])


def _values(runs: pd.DataFrame, column: str) -> tuple[float, ...]:
    """The values of a column, without absent ones."""
    return tuple(runs[column].dropna().astype(float)) if column in runs else ()


def _interval(runs: pd.DataFrame, column: str) -> Interval:
    return interval(_values(runs, column))


def _lists_by_index(runs: pd.DataFrame, column: str) -> dict[Any, Any]:
    """A column of lists (arrays, if the table was read from a file) by the index of their rows, without absent ones."""
    if column not in runs:
        return {}
    return {key: row for key, row in runs[column].items() if isinstance(row, list | tuple | np.ndarray)}


def _per_class_gain(runs: pd.DataFrame, plain: pd.DataFrame) -> tuple[Interval, ...]:
    """An interval per class over the seeds that both have; a class without images (NaN) has no values."""
    own, reference = (_lists_by_index(arm, "test_per_class") for arm in (runs, plain))
    if len({len(row) for row in own.values()}) > 1:
        raise UserError("runs of one arm have accuracies of different numbers of classes: a final.json was edited")
    gains = [
        np.asarray(own[seed], dtype=float) - np.asarray(reference[seed], dtype=float)
        for seed in own
        if seed in reference and len(own[seed]) == len(reference[seed])
    ]
    return tuple(interval(column[~np.isnan(column)].tolist()) for column in np.transpose(gains))


def _reliability(runs: pd.DataFrame) -> tuple[tuple[float, float, int], ...]:
    """Confidence and accuracy of each bin, over all images of all seeds; NaN in a bin without images."""
    columns = ("test_reliability_confidence", "test_reliability_accuracy", "test_reliability_count")
    lists = [[*_lists_by_index(runs, column).values()] for column in columns]
    if len({len(row) for rows in lists for row in rows}) != 1 or len({len(rows) for rows in lists}) != 1:
        return ()  # not measured, or in different bins
    confidence, accuracy, count = (np.array(rows, dtype=float) for rows in lists)
    images = count.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        means = [(np.nan_to_num(value) * count).sum(axis=0) / images for value in (confidence, accuracy)]
    return tuple((float(c), float(a), int(n)) for c, a, n in zip(*means, images, strict=True))


def _curves(runs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = [str(column) for column in runs if str(column).startswith(CURVES)]
    lists = {column.removeprefix(CURVES): _lists_by_index(runs, column) for column in columns}
    if "lambda" in lists:
        lists["lambda"] = _lists_by_index(runs[~_has_wrong_gate_curve(runs)], f"{CURVES}lambda")
    curves = [
        pd.DataFrame({name: values[seed] for name, values in lists.items() if seed in values}).assign(seed=seed)
        for seed in lists.get("epoch", ())
    ]
    if not curves:
        return pd.DataFrame({"seed": [], "epoch": []})
    table = pd.concat(curves, ignore_index=True)
    return table.where(table.abs() < DIVERGED)


def _experience_result(label: str, pretext: str, backbone: str, runs: pd.DataFrame) -> ExperienceResult:
    columns = [column for column in runs.columns if column.startswith("validation_")]
    metrics = ((column.removeprefix("validation_"), _interval(runs, column)) for column in columns)
    measured = tuple((name, values) for name, values in metrics if values.n)
    return ExperienceResult(label, pretext, backbone, measured, _interval(runs, "seconds").mean)

"""Turns a table of runs into the contents of a report, in the classes of `report.analysis`."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.config.outcomes import Outcome
from emoreg.config.target_words import part_of
from emoreg.errors import UserError
from emoreg.report.analysis import (
    REFERENCES,
    Analysis,
    ArmResult,
    CellResult,
    ContrastResult,
    StageOneResult,
    label_of,
)
from emoreg.report.collapse import Frequency, collapsed, starved
from emoreg.report.contrast_plan import BACKBONE
from emoreg.report.contrast_sizes import rows_of
from emoreg.report.contrasts import JudgedContrast, frame_of, judged_contrasts
from emoreg.report.doses import doses_of
from emoreg.report.formatting import all_of
from emoreg.report.looks import possible_looks
from emoreg.report.machine_notes import facts_of
from emoreg.report.measures import MEASURES
from emoreg.report.method_notes import MethodNotes, method_notes
from emoreg.report.read_runs import read_runs
from emoreg.report.run_frame import EXPLORATION, MODES, TWINS, Arm, Cell, Runs
from emoreg.report.shared_settings import targets_of
from emoreg.report.smallest_effect import SMALLEST, smallest_effects
from emoreg.report.statistics import Interval, interval
from emoreg.report.suites import suite_cells
from emoreg.report.verdicts import Verdict
from emoreg.study.columns import CURVES, NUMBER, SETTINGS, RunStatus, each_once, type_of

if TYPE_CHECKING:
    import pandas as pd

    Frame = pd.DataFrame
    Contrasts = Mapping[tuple[Cell, Arm], list["ContrastResult"]]

# The least and the largest possible value of a column, by a word in its name.
POSSIBLE = {
    **dict.fromkeys(("accuracy", "ece", "f1", "precision", "match"), (0.0, 1.0)),
    "ccc": (-1.0, 1.0),
    **dict.fromkeys(("loss", "mae", "rmse"), (0.0, math.inf)),
}
ENOUGH_FOR_ALL = 5  # seeds needed to believe a limit at the largest possible value
DIVERGED = 1e12  # losses of at least this leave a gap in their curve


def analyse(name: str, table: Frame, left_out: Sequence[str] = (), own_notes: MethodNotes | None = None) -> Analysis:
    """Analyse a study: everything that its report shows.

    Args:
        name: name of the study.
        table: one row per run, as `emoreg.study.results` makes it. Runs that have not ended only count as planned.
        left_out: what the study requests but cannot be done, a line each with the reason.
        own_notes: replaces the notes on a study's settings, for results of a user's own training loop.

    Raises:
        UserError: the table holds a run twice, or values that no study writes.
    """
    done = table[table["status"] == RunStatus.FINISHED]
    stage_1, stage_2 = (done[done["stage"] == stage] for stage in (1, 2))
    diverged = table[(table["status"] == RunStatus.DIVERGED) & (table["stage"] == 2)]
    failed = table[table["status"].isin((RunStatus.FAILED, RunStatus.DIVERGED))].drop(diverged.index)
    of_stage_2 = table[table["stage"] == 2]
    runs = read_runs(of_stage_2)
    contrasts = judged_contrasts(runs)
    smallest = smallest_effects(runs, contrasts)
    by_arm: dict[tuple[Cell, Arm], list[ContrastResult]] = defaultdict(list)
    for one, effect in zip(contrasts, smallest, strict=True):
        by_arm[one.contrast.cell, one.contrast.arm].append(_contrast_result(runs, one, effect))
    cells = _with_headings(list(_cells(of_stage_2, runs, by_arm)), of_stage_2)
    return Analysis(
        name=name,
        cells=cells,
        suites=suite_cells(of_stage_2, runs, cells),
        stage_1=tuple(_stage_one(key, runs) for key, runs in _groups(stage_1)),
        planned=len(each_once(table)),
        finished=len(each_once(done)),
        failures=_errors(each_once(failed)),
        diverged=_errors(each_once(diverged)),
        facts=(*facts_of(done), *_shared(stage_2)),
        notes=method_notes(stage_2) if own_notes is None else own_notes,
        is_own=own_notes is not None,
        left_out=tuple(left_out),
        contrasts=frame_of(contrasts).assign(**{SMALLEST: smallest}),
        doses=doses_of(table),
    )


def _shared(runs: Frame) -> tuple[tuple[str, str], ...]:
    """Facts on arms that are the same runs, because their recipes do not differ."""
    if "id" not in runs:
        return ()
    labels: dict[str, dict[str, None]] = defaultdict(dict)  # by run
    known = runs[runs["id"].notna()].reindex(columns=["id", *Arm._fields[:3]])
    for id_, mode, *others in known.itertuples(index=False):
        experience, variant = (part if isinstance(part, str) else None for part in others)
        labels[id_][label_of(Arm(mode, experience, variant, None), has_stimuli=False)] = None
    same = dict.fromkeys(all_of(list(each)) for each in labels.values() if len(each) > 1)
    return tuple(("The same runs", f"{each}: their recipes are the same") for each in same)


def _errors(runs: Frame) -> tuple[tuple[str, str], ...]:
    return tuple((str(run), str(error)) for run, error in zip(runs["run"], runs["error"], strict=True))


def _cells(table: Frame, runs: Runs, contrasts: Contrasts) -> Iterable[CellResult]:
    """The cells of a table of stage 2, in order of appearance."""
    has_stimuli = len({arm.stimuli for arms in runs.cells.values() for arm in arms} - {None}) > 1
    for cell, by_arm_and_seed in runs.cells.items():
        if not by_arm_and_seed:
            continue
        prefix = "validation_" if cell.purpose == EXPLORATION else "test_"
        by_arm = {arm: runs.of_plan(cell, arm) for arm in by_arm_and_seed}
        rows = {arm: table.iloc[list(by_seed.values())].set_index("seed") for arm, by_seed in by_arm.items()}
        arms = [
            _arm_result(
                arm,
                label_of(arm, has_stimuli),
                rows[arm],
                rows.get(BACKBONE),
                prefix,
                contrasts[cell, arm],
                runs.outcomes[cell],
                (collapsed(runs, by_arm[arm].values()), starved(runs, by_arm[arm].values())),
            )
            for arm in _in_order(by_arm)
        ]
        everything = table.iloc[[row for by_seed in by_arm_and_seed.values() for row in by_seed.values()]]
        classes = next(iter(_lists(everything, "classes").values()), ())
        yield CellResult(
            target=str(cell.target),
            backbone=str(cell.backbone),
            purpose=cell.purpose,
            classes=tuple(str(name) for name in classes),
            benchmark=_benchmark(everything, len(classes)),
            images=int(max(_values(everything, "images_train"), default=0)),
            has_stimuli=has_stimuli,
            arms=tuple(arms),
            part="; ".join(dict.fromkeys(part_of(target, whole) for target, _, whole in targets_of(everything))),
        )


def _with_headings(cells: Sequence[CellResult], table: Frame) -> tuple[CellResult, ...]:
    """Give cells the name of their set as heading if, with the part that is used, it still tells them apart.

    Labels hold the settings in which the targets of a study differ, such as "digits, noise_share 0.4".
    """
    headed = []
    for cell in cells:
        names = {settings.name for settings, _, _ in targets_of(table[table["target"] == cell.target])}
        name = next(iter(names), "")
        is_longer = len(names) == 1 and bool(cell.part) and cell.target.startswith(f"{name}, ")
        headed.append(replace(cell, heading=name) if is_longer else cell)
    titles = Counter(cell.title for cell in headed)
    return tuple(new if titles[new.title] == 1 else old for new, old in zip(headed, cells, strict=True))


def _in_order(arms: Iterable[Arm]) -> list[Arm]:
    """Arms by mode (references first), variant, experience and stimuli; variants and stimuli as they appear."""
    arms = list(arms)
    modes = [*REFERENCES, *(mode for mode in MODES if mode not in REFERENCES)]
    variants = list(dict.fromkeys([None, *(arm.variant for arm in arms)]))
    stimuli = list(dict.fromkeys([None, *(arm.stimuli for arm in arms)]))
    experiences: list[str | None] = [None, "affect", *TWINS]
    return sorted(
        arms,
        key=lambda arm: (
            modes.index(arm.mode),
            variants.index(arm.variant),
            experiences.index(arm.experience),
            stimuli.index(arm.stimuli),
        ),
    )


def _contrast_result(runs: Runs, one: JudgedContrast, smallest: float) -> ContrastResult:
    contrast, size, decision = one.contrast, one.size, one.decision
    arms, planned = runs.cells[contrast.cell], contrast.planned
    values = runs.scores[list(rows_of(arms[contrast.arm], one.seeds))]
    if size.hardest is not None:
        values = values - runs.scores[list(rows_of(arms[size.hardest], one.seeds))]
    outcome, is_alone = runs.outcomes[contrast.cell], contrast.others == (None,)
    possible = possible_looks(planned, decision.family) if decision.verdict is Verdict.TOO_FEW else ()
    return ContrastResult(
        name=contrast.name,
        against=size.against,
        size=_interval_of(size.point, size.low, size.high, values.tolist(), outcome, is_alone),
        over_seeds=_interval_of(size.point, size.low_seeds, size.high_seeds, values.tolist(), outcome, is_alone),
        level=contrast.looks[-1].level,
        images=size.images,
        p=decision.p_of_verdict,
        family=decision.family,
        missing=contrast.missing,
        smallest=smallest,
        collapsed=size.collapsed,
        extra_seeds=contrast.extra,
        mixed=one.mixed,
        next_look=planned[contrast.complete] if contrast.complete < len(planned) else None,
        decided_at=decision.decided_at,
        verdict=decision.verdict,
        possible_look=next((look for look in possible if look > len(one.seeds)), None),
        lacking=contrast.lacking,
    )


def _interval_of(
    mean: float, low: float, high: float, values: Sequence[float], outcome: Outcome, is_alone: bool
) -> Interval:
    """An interval without limits if these lie at the ends of the possible range: the seeds do not determine them."""
    least, largest = outcome.least, outcome.largest
    if is_alone:
        is_undetermined = low <= least or (high >= largest and len(values) < ENOUGH_FOR_ALL)
    else:
        is_undetermined = low <= least - largest or high >= largest - least
    if is_undetermined:
        low = high = math.nan
    return Interval(mean, low, high, tuple(values))


def _arm_result(
    arm: Arm,
    label: str,
    runs: Frame,
    plain: Frame | None,
    prefix: str,
    contrasts: Sequence[ContrastResult],
    outcome: Outcome,
    frequencies: tuple[Frequency, Frequency],
) -> ArmResult:
    """`runs` and `plain` (Backbone's) are indexed by seed; `prefix` is that of the scored split's columns."""
    reference = None if arm == BACKBONE else plain
    parameters = [int(value) for value in dict.fromkeys(_values(runs, "parameters"))]
    return ArmResult(
        arm=arm,
        outcome=outcome,
        label=label,
        contrasts={contrast.name: contrast for contrast in contrasts if contrast.name != "twin"},
        twins=tuple(contrast for contrast in contrasts if contrast.name == "twin"),
        lam=_lambdas(runs, prefix),
        responses=_responses(runs, prefix, outcome),
        collapsed=frequencies[0],
        starved=frequencies[1],
        ece=_interval(runs, f"{prefix}ece"),
        reliability=_reliability(runs, prefix),
        per_class_gain=() if reference is None else _per_class_gain(runs, reference, prefix),
        seconds=_interval(runs, "seconds").mean,
        parameters=next(iter(parameters), 0),
        unlike=tuple(parameters) if len(parameters) > 1 else (),
        flops=next((int(value) for value in _values(runs, "flops")), 0),
        images_per_second=_interval(runs, "images_per_second").mean,
        curves=_curves(runs, prefix),
        measures={name: measure for name in MEASURES if (measure := _interval(runs, f"{prefix}{name}")).n},
        omits_lambda_curve=bool(_has_wrong_gate_curve(runs, prefix).any()),
    )


def _groups(stage_1: Frame) -> list[tuple[tuple[str | None, ...], Frame]]:
    """Runs of stage 1 by stimuli, variant, experience and backbone, in order of appearance."""
    names = ["stimuli", "variant", "experience", "backbone"]
    groups = stage_1.reindex(columns=[*stage_1, *(name for name in names if name not in stage_1)])
    by = groups.groupby(names, sort=False, dropna=False)
    return [(tuple(part if isinstance(part, str) else None for part in key), runs) for key, runs in by]


def _benchmark(runs: Frame, classes: int) -> str | None:
    """The paper's target that these runs use with all of its classes, if any."""
    names = set(runs.get(f"{SETTINGS}target.name", ()))
    for name, number in (("cifar10", 10), ("cifar100", 100)):
        if names == {name} and classes == number:
            return name
    return None


def _responses(runs: Frame, prefix: str, outcome: Outcome) -> tuple[Interval, Interval] | None:
    """The outcome of each response alone, on the seeds that have both; None if there are none."""
    columns = [f"{prefix}{outcome.name}_non_emotional", f"{prefix}{outcome.name}_emotional"]
    both = runs.reindex(columns=columns).dropna()
    if both.empty:
        return None
    non_emotional, emotional = (_interval(both, column) for column in columns)
    return non_emotional, emotional


def _lambdas(runs: Frame, prefix: str) -> tuple[float, ...]:
    """Mean λ over the scored images of each seed; if it was not measured, the module's own λ."""
    columns = runs.reindex(columns=[f"{prefix}lambda", "lambda"]).astype(float)
    return tuple(columns[f"{prefix}lambda"].fillna(columns["lambda"]).dropna())


def _has_wrong_gate_curve(runs: Frame, prefix: str) -> pd.Series[bool]:
    """Whether each run has one λ per image but recorded the gate's λ at features of zero, as emoreg 0.1.0 did."""
    granularity, measured = f"{SETTINGS}regulation.granularity", f"{prefix}lambda"
    columns = runs.reindex(columns=[granularity, "lambda", measured])
    return (columns[granularity] == "per_sample") & (columns["lambda"] != columns[measured])


def _values(runs: Frame, column: str) -> tuple[float, ...]:
    """The values of a column that are not missing."""
    return tuple(runs[column].dropna().astype(float)) if column in runs else ()


def _interval(runs: Frame, column: str) -> Interval:
    """The interval of a column over seeds, within the column's possible values."""
    limits = next((limits for word, limits in POSSIBLE.items() if word in column), ())
    return interval(_values(runs, column), *limits)


def _lists(runs: Frame, column: str) -> dict[Any, Any]:
    """The lists in a column (arrays, if the table was read from a file) by row index, without missing ones."""
    if column not in runs:
        return {}
    return {key: row for key, row in runs[column].items() if isinstance(row, list | tuple | np.ndarray)}


def _per_class_gain(runs: Frame, plain: Frame, prefix: str) -> tuple[Interval, ...]:
    """The interval of each class over the seeds that both have; a class without images (NaN) has no values."""
    own, reference = (_lists(arm, f"{prefix}per_class") for arm in (runs, plain))
    if len({len(row) for row in own.values()}) > 1:
        raise UserError("runs of one arm have accuracies of different numbers of classes: a final.json was edited")
    gains = [
        np.asarray(own[seed], dtype=float) - np.asarray(reference[seed], dtype=float)
        for seed in own
        if seed in reference and len(own[seed]) == len(reference[seed])
    ]
    return tuple(interval(column[~np.isnan(column)].tolist(), -1, 1) for column in np.transpose(gains))


def _reliability(runs: Frame, prefix: str) -> tuple[tuple[float, float, int], ...]:
    """Confidence, accuracy and number of images of each bin, over all seeds; NaN in a bin without images."""
    columns = (f"{prefix}reliability_{part}" for part in ("confidence", "accuracy", "count"))
    lists = [[*_lists(runs, column).values()] for column in columns]
    if len({len(row) for rows in lists for row in rows}) != 1 or len({len(rows) for rows in lists}) != 1:
        return ()  # not measured, or in different bins
    confidence, accuracy, count = (np.array(rows, dtype=float) for rows in lists)
    images = count.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        means = [(np.nan_to_num(value) * count).sum(axis=0) / images for value in (confidence, accuracy)]
    return tuple((float(c), float(a), int(n)) for c, a, n in zip(*means, images, strict=True))


def _curves(runs: Frame, prefix: str) -> Frame:
    import pandas as pd

    columns = [str(column) for column in runs if str(column).startswith(CURVES)]
    lists = {column.removeprefix(CURVES): _lists(runs, column) for column in columns}
    if "lambda" in lists:
        lists["lambda"] = _lists(runs[~_has_wrong_gate_curve(runs, prefix)], f"{CURVES}lambda")
    curves = [
        pd.DataFrame({name: values[seed] for name, values in lists.items() if seed in values}).assign(seed=seed)
        for seed in lists.get("epoch", ())
    ]
    if not curves:
        return pd.DataFrame({"seed": [], "epoch": []})
    table = pd.concat(curves, ignore_index=True)
    return table.where(table.abs() < DIVERGED)


def _stage_one(key: tuple[str | None, ...], runs: Frame) -> StageOneResult:
    columns = [name for name in runs.columns if name.startswith("validation_") and type_of(name) == NUMBER]
    facts = {
        name: _values(runs, name) for name in runs.columns if re.fullmatch(r"validation_(.+_)?(images|chance)", name)
    }
    columns = [name for name in columns if name not in facts]
    metrics = ((column.removeprefix("validation_"), _interval(runs, column)) for column in columns)
    measured = tuple((name, values) for name, values in metrics if values.n)
    stimuli, variant, experience, backbone = key
    label = str(stimuli) if variant is None else f"{stimuli}, {variant}"
    return StageOneResult(
        label,
        str(experience),
        str(backbone),
        measured,
        _interval(runs, "seconds").mean,
        tuple((name.removeprefix("validation_"), max(values)) for name, values in facts.items() if values),
    )

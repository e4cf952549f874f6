"""From a table of runs to all that a report shows of it, in the shapes of `report.analysis`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.config.outcomes import Outcome
from emoreg.config.target_words import part_of
from emoreg.errors import UserError
from emoreg.report import contrasts
from emoreg.report.analysis import (
    REFERENCES,
    Analysis,
    ArmResult,
    CellResult,
    Contrast,
    Frequency,
    StageOneResult,
    label_of,
)
from emoreg.report.collapse import frequencies
from emoreg.report.contrast_plan import BACKBONE, ENSEMBLE, LABEL_TWINS, OF_ITS_ENCODER, of_its_encoder, twin_of
from emoreg.report.contrasts import key_of
from emoreg.report.doses import doses_of
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
from emoreg.study.columns import CURVES, NUMBER, SETTINGS, RunStatus, type_of

if TYPE_CHECKING:
    import pandas as pd

    Frame = pd.DataFrame
    Contrasts = Mapping[tuple[Cell, Arm], list["Contrast"]]

# The least and the largest value of columns by a word in their names.
POSSIBLE = {
    **dict.fromkeys(("accuracy", "ece", "f1", "precision", "match"), (0.0, 1.0)),
    "ccc": (-1.0, 1.0),
    **dict.fromkeys(("loss", "mae", "rmse"), (0.0, math.inf)),
}
ENOUGH_FOR_ALL = 5  # seeds from which a limit at the largest possible value is believed
DIVERGED = 1e12  # losses beyond this, or infinite, leave a gap in their curve


def analyse(name: str, table: Frame, left_out: Sequence[str] = (), own_notes: MethodNotes | None = None) -> Analysis:
    """Everything that a report shows of a study.

    Args:
        name: of the study.
        table: one row per run, as `emoreg.study.results` makes it. Runs that have not ended count as planned alone.
        left_out: what the study asks for and cannot be done, with the reason, a line for each.
        own_notes: for results of an own loop, in place of notes on a study's settings.

    Raises:
        UserError: the table holds a run twice, or what no study writes.
    """
    done = table[table["status"] == RunStatus.FINISHED]
    stage_1, stage_2 = (done[done["stage"] == stage] for stage in (1, 2))
    diverged = table[(table["status"] == RunStatus.DIVERGED) & (table["stage"] == 2)]
    failed = table[table["status"].isin((RunStatus.FAILED, RunStatus.DIVERGED))].drop(diverged.index)
    frame = contrasts.analyse(table)
    frame[SMALLEST] = smallest_effects(table, frame)
    of_stage_2 = table[table["stage"] == 2]
    cells = _with_headings(list(_cells(of_stage_2, frame)), of_stage_2)
    return Analysis(
        name=name,
        cells=cells,
        suites=suite_cells(of_stage_2, cells),
        stage_1=tuple(_stage_one(key, runs) for key, runs in _groups(stage_1)),
        seeds=tuple(sorted({int(seed) for seed in stage_2["seed"]})),
        planned=len(table),
        finished=len(done),
        failures=_errors(failed),
        diverged=_errors(diverged),
        facts=facts_of(done),
        notes=method_notes(stage_2) if own_notes is None else own_notes,
        is_own=own_notes is not None,
        left_out=tuple(left_out),
        contrasts=frame,
        doses=doses_of(table),
    )


def _errors(runs: Frame) -> tuple[tuple[str, str], ...]:
    return tuple((str(run), str(error)) for run, error in zip(runs["run"], runs["error"], strict=True))


def _cells(table: Frame, frame: Frame) -> Iterable[CellResult]:
    """The cells of a table of stage 2, in order of appearance."""
    runs = read_runs(table)
    judged = _contrasts(runs, frame)
    counted = {key_of(row): row for row in _records(frequencies(table))}
    has_stimuli = len({arm.stimuli for of_cell in runs.cells.values() for arm in of_cell} - {None}) > 1
    for cell, by_arm in runs.cells.items():
        prefix = "validation_" if cell.purpose == EXPLORATION else "test_"
        rows = {arm: table.iloc[list(by_seed.values())].set_index("seed") for arm, by_seed in by_arm.items()}
        arms = [
            _arm_result(
                arm,
                label_of(arm, has_stimuli),
                rows[arm],
                rows.get(BACKBONE),
                prefix,
                judged[cell, arm],
                counted[cell, arm],
                runs.outcomes[cell],
            )
            for arm in _in_order(by_arm)
        ]
        if arms:
            everything = table.iloc[[row for by_seed in by_arm.values() for row in by_seed.values()]]
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
                part="; ".join(dict.fromkeys(part_of(*target) for target in targets_of(everything))),
            )


def _with_headings(cells: Sequence[CellResult], table: Frame) -> tuple[CellResult, ...]:
    """The cells, called by the name of their set where its part tells them apart as well as their label does.

    A label has the settings in which the targets of a study differ: "digits, noise_share 0.4".
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
    """References first, then by mode and experience; variants and stimuli in order of appearance, none first."""
    arms = list(arms)
    modes = [*REFERENCES, *(mode for mode in MODES if mode not in REFERENCES)]
    variants, stimuli = (list(dict.fromkeys([None, *(arm[field] for arm in arms)])) for field in (2, 3))
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


def _records(frame: Frame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _contrasts(runs: Runs, frame: Frame) -> Contrasts:
    found: dict[tuple[Cell, Arm], list[Contrast]] = {}
    for row in _records(frame):
        found.setdefault(key_of(row), []).append(_contrast(runs, row))
    return found


def _contrast(runs: Runs, row: Mapping[str, Any]) -> Contrast:
    cell, arm = key_of(row)
    arms, plan = runs.cells[cell], runs.plans.get((cell, arm))
    text = {
        name: row[name] if isinstance(row[name], str) else None for name in ("against", "missing", "mixed", "verdict")
    }
    others = _others(arms, arm, str(row["contrast"]), text["against"])
    common = sorted(seed for seed in arms[arm] if all(seed in arms[other] for other in others.values()))
    plan = None if cell.purpose == EXPLORATION else plan
    planned = common if plan is None else plan.numbers
    common = [seed for seed in common if seed in planned]
    used = common[: int(row["n"])]
    hardest = arms[others[text["against"]]] if text["against"] else None
    values = [float(runs.scores[arms[arm][seed]] - (runs.scores[hardest[seed]] if hardest else 0)) for seed in used]
    is_below = text["verdict"] == Verdict.BELOW
    looks = () if plan is None else plan.looks
    return Contrast(
        name=str(row["contrast"]),
        against=text["against"],
        size=_interval_of(row, "", values, runs.outcomes[cell]),
        over_seeds=_interval_of(row, "_seeds", values, runs.outcomes[cell]),
        level=float(row["level"]),
        images=int(row["images"]),
        p=float(row["p_below_corrected" if is_below else "p_corrected"]),
        family=int(row["family"]),
        missing=tuple((text["missing"] or "").split(", ")) if text["missing"] else (),
        smallest=float(row[SMALLEST]),
        collapsed=int(row["collapsed"]),
        extra_seeds=int(row["extra_seeds"]),
        mixed=tuple(text["mixed"].split(", ")) if text["mixed"] else (),
        next_look=next((look for look in looks if common[:look] != list(planned[:look])), None),
        decided_at=None if math.isnan(row["decided_at"] or math.nan) else int(row["decided_at"]),
        verdict=Verdict(text["verdict"]) if text["verdict"] else None,
    )


def _interval_of(row: Mapping[str, Any], suffix: str, values: Sequence[float], outcome: Outcome) -> Interval:
    """Limits at the ends of the range are none: so few seeds cannot tell them."""
    low, high = float(row[f"low{suffix}"]), float(row[f"high{suffix}"])
    least, largest = outcome.least, outcome.largest
    if row["contrast"] == outcome.name:
        is_none = low <= least or (high >= largest and len(values) < ENOUGH_FOR_ALL)
    else:
        is_none = low <= least - largest or high >= largest - least
    if is_none:
        low = high = math.nan
    return Interval(float(row["point"]), low, high, tuple(values))


def _others(arms: Iterable[Arm], arm: Arm, contrast: str, against: str | None) -> dict[str | None, Arm]:
    """What an arm is compared with, by the name that the column `against` gives it."""
    names: Sequence[str]
    match contrast:
        case "gain":
            return {BACKBONE.mode: BACKBONE}
        case "over_ensemble":
            return {ENSEMBLE.mode: ENSEMBLE}
        case "over_transfer" | "regulation":
            mode = OF_ITS_ENCODER[contrast]
            return {mode: found} if (found := of_its_encoder(arms, arm, mode)) is not None else {}
        case "label":
            names = LABEL_TWINS
        case "emotion":
            names = TWINS
        case "twin":
            names = (str(against),)
        case _:
            names = ()
    return {name: twin for name in names if (twin := twin_of(arms, arm, name)) is not None}


def _arm_result(
    arm: Arm,
    label: str,
    runs: Frame,
    plain: Frame | None,
    prefix: str,
    judged: Sequence[Contrast],
    counted: Mapping[str, Any],
    outcome: Outcome,
) -> ArmResult:
    """`runs` and `plain` (Backbone's) are indexed by seed; `prefix` is that of the split that is scored."""
    reference = None if arm == BACKBONE else plain
    validation = _interval(runs, f"validation_{outcome.name}")
    return ArmResult(
        arm=arm,
        outcome=outcome,
        label=label,
        contrasts={contrast.name: contrast for contrast in judged if contrast.name != "twin"},
        twins=tuple(contrast for contrast in judged if contrast.name == "twin"),
        validation=validation if validation.n else None,
        lam=_lambdas(runs, prefix),
        responses=_responses(runs, prefix, outcome),
        collapsed=_frequency(counted, "collapsed", "runs"),
        starved=_frequency(counted, "starved", "measured"),
        ece=_interval(runs, f"{prefix}ece"),
        reliability=_reliability(runs, prefix),
        per_class_gain=() if reference is None else _per_class_gain(runs, reference, prefix),
        seconds=_interval(runs, "seconds").mean,
        parameters=next((int(value) for value in _values(runs, "parameters")), 0),
        flops=next((int(value) for value in _values(runs, "flops")), 0),
        images_per_second=_interval(runs, "images_per_second").mean,
        curves=_curves(runs, prefix),
        measures={name: found for name in MEASURES if (found := _interval(runs, f"{prefix}{name}")).n},
        omits_lambda_curve=bool(_has_wrong_gate_curve(runs, prefix).any()),
    )


def _frequency(counted: Mapping[str, Any], name: str, of: str) -> Frequency:
    limits = (float(counted[f"{name}_{end}"]) for end in ("low", "high"))
    return Frequency(int(counted[name]), int(counted[of]), *limits)


def _groups(stage_1: Frame) -> list[tuple[tuple[str | None, ...], Frame]]:
    """Runs of stage 1 by stimuli, variant, experience and backbone, in order of appearance."""
    names = ["stimuli", "variant", "experience", "backbone"]
    groups = stage_1.reindex(columns=[*stage_1, *(name for name in names if name not in stage_1)])
    by = groups.groupby(names, sort=False, dropna=False)
    return [(tuple(part if isinstance(part, str) else None for part in key), runs) for key, runs in by]


def _benchmark(runs: Frame, classes: int) -> str | None:
    """The paper's target that these runs have, if they have all of its classes."""
    names = set(runs.get(f"{SETTINGS}target.name", ()))
    return next(
        (name for name, number in (("cifar10", 10), ("cifar100", 100)) if names == {name} and classes == number), None
    )


def _responses(runs: Frame, prefix: str, outcome: Outcome) -> tuple[Interval, Interval] | None:
    """The outcome of each response alone on the seeds that have both."""
    columns = [f"{prefix}{outcome.name}_non_emotional", f"{prefix}{outcome.name}_emotional"]
    both = runs.reindex(columns=columns).dropna()
    if both.empty:
        return None
    non_emotional, emotional = (_interval(both, column) for column in columns)
    return non_emotional, emotional


def _lambdas(runs: Frame, prefix: str) -> tuple[float, ...]:
    """Mean λ over the scored images; where that was not measured, the module's own λ."""
    columns = runs.reindex(columns=[f"{prefix}lambda", "lambda"]).astype(float)
    return tuple(columns[f"{prefix}lambda"].fillna(columns["lambda"]).dropna())


def _has_wrong_gate_curve(runs: Frame, prefix: str) -> pd.Series[bool]:
    """Which runs have one λ per image and recorded the gate's λ at features of zero, as emoreg 0.1.0 did."""
    granularity, measured = f"{SETTINGS}regulation.granularity", f"{prefix}lambda"
    columns = runs.reindex(columns=[granularity, "lambda", measured])
    return (columns[granularity] == "per_sample") & (columns["lambda"] != columns[measured])


def _values(runs: Frame, column: str) -> tuple[float, ...]:
    """The values of a column, without absent ones."""
    return tuple(runs[column].dropna().astype(float)) if column in runs else ()


def _interval(runs: Frame, column: str) -> Interval:
    """Over seeds, within what is possible for such a column."""
    return interval(_values(runs, column), *next((limits for word, limits in POSSIBLE.items() if word in column), ()))


def _lists(runs: Frame, column: str) -> dict[Any, Any]:
    """A column of lists (arrays, if the table was read from a file) by the index of their rows, without absent ones."""
    if column not in runs:
        return {}
    return {key: row for key, row in runs[column].items() if isinstance(row, list | tuple | np.ndarray)}


def _per_class_gain(runs: Frame, plain: Frame, prefix: str) -> tuple[Interval, ...]:
    """An interval per class over the seeds that both have; a class without images (NaN) has no values."""
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
    """Confidence and accuracy of each bin, over all images of all seeds; NaN in a bin without images."""
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

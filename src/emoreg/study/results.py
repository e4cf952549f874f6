"""Build the table of a study's results from the folders of its runs, one row per run. `columns` has its schema."""

from __future__ import annotations

import base64
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.errors import UserError, shortened
from emoreg.runs.catalogue import is_missing
from emoreg.runs.published import published
from emoreg.runs.run import FINAL, METRICS, Run
from emoreg.runtime.places import portable, without_folders, without_places
from emoreg.study.columns import (
    CURVES,
    MACHINE,
    MACHINES,
    RECIPES,
    SETTINGS,
    RunStatus,
    in_order,
    stored,
)
from emoreg.study.conform import fits, with_nan
from emoreg.study.definition import Study
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import RunOutcome
from emoreg.study.suite_columns import suite_columns
from emoreg.suites.options import Suite

if TYPE_CHECKING:
    import pandas as pd

FACTORS = ("id", "mode", "experience", "variant", "stimuli", "target", "backbone", "seed")  # from `PlannedRun`


def results_of(
    study: Study,
    planned: Sequence[PlannedRun],
    failures: Mapping[str, RunOutcome],
    elsewhere: pd.DataFrame | None = None,
    out: Path | str = ".",
) -> pd.DataFrame:
    """Build the table of a study's runs, in the order of the plan, with all columns of `columns.FIXED`.

    The table may be published: its paths are relative to the study's folder, or reduced to their last part.

    Args:
        study: its purpose and looks are in every row.
        planned: from `plan_runs`.
        failures: by run id, for the runs that failed or were blocked.
        elsewhere: rows of runs that finished or diverged on other machines; used for runs that are not finished here.
        out: the study's folder.

    Raises:
        UserError: the metrics.csv of a finished run is damaged.
    """
    import pandas as pd

    plan = plan_columns(study)
    of_others: dict[str, dict[str, Any]] = {}
    for row in [] if elsewhere is None else elsewhere.to_dict("records"):
        of_others.setdefault(row["id"], {str(key): value for key, value in row.items() if not is_missing(value)})
    rows = [
        _handed_on(run, of_others[run.id]) | plan
        if run.id in of_others and not run.run.is_finished
        else _row(run, failures.get(run.id), Path(out), study.suites) | plan
        for run in planned
    ]
    return pd.DataFrame(rows, columns=in_order(name for row in rows for name in row))


def plan_columns(study: Study) -> dict[str, Any]:
    """The columns on the plan, which are the same in every row; none for a study of the first edition."""
    if study.purpose is None:
        return {}
    looks = list(study.looks or (study.seeds,))
    return {"purpose": study.purpose, "planned_seeds": study.seeds, "first_seed": study.first_seed, "looks": looks}


def run_columns(planned: PlannedRun, out: Path) -> dict[str, Any]:
    """The columns that are known before a run is done: its identity and settings."""
    recipe = planned.recipe
    settings = {f"{SETTINGS}{key}": value for key, value in published(dataclasses.asdict(recipe), out).items()}
    row = {
        "stage": 1 if isinstance(recipe, PretrainRecipe) else 2,
        "run": planned.name,
        "folder": portable(planned.folder, out),
        "edition": recipe.edition,
        **{key: getattr(planned, key) for key in FACTORS},
        **{key: value for key, value in settings.items() if key in RECIPES},
    }
    return {key: stored(value) for key, value in row.items()}


def _handed_on(planned: PlannedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a run from another machine, with this study's names for it and without a folder."""
    as_here = {"run": planned.name, "folder": None, **{key: getattr(planned, key) for key in FACTORS}}
    return {**row, **as_here}


def _row(planned: PlannedRun, failure: RunOutcome | None, out: Path, suites: Sequence[Suite]) -> dict[str, Any]:
    run, recipe = planned.run, planned.recipe
    status, error, measured = RunStatus.WAITING, None, {}
    if run.is_finished:
        try:
            status, measured = RunStatus.FINISHED, _measured(run, recipe)
        except UserError as damage:  # one damaged run does not spoil the table
            status, error = RunStatus.FAILED, str(damage)
    elif failure is not None:
        status, error = failure.status, failure.error
    row: dict[str, Any] = {"status": str(status), "error": error and without_places(error, out)}
    row |= measured | {"images_sha256": _images(run)} | _where(run)
    if status is RunStatus.FINISHED:
        curves = _curves(run, recipe)
        losses = curves.get(f"{CURVES}train_loss")
        row |= {"train_loss": losses[-1] if losses else None} | row | curves
        row |= suite_columns(run, suites) if isinstance(recipe, TrainRecipe) else {}
    return run_columns(planned, out) | {key: stored(value) for key, value in row.items()}


def _images(run: Run) -> str | None:
    """Checksums of the images at the roots of a run's sets; None for published sets, or if the record is damaged."""
    try:
        return "+".join(each.sha256 for each in run.inputs.data.values() if each.sha256) or None
    except UserError:
        return None


def _measured(run: Run, recipe: Recipe) -> dict[str, Any]:
    """The columns of the final metrics. Raises UserError if final.json is damaged."""
    final = run.final
    row = _split_metrics(final)
    row |= {f"images_{part}": count for part, count in _counts(final).items()}
    if isinstance(recipe, PretrainRecipe):
        row |= of_validation(final, is_shared=recipe.pretext == "rotation")
    lam = [final["test"]["lambda"]] if _has_gate_at_zero(recipe, final) else final.get("lambda")
    row["lambda"] = None if lam is None else statistics.fmean(lam)
    row["lambda_per_class"] = lam if lam is not None and len(lam) > 1 else None
    row |= {key: final.get(key) for key in ("images_per_second", "seconds", "parameters", "flops", "classes")}
    target = final.get("target")
    row["whole_classes"] = target.get("classes") if isinstance(target, Mapping) else None
    if (reason := _damage(row, recipe)) is not None:
        raise UserError(f"{run.folder / FINAL} is damaged ({reason}); delete it to do this run again")
    return row


def _split_metrics(final: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for split in ("test", "validation", "train"):
        for key, value in (final.get(split) or {}).items():
            if key == "reliability":
                row |= {f"{split}_reliability_{name}": with_nan(values) for name, values in value.items()}
            elif key == "correct":  # base64, which `Run.final` has checked
                row[f"{split}_{key}"] = value and base64.b64decode(value)
            elif key != "confusion":  # K² numbers, which stay in the run's folder
                row[f"{split}_{key}"] = with_nan(value)
    return row


def _damage(row: Mapping[str, Any], recipe: Recipe) -> str | None:
    """What is wrong with the final metrics; None if nothing is."""
    for key, value in row.items():
        if not fits(key, value):
            return f"{shortened(key)} has the wrong type"
    if isinstance(recipe, TrainRecipe) and recipe.target.test:
        outcome = OUTCOMES[recipe.target.task]
        score = row.get(f"test_{outcome.name}")
        if score is None or math.isnan(score):
            return f"it has no {outcome.words} on the test split"
    return None


def _curves(run: Run, recipe: Recipe) -> dict[str, list[float]]:
    """The columns of metrics.csv, if it exists. Raises UserError if it is damaged."""
    if not (run.folder / METRICS).exists():
        return {}
    left_out = "lambda" if _has_gate_at_zero(recipe, run.final) else ""
    return {f"{CURVES}{name}": values.to_list() for name, values in run.metrics.items() if name != left_out}


def _has_gate_at_zero(recipe: Recipe, final: Mapping[str, Any]) -> bool:
    """Return whether the recorded λ is the value of the gate at features of zero, instead of the mean over images.

    The first edition recorded that for runs with a λ per sample, in final.json and after each epoch.
    """
    mean = (final.get("test") or {}).get("lambda")
    is_gated = isinstance(recipe, TrainRecipe) and recipe.regulation.granularity == "per_sample"
    return is_gated and mean is not None and final.get("lambda") != [mean]


def _counts(final: Mapping[str, Any]) -> Mapping[str, int]:
    images: Any = final.get("images")
    return images if isinstance(images, Mapping) else {"train": images}


def of_validation(final: Mapping[str, Any], is_shared: bool) -> dict[str, Any]:
    """Number of validation images of a stage-1 run, and the accuracy of chance on them, per stimulus set.

    Args:
        final: final.json.
        is_shared: whether all sets share one task, and so one set of metrics.
    """
    sets: Any = final.get("sets")
    sets = {name: facts for name, facts in sets.items() if facts.get("validation")} if sets else {}
    if is_shared and sets:
        first = next(iter(sets.values()))
        sets = {"": {"validation": sum(facts["validation"] for facts in sets.values()), "chance": first.get("chance")}}
    row: dict[str, Any] = {}
    for name, facts in sets.items():
        prefix = f"validation_{name}_" if len(final["sets"]) > 1 and name else "validation_"
        row |= {f"{prefix}images": facts["validation"], f"{prefix}chance": facts.get("chance")}
    return {key: value for key, value in row.items() if value is not None}


def _where(run: Run) -> dict[str, Any]:
    """The columns on the machine of a run's last session, without values of the wrong type."""
    try:
        sessions = run.environment
    except UserError:
        sessions = []
    if not sessions:
        return {}
    session, packages = sessions[-1], sessions[-1].get("packages")
    facts = {**(packages if isinstance(packages, dict) else {}), **session, "sessions": len(sessions)}
    if isinstance(facts.get("command"), str):  # an earlier emoreg recorded whole paths
        facts["command"] = without_folders(facts["command"].split(" "))
    where = {name: facts.get(name.removeprefix(MACHINE)) for name in MACHINES}
    return {name: value if fits(name, stored(value)) else None for name, value in where.items()}

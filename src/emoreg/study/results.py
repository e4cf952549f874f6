"""The results of a study as one table with a row a run, from the folders of its runs. `columns` has its schema."""

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

# Columns with the attributes of a planned run.
FACTORS = ("id", "mode", "experience", "variant", "stimuli", "target", "backbone", "seed")


def results_of(
    study: Study,
    planned: Sequence[PlannedRun],
    failures: Mapping[str, RunOutcome],
    elsewhere: pd.DataFrame | None = None,
    out: Path | str = ".",
) -> pd.DataFrame:
    """The table of a study's runs, in the order of the plan, with all columns of `columns.FIXED`.

    It is there to be published: paths are told from the study's folder, or without the folders above them.

    Args:
        study: whose purpose and looks stand in every row.
        planned: from `plan_runs`.
        failures: by run id, for the runs that failed or were blocked.
        elsewhere: rows of runs that other machines have finished, or that diverged there; a run that is finished here
            has its own.
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
    """What was planned, as it stands in every row; nothing of a study of the first edition."""
    if study.purpose is None:
        return {}
    looks = list(study.looks or (study.seeds,))
    return {"purpose": study.purpose, "planned_seeds": study.seeds, "first_seed": study.first_seed, "looks": looks}


def run_columns(planned: PlannedRun, out: Path) -> dict[str, Any]:
    """Which run a row is of, with its settings: what is known before it is done."""
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
    """The row of a run that another machine has finished, as this study calls the run. It has no folder here."""
    as_here = {"run": planned.name, "folder": None, **{key: getattr(planned, key) for key in FACTORS}}
    return {**row, **as_here}


def _row(planned: PlannedRun, failure: RunOutcome | None, out: Path, suites: Sequence[Suite]) -> dict[str, Any]:
    run, recipe = planned.run, planned.recipe
    status, error, measured = RunStatus.WAITING, None, {}
    if run.is_finished:
        try:
            status, measured = RunStatus.FINISHED, _measured(run, recipe)
        except UserError as damage:  # the other runs are worth a table
            status, error = RunStatus.FAILED, str(damage)
    elif failure is not None:
        status, error = failure.status, failure.error
    row: dict[str, Any] = {"status": str(status), "error": error and without_places(error, out)}
    row |= measured | {"images_sha256": _images(run)} | _where(run)
    if status is RunStatus.FINISHED:
        row |= {"train_loss": run.last_loss} | row | _curves(run, recipe)
        row |= suite_columns(run, suites) if isinstance(recipe, TrainRecipe) else {}
    return run_columns(planned, out) | {key: stored(value) for key, value in row.items()}


def _images(run: Run) -> str | None:
    """Checksums of the images at the roots of a run's sets; None for published sets, and where nothing is known."""
    try:
        return "+".join(each.sha256 for each in run.inputs.data.values() if each.sha256) or None
    except UserError:  # its metrics are worth a row all the same
        return None


def _measured(run: Run, recipe: Recipe) -> dict[str, Any]:
    """The final metrics, flat. UserError if final.json is damaged."""
    final = run.final
    row: dict[str, Any] = {}
    for split in ("test", "validation", "train"):
        for key, value in (final.get(split) or {}).items():
            if key == "reliability":
                row |= {f"{split}_reliability_{name}": with_nan(values) for name, values in value.items()}
            elif key == "confusion":  # for the run's own files: K² numbers are many for a row
                continue
            elif key == "correct":  # as base64; a damaged one was refused
                row[f"{split}_{key}"] = value and base64.b64decode(value)
            else:
                row[f"{split}_{key}"] = with_nan(value)
    lam = [final["test"]["lambda"]] if _has_gate_at_zero(recipe, final) else final.get("lambda")
    row |= {f"images_{part}": count for part, count in _counts(final).items()}
    if isinstance(recipe, PretrainRecipe):
        row |= of_validation(final, is_shared=recipe.pretext == "rotation")
    row["lambda"] = None if lam is None else statistics.fmean(lam)
    row["lambda_per_class"] = lam if lam is not None and len(lam) > 1 else None
    row |= {key: final.get(key) for key in ("images_per_second", "seconds", "parameters", "flops", "classes")}
    target = final.get("target")
    row["whole_classes"] = target.get("classes") if isinstance(target, Mapping) else None
    is_tested = isinstance(recipe, TrainRecipe) and recipe.target.test
    outcome = OUTCOMES[recipe.target.task if isinstance(recipe, TrainRecipe) else "classification"]
    score = row.get(f"test_{outcome.name}")
    if wrong := [key for key, value in row.items() if not fits(key, value)]:
        reason = f"{shortened(wrong[0])} is of another type"
    elif is_tested and (score is None or math.isnan(score)):
        reason = f"it has no {outcome.words} on the test split"
    else:
        return row
    raise UserError(f"{run.folder / FINAL} is damaged ({reason}); delete it to do this run again")


def _curves(run: Run, recipe: Recipe) -> dict[str, list[float]]:
    """The columns of metrics.csv, if it is there. UserError if it is damaged."""
    if not (run.folder / METRICS).exists():
        return {}
    left_out = "lambda" if _has_gate_at_zero(recipe, run.final) else ""
    return {f"{CURVES}{name}": values.to_list() for name, values in run.metrics.items() if name != left_out}


def _has_gate_at_zero(recipe: Recipe, final: Mapping[str, Any]) -> bool:
    """Whether the λ of a run is its gate at features of zero, not the mean over images.

    The first edition wrote that for runs with a λ per sample, in final.json and after each epoch.
    """
    mean = (final.get("test") or {}).get("lambda")
    is_gated = isinstance(recipe, TrainRecipe) and recipe.regulation.granularity == "per_sample"
    return is_gated and mean is not None and final.get("lambda") != [mean]


def _counts(final: Mapping[str, Any]) -> Mapping[str, int]:
    images: Any = final.get("images")
    return images if isinstance(images, Mapping) else {"train": images}


def of_validation(final: Mapping[str, Any], is_shared: bool) -> dict[str, Any]:
    """Of stage 1 the number of validation images and what chance gets right; by set where each has its own metrics."""
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
    """Where the last session of a run ran; facts that are not of their column's type are left out."""
    try:
        sessions = run.environment
    except UserError:  # its metrics are worth a row all the same
        sessions = []
    if not sessions:
        return {}
    session, packages = sessions[-1], sessions[-1].get("packages")
    facts = {**(packages if isinstance(packages, dict) else {}), **session, "sessions": len(sessions)}
    if isinstance(command := facts.get("command"), str):  # an earlier emoreg recorded it with all its folders
        facts["command"] = without_folders(command.split(" "))
    where = {name: facts.get(name.removeprefix(MACHINE)) for name in MACHINES}
    return {name: value if fits(name, stored(value)) else None for name, value in where.items()}

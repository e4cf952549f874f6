"""The results of a study as one table, a row a run: what was asked, what came out, where it ran.

It is written as Parquet, which pandas, polars and DuckDB read.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.recipe import flatten
from emoreg.config.schema import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError, nearest, shortened
from emoreg.runs.run import FINAL, METRICS, Run
from emoreg.runtime.safe_io import require_regular, write_atomically
from emoreg.study.plan import PlannedRun

if TYPE_CHECKING:
    import pandas as pd

CURVES = "epochs."  # columns of what is in metrics.csv: a list a run
MAX_ROWS = 1_000_000  # ten times what a study may plan
PACKAGES, COUNTS = ("emoreg", "torch", "torchvision", "timm"), ("cores", "threads")
SESSION = ("git", "python", "platform", "cpu", "cores", "threads", "gpu", "device", "precision", "command", "started")


def results_of(planned: Sequence[PlannedRun], failures: Mapping[str, str]) -> pd.DataFrame:
    """The table of a study's runs, in the order of the plan.

    Columns: which run it is (stage, status, error, run, id, folder, arm, target, backbone, experience, pretext, seed);
    its metrics (test_accuracy, validation_accuracy, lambda, seconds, parameters, ...); its curves, a list a metric, as
    epochs.<column of metrics.csv>; every setting as recipe.<setting>; where it ran as env.<fact>.

    Args:
        planned: of `plan_runs`.
        failures: errors by the run's id.

    Raises:
        UserError: the metrics.csv of a finished run is damaged.
    """
    import pandas as pd

    return pd.DataFrame([_row(run, failures.get(run.id)) for run in planned])


def _row(planned: PlannedRun, error: str | None) -> dict[str, Any]:
    run, recipe = planned.run, planned.recipe
    is_first = isinstance(recipe, PretrainRecipe)
    status = "finished" if run.is_finished else "waiting"
    if error is not None and not run.is_finished:
        status = "blocked" if planned.needs and error.startswith("not run") else "failed"
    measured: dict[str, Any] = {}
    try:
        measured = _measured(run) if run.is_finished else {}
        if run.is_finished and not is_first and _is_absent(measured.get("test_accuracy")):
            raise UserError(f"{run.folder / FINAL} is damaged (it tells no accuracy on the test split)")
    except UserError as damage:  # one run's file is damaged: the others are worth a table
        status, error = "failed", str(damage)
    row: dict[str, Any] = {
        "stage": 1 if is_first else 2,
        "status": status,
        "error": error if status in ("failed", "blocked") else None,
        "run": planned.name,
        "id": planned.id,
        "folder": str(planned.folder),
        "arm": planned.arm,
        "target": planned.target,
        "backbone": planned.backbone,
        "experience": planned.experience,
        "pretext": recipe.pretext if isinstance(recipe, PretrainRecipe) else None,
        "seed": planned.seed,
    }
    row |= measured | {f"recipe.{key}": value for key, value in flatten(dataclasses.asdict(recipe))} | _where(run)
    if status == "finished" and run.folder.joinpath(METRICS).exists():
        curves = run.metrics.drop(columns="lambda", errors="ignore") if _has_gate_at_zero(run) else run.metrics
        row |= {f"{CURVES}{name}": values.to_list() for name, values in curves.items()}
    return {key: _in_unicode(value) for key, value in row.items()}


def _in_unicode(value: Any) -> Any:
    """Text as Arrow can hold it: the odd characters of a path or command that is no Unicode as escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _is_absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _measured(run: Run) -> dict[str, Any]:
    """The final metrics, flat."""
    final = run.final
    row: dict[str, Any] = {}
    for split in ("test", "validation"):
        for key, value in (final.get(split) or {}).items():
            if key == "reliability":
                row |= {f"{split}_reliability_{name}": _numbers(values) for name, values in value.items()}
            else:
                row[f"{split}_{key}"] = _numbers(value) if isinstance(value, list) else value
    lam = [final["test"]["lambda"]] if _has_gate_at_zero(run) else final.get("lambda")
    row |= {f"images_{part}": count for part, count in _counts(final).items()}
    row["lambda"] = None if lam is None else statistics.fmean(lam)
    row["lambda_per_class"] = lam if lam is not None and len(lam) > 1 else None
    row["images_per_second"] = final.get("images_per_second")
    return row | {key: final.get(key) for key in ("seconds", "parameters", "flops", "classes")}


def _has_gate_at_zero(run: Run) -> bool:
    """Whether the λ of a finished run is its gate at features of zero, not the mean over images.

    The first edition wrote that for runs with a λ per sample, in final.json and after each epoch.
    """
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe) or recipe.regulation.granularity != "per_sample":
        return False
    return bool(run.final["lambda"] != [run.final["test"]["lambda"]])


def _counts(final: Mapping[str, Any]) -> Mapping[str, int]:
    images: Any = final.get("images")
    return images if isinstance(images, Mapping) else {"train": images}


def _numbers(values: Sequence[float | None]) -> list[float]:
    """JSON has no NaN; it has null."""
    return [float("nan") if value is None else value for value in values]


def _where(run: Run) -> dict[str, Any]:
    try:
        sessions = run.environment
    except UserError:  # its metrics are worth a row all the same
        sessions = []
    if not sessions:
        return {}
    session = sessions[-1]
    packages = session.get("packages")
    facts: dict[str, Any] = {key: session.get(key) for key in SESSION}
    facts |= {key: packages.get(key) if isinstance(packages, dict) else None for key in PACKAGES}
    # In a column of Parquet all values are of one type.
    where = {
        f"env.{key}": value if isinstance(value, int if key in COUNTS else str) else None
        for key, value in facts.items()
    }
    return where | {"env.sessions": len(sessions)}


def write_results(path: Path, table: pd.DataFrame) -> None:
    """Write the table as Parquet, atomically. Settings that are lists are written as JSON.

    Raises:
        UserError: it cannot be written.
    """
    table = table.copy()
    for column in table.columns[table.columns.str.startswith("recipe.")]:
        values = [json.dumps(value) if isinstance(value, list | tuple) else value for value in table[column]]
        kinds = {type(value) for value in values if value is not None and value == value}  # noqa: PLR0124 (not NaN)
        mixed = len(kinds) > 1 and not kinds <= {int, float}
        table[column] = [None if value is None else str(value) if mixed else value for value in values]
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    try:
        write_atomically(path, buffer.getbuffer())
    except OSError as error:
        reason = f"{error.strerror or error}; the runs are kept" if path.parent.is_dir() else "the folder is gone"
        raise UserError(f"cannot write the table of results {path}: {reason}") from None


def read_results(path: Path) -> pd.DataFrame:
    """A table that `write_results` wrote. UserError if it is not there, damaged, or of anything else."""
    import pandas as pd
    from pyarrow import parquet

    try:
        require_regular(path)
        # A few bytes can stand for any number of equal rows.
        if (rows := parquet.read_metadata(path).num_rows) > MAX_ROWS:
            raise ValueError(f"it has {rows:,} rows; the limit is {MAX_ROWS:,}")
        table = pd.read_parquet(path)
        if absent := [name for name in ("stage", "status", "run") if name not in table]:
            raise ValueError(f"it has no column '{absent[0]}'")
    except Exception as error:  # damaged, it makes Arrow and pandas raise almost anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as a table of results: {shortened(reason, 200)}") from None
    return table


def select(table: pd.DataFrame, where: str | None, columns: Sequence[str] | None) -> pd.DataFrame:
    """Some rows and columns of a table.

    Args:
        table: of `results_of`.
        where: a condition on columns as pandas writes it: "arm == 'learned' and seed < 3"; a name with a dot stands
            in backticks.
        columns: their names; None for all.

    Raises:
        UserError: a column that is not there (the nearest is named), or a condition that cannot be read.
    """
    if where is not None:
        table = table[_mask(table, where)]
    for name in columns or ():
        if name not in table.columns:
            raise UserError(f"no column is called '{name}'{nearest(name, table.columns)}")
    return table if columns is None else table[list(columns)]


def _mask(table: pd.DataFrame, where: str) -> pd.Series[bool]:
    """Which rows meet a condition."""
    import pandas as pd

    try:
        mask = table.eval(where)
    except pd.errors.UndefinedVariableError as error:
        name = str(error).split("'")[1]
        raise UserError(f"no column is called '{name}'{nearest(name, table.columns)}") from None
    except Exception as error:  # pandas lets the errors of Python's parser and of any operator through
        reason = " ".join(str(error).split())
        raise UserError(f"--where cannot be read: {reason}; an example: arm == 'learned'") from None
    if not isinstance(mask, pd.Series) or mask.dtype != bool:
        raise UserError(f"--where cannot be read: {where} is no condition; an example: arm == 'learned'")
    return mask

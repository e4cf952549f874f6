"""The results of a study as one table with a row for each run; written as Parquet. `columns` has its schema."""

from __future__ import annotations

import ast
import base64
import io
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.errors import UserError, nearest, shortened
from emoreg.runs.run import FINAL, METRICS, Run
from emoreg.runtime.places import portable, without_folders, without_places
from emoreg.runtime.safe_io import require_regular, write_atomically
from emoreg.study.arms import EXPERIENCES, LABELS
from emoreg.study.columns import (
    CURVES,
    FIXED,
    INTEGER,
    MACHINE,
    MACHINES,
    NUMBER,
    RECIPES,
    SETTINGS,
    SHARES,
    RunStatus,
    in_order,
    stored,
    type_of,
)
from emoreg.study.conform import as_file, conform, fits
from emoreg.study.definition import Study
from emoreg.study.first_edition import with_modes
from emoreg.study.outcome_columns import columns_of, outcomes_of
from emoreg.study.plan import PlannedRun
from emoreg.study.published import published_settings
from emoreg.study.run_one import RunOutcome
from emoreg.study.suite_columns import suite_columns
from emoreg.suites.options import Suite

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Columns with the attributes of a planned run.
FACTORS = ("id", "mode", "experience", "variant", "stimuli", "target", "backbone", "seed")
MAX_ROWS = 1_000_000  # ten times what a study may plan


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
        elsewhere: rows of runs that other machines have finished; a run that is finished here has its own.
        out: the study's folder.

    Raises:
        UserError: the metrics.csv of a finished run is damaged.
    """
    import pandas as pd

    plan: dict[str, Any] = {}
    if study.purpose is not None:
        looks = list(study.looks or (study.seeds,))
        plan = {"purpose": study.purpose, "planned_seeds": study.seeds, "looks": looks}
    of_others: dict[str, dict[str, Any]] = {}
    for row in [] if elsewhere is None else elsewhere.to_dict("records"):
        of_others.setdefault(row["id"], {str(key): value for key, value in row.items() if not _is_missing(value)})
    rows = [
        _handed_on(run, of_others[run.id]) | plan
        if run.id in of_others and not run.run.is_finished
        else _row(run, failures.get(run.id), Path(out), study.suites) | plan
        for run in planned
    ]
    return pd.DataFrame(rows, columns=in_order(name for row in rows for name in row))


def between_looks(table: pd.DataFrame) -> str | None:
    """That verdicts wait for the next planned look, if the complete seeds of a confirmation are not at one now."""
    own = table[(table["stage"] == 2) & table["planned_seeds"].notna()]
    if own.empty or (own["purpose"] != "confirmation").any():
        return None
    is_complete = (own["status"] == RunStatus.FINISHED).groupby(own["seed"]).all()
    seeds, looks = int(is_complete.sum()), sorted({int(look) for planned in own["looks"] for look in planned})
    later = [look for look in looks if look > seeds]
    if seeds in looks or not later:
        return None
    earlier = [look for look in looks if look < seeds]
    since = f" (those of the look at {earlier[-1]} stand)" if earlier else ""
    return f"{seeds} of {looks[-1]} planned seeds are complete: verdicts wait for the look at {later[0]}{since}"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _handed_on(planned: PlannedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a run that another machine has finished, as this study calls the run. It has no folder here."""
    own = {"run": planned.name, "folder": None, **{key: getattr(planned, key) for key in FACTORS}}
    return {**row, **own}


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
    row: dict[str, Any] = {
        "stage": 1 if isinstance(recipe, PretrainRecipe) else 2,
        "status": str(status),
        "error": error and without_places(error, out),
        "run": planned.name,
        "folder": portable(planned.folder, out),
        "edition": recipe.edition,
        **{key: getattr(planned, key) for key in FACTORS},
    }
    settings = {f"{SETTINGS}{key}": value for key, value in published_settings(recipe, out).items()}
    row["images_sha256"] = _images(run)
    row |= measured | {key: value for key, value in settings.items() if key in RECIPES} | _where(run)
    if status is RunStatus.FINISHED:
        row |= {"train_loss": run.last_loss} | row | _curves(run, recipe)
        row |= suite_columns(run, suites) if isinstance(recipe, TrainRecipe) else {}
    return {key: stored(value) for key, value in row.items()}


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
                row |= {f"{split}_reliability_{name}": _numbers(values) for name, values in value.items()}
            elif key == "confusion":  # for the run's own files: K² numbers are many for a row
                continue
            elif key == "correct":  # as base64; a damaged one was refused
                row[f"{split}_{key}"] = value and base64.b64decode(value)
            else:
                row[f"{split}_{key}"] = _numbers(value) if isinstance(value, list) else value
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


def _numbers(values: Sequence[float | None]) -> list[float]:
    """JSON has no NaN; it has null."""
    return [float("nan") if value is None else value for value in values]


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


def write_results(path: Path, table: pd.DataFrame) -> None:
    """Write the table as Parquet, atomically, with the types of `columns`.

    Raises:
        UserError: the file cannot be written, or a column has values of another type.
    """
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    try:
        parquet.write_table(as_file(conform(pa.Table.from_pandas(table, preserve_index=False))), buffer)
        write_atomically(path, buffer.getbuffer())
    except OSError as error:
        reason = f"{error.strerror or error}; the runs are kept" if path.parent.is_dir() else "the folder is gone"
        raise UserError(f"cannot write the table of results {path}: {reason}") from None
    except (ValueError, TypeError) as error:  # Arrow's own are of both kinds
        raise UserError(f"cannot write the table of results {path}: {shortened(str(error), 200)}") from None


def read_results(path: Path) -> pd.DataFrame:
    """Read a table that `write_results` wrote, or another library from such a table.

    A table of the first edition is read as one of today.

    Args:
        path: Parquet, or CSV of `emoreg results --format csv` with all columns.

    Raises:
        UserError: the file is not there, damaged, or not a table of results.
    """
    try:
        require_regular(path)
        table = _read_csv(path) if path.suffix.lower() == ".csv" else read_parquet(path)
        _require(table.column_names, ("stage", "status", "run"))
        return with_modes(conform(table).to_pandas())
    except Exception as error:  # a damaged file makes Arrow raise almost anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as a table of results: {shortened(reason, 250)}") from None


def read_parquet(path: Path) -> pa.Table:
    """Any Parquet file of at most MAX_ROWS rows. OSError, ValueError or one of Arrow's errors if it is none."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if (rows := file.metadata.num_rows) > MAX_ROWS:  # a few bytes can stand for any number of equal rows
            raise ValueError(f"it has {rows:,} rows; the limit is {MAX_ROWS:,}")
        return file.read()


def _read_csv(path: Path) -> pa.Table:
    """All columns as text: their types follow from their names."""
    import pandas as pd
    import pyarrow as pa

    table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    return pa.Table.from_pandas(table, preserve_index=False)


def _require(names: Sequence[str], needed: Iterable[str]) -> None:
    for name in needed:
        if name not in names:
            raise ValueError(f"it has no column '{name}'")


def read_external_results(path: Path) -> pd.DataFrame:
    """Read a results.parquet for a report without its runs. The folders that it names are left out.

    Raises:
        UserError: the file is not there or damaged, or holds what no study writes.
    """
    table = read_results(path)
    try:
        check_content(table)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a table of results: {error}") from None
    return table.drop(columns="folder", errors="ignore")


def check_content(table: pd.DataFrame) -> None:
    """ValueError for what would make a report wrong: types are right, values may not be."""
    import pandas as pd

    names = [str(name) for name in table]
    _require(names, ("stage", "status", "error", "run", "mode", "experience", "target", "backbone", "seed"))
    for name in ("stage", "seed"):
        if table[name].isna().any():
            raise ValueError(f"a run has no {name}")
    if unknown := sorted(set(table["status"].dropna()) - set(RunStatus)):
        raise ValueError(f"no status is called '{shortened(unknown[0])}'{nearest(unknown[0], RunStatus)}")
    finished = table[(table["stage"] == 2) & (table["status"] == RunStatus.FINISHED)]
    for name in ("mode", "target", "backbone"):
        _require_values(finished, name)
    is_exploration = finished["purpose"] == "exploration" if "purpose" in finished else finished["seed"].isna()
    outcomes = outcomes_of(finished)
    for outcome in dict.fromkeys(outcomes):
        _, tested, validated = columns_of(outcome)
        is_own = pd.Series([each == outcome for each in outcomes], finished.index)
        _require_values(finished[~is_exploration & is_own], tested)
        _require_values(finished[is_exploration & is_own], validated)
    for column, known in (("mode", LABELS), ("experience", EXPERIENCES)):
        for name in finished[column].dropna():
            if name not in known:
                raise ValueError(f"no {column} is called '{shortened(name)}'{nearest(name, known)}")
    for name in names:
        _check_numbers(name, table[name])
    for curves in table[[name for name in names if name.startswith(CURVES)]].itertuples(index=False):
        if len({len(curve) for curve in curves if curve is not None}) > 1:
            raise ValueError("the curves of a run have different lengths")


def _require_values(finished: pd.DataFrame, name: str) -> None:
    if len(finished) and (name not in finished or finished[name].isna().any()):
        raise ValueError(f"a finished run lacks its {name}")


def _check_numbers(name: str, column: pd.Series[Any]) -> None:
    """ValueError for an infinity, or a share outside [0, 1]. NaN stands for a missing value."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    kind = type_of(name)
    if kind is None or name.startswith(CURVES):  # charts leave out a loss that has run away
        return
    if name not in FIXED and not pd.api.types.is_numeric_dtype(column):  # the user's own of such a name
        return
    is_list = pa.types.is_list(kind)
    if (kind.value_type if is_list else kind) not in (INTEGER, NUMBER):
        return
    values = np.concatenate([np.zeros(0), *column.dropna()]) if is_list else column.dropna().to_numpy(dtype=float)
    if np.isinf(values).any():
        raise ValueError(f"a number in column '{shortened(name)}' is infinite")
    if name in SHARES and ((values < 0) | (values > 1)).any():
        raise ValueError(f"a number in column '{name}' is not in [0, 1]")


def select(table: pd.DataFrame, where: str | None, columns: Sequence[str] | None) -> pd.DataFrame:
    """Some rows and columns of a table.

    Args:
        table: from `results_of` or `read_results`.
        where: a condition as pandas.DataFrame.query takes it: "mode == 'learned' and seed < 3"; names with a dot stand
            in backticks. None for all rows.
        columns: their names; None for all.

    Raises:
        UserError: an unknown column (the nearest name is given), or a condition that cannot be read.
    """
    if where is not None:
        table = table[_mask(table, where)]
    for name in columns or ():
        _check_known(name, table)
    return table if columns is None else table[list(columns)]


def _check_known(name: str, table: pd.DataFrame) -> None:
    if name not in table.columns:
        raise UserError(f"no column is called '{name}'{nearest(name, table.columns)}")


def _mask(table: pd.DataFrame, where: str) -> pd.Series[bool]:
    """Which rows meet a condition."""
    import pandas as pd

    try:
        for name in _names(where):
            _check_known(name, table)
        mask = table.eval(where)
    except UserError:
        raise
    except Exception as error:  # pandas lets the errors of Python's parser and of any operator through
        raise UserError(f"--where cannot be read: {error}; an example: mode == 'learned'") from None
    if not isinstance(mask, pd.Series) or mask.dtype != bool:
        raise UserError(f"--where cannot be read: {where} is not a condition; an example: mode == 'learned'")
    return mask


def _names(where: str) -> list[str]:
    """The columns that a condition names. SyntaxError if it is not one."""
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        return quoted.setdefault(match[1], f"_quoted_{len(quoted)}")

    tree = ast.parse(re.sub("`([^`]*)`", stand_in, where.strip()), mode="eval")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}  # pandas knows sqrt and others
    names = {stand: name for name, stand in quoted.items()}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    return [names.get(node.id, node.id) for node in found]

"""Write, read and check files of tables of results, and select parts of them. `columns` has their schema."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.errors import UserError, nearest, shortened
from emoreg.runtime.safe_io import require_regular, write_atomically, writing
from emoreg.study.arms import EXPERIENCES, LABELS
from emoreg.study.columns import CURVES, FIXED, INTEGER, NUMBER, SHARES, RunStatus, type_of
from emoreg.study.conform import as_file, conform
from emoreg.study.first_edition import with_modes
from emoreg.study.outcome_columns import columns_of, outcomes_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MAX_ROWS = 1_000_000  # ten times as many as a study may plan


def write_results(path: Path, table: pd.DataFrame) -> None:
    """Write the table as Parquet, atomically, with the types of `columns`.

    Raises:
        UserError: the file cannot be written, or a column has values of the wrong type.
    """
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    try:
        parquet.write_table(as_file(conform(pa.Table.from_pandas(table, preserve_index=False))), buffer)
    except (ValueError, TypeError) as error:  # Arrow raises both
        raise UserError(f"cannot write the table of results {path}: {shortened(str(error), 200)}") from None
    with writing(path, "table of results", "the runs are kept"):
        write_atomically(path, buffer.getbuffer())


def read_results(path: Path) -> pd.DataFrame:
    """Read a table of results, also after another library has rewritten it. A first-edition table is converted.

    Args:
        path: Parquet, or CSV from `emoreg results --format csv` with all columns.

    Raises:
        UserError: the file is missing, damaged, or not a table of results.
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
    """Read a Parquet file of at most MAX_ROWS rows.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: the file cannot be read.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if (rows := file.metadata.num_rows) > MAX_ROWS:  # a few bytes can encode any number of equal rows
            raise ValueError(f"it has {rows:,} rows; the limit is {MAX_ROWS:,}")
        return file.read()


def _read_csv(path: Path) -> pa.Table:
    """Read all columns as text; `conform` derives their types from their names."""
    import pandas as pd
    import pyarrow as pa

    table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    return pa.Table.from_pandas(table, preserve_index=False)


def _require(names: Sequence[str], needed: Iterable[str]) -> None:
    for name in needed:
        if name not in names:
            raise ValueError(f"it has no column '{name}'")


def read_external_results(path: Path) -> pd.DataFrame:
    """Read a results.parquet for a report without its runs, and drop the column of their folders.

    Raises:
        UserError: the file is missing or damaged, or has values that no study writes.
    """
    table = read_results(path)
    try:
        check_content(table)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a table of results: {error}") from None
    return table.drop(columns="folder", errors="ignore")


def check_content(table: pd.DataFrame) -> None:
    """Raise ValueError for values that would make a report wrong, in a table whose types are right."""
    names = [str(name) for name in table]
    _require(names, ("stage", "status", "error", "run", "mode", "experience", "target", "backbone", "seed"))
    for name in ("stage", "seed"):
        if table[name].isna().any():
            raise ValueError(f"a run has no {name}")
    finished = table[(table["stage"] == 2) & (table["status"] == RunStatus.FINISHED)]
    for name in ("mode", "target", "backbone"):
        _require_values(finished, name)
    _require_outcomes(finished)
    _check_names("status", table["status"], tuple(RunStatus))
    _check_names("mode", finished["mode"], tuple(LABELS))
    _check_names("experience", finished["experience"], EXPERIENCES)
    for name in names:
        _check_numbers(name, table[name])
    for curves in table[[name for name in names if name.startswith(CURVES)]].itertuples(index=False):
        if len({len(curve) for curve in curves if curve is not None}) > 1:
            raise ValueError("the curves of a run have different lengths")


def _require_values(finished: pd.DataFrame, name: str) -> None:
    if len(finished) and (name not in finished or finished[name].isna().any()):
        raise ValueError(f"a finished run lacks its {name}")


def _require_outcomes(finished: pd.DataFrame) -> None:
    """Raise ValueError for a finished run without its outcome: on validation images in an exploration, else tested."""
    import pandas as pd

    is_exploration = finished["purpose"] == "exploration" if "purpose" in finished else finished["seed"].isna()
    outcomes = outcomes_of(finished)
    for outcome in dict.fromkeys(outcomes):
        _, tested, validated = columns_of(outcome)
        has_outcome = pd.Series([each == outcome for each in outcomes], finished.index)
        _require_values(finished[~is_exploration & has_outcome], tested)
        _require_values(finished[is_exploration & has_outcome], validated)


def _check_names(column: str, values: pd.Series[Any], known: Sequence[str]) -> None:
    for name in values.dropna().unique():
        if name not in known:
            raise ValueError(f"no {column} is called '{shortened(name)}'{nearest(name, known)}")


def _check_numbers(name: str, column: pd.Series[Any]) -> None:
    """Raise ValueError for an infinity, or a share outside [0, 1]. NaN stands for a missing value."""
    import pandas as pd
    import pyarrow as pa

    kind = type_of(name)
    if kind is None or name.startswith(CURVES):  # the loss of a run that diverged may be infinite
        return
    if name not in FIXED and not pd.api.types.is_numeric_dtype(column):  # the user's own column
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
    """Select rows and columns of a table.

    Args:
        table: from `results_of` or `read_results`.
        where: a condition for pandas.DataFrame.query, such as "mode == 'learned' and seed < 3", with backticks around
            names that have a dot; None for all rows.
        columns: names; None for all.

    Raises:
        UserError: an unknown column (the error names the closest match), or an invalid condition.
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
    """The rows that meet a condition."""
    import pandas as pd

    try:
        for name in _names(where):
            _check_known(name, table)
        mask = table.eval(where)
    except UserError:
        raise
    except Exception as error:  # pandas passes on the errors of Python's parser and of any operator
        raise UserError(f"--where cannot be read: {error}; an example: mode == 'learned'") from None
    if not isinstance(mask, pd.Series) or mask.dtype != bool:
        raise UserError(f"--where cannot be read: {where} is not a condition; an example: mode == 'learned'")
    return mask


def _names(where: str) -> list[str]:
    """The columns that a condition names. Raises SyntaxError if it cannot be parsed."""
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        return quoted.setdefault(match[1], f"_quoted_{len(quoted)}")

    tree = ast.parse(re.sub("`([^`]*)`", stand_in, where.strip()), mode="eval")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}  # functions, such as sqrt
    names = {stand: name for name, stand in quoted.items()}
    columns = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    return [names.get(node.id, node.id) for node in columns]

"""Tables of results as files: written, read, checked, and parts of them selected. `columns` has their schema."""

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

MAX_ROWS = 1_000_000  # ten times what a study may plan


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
    except (ValueError, TypeError) as error:  # Arrow's own are of both kinds
        raise UserError(f"cannot write the table of results {path}: {shortened(str(error), 200)}") from None
    with writing(path, "table of results", "the runs are kept"):
        write_atomically(path, buffer.getbuffer())


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

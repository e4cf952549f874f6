"""Brings a table to the schema of `columns`, whichever library wrote it, and into the form of a file and back."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from emoreg.errors import shortened
from emoreg.study.columns import (
    BYTES,
    CURVES,
    FIXED,
    FLAG,
    FORMAT,
    IDENTITY,
    INTEGER,
    MACHINE,
    MORE_CURVES,
    MORE_METRICS,
    NUMBER,
    NUMBERS,
    SETTINGS,
    TEXT,
    in_order,
    type_of,
)

KEY = b"emoreg"  # in a file's metadata
MOST = 1000  # columns of metrics and curves beside the fixed ones: a few bytes could ask for any number
Column: TypeAlias = pa.ChunkedArray | pa.Array


def fits(name: str, value: Any) -> bool:
    """Whether a value can stand in the column of this name."""
    try:
        _converted(name, pa.array([value]))
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return False
    return True


def conform(table: pa.Table) -> pa.Table:
    """The table with all columns of the schema, and their types, whichever library wrote it.

    An index that pandas wrote is left out. Columns that emoreg does not write are kept as they are: settings of another
    version, or the user's own. But a name close to that of a column that the table lacks is taken for a misspelling.

    Raises:
        ValueError: a column has values of another type, a misspelt name, or the name of another one; the table is of a
            later format.
    """
    _refuse_later_format(table.schema.metadata or {})
    names = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"it has two columns '{shortened(twice[0])}'")
    absent = [name for name in FIXED if name not in names]
    for name in names:
        is_unknown = type_of(name) is None and not name.startswith((SETTINGS, MACHINE))
        is_unknown = is_unknown and name not in (MORE_METRICS, MORE_CURVES)
        if is_unknown and (meant := difflib.get_close_matches(name, absent, n=1, cutoff=0.75)):
            raise ValueError(f"no column is called '{shortened(name)}' (did you mean '{meant[0]}'?)")
    columns = {name: _converted(name, table.column(name)) for name in names}
    for packed in (MORE_METRICS, MORE_CURVES):
        if packed in columns:
            columns |= _unpacked(packed, columns.pop(packed).to_pylist())
    nothing = {name: pa.nulls(len(table), FIXED[name]) for name in absent}
    return pa.table({name: nothing.get(name, columns.get(name)) for name in in_order(columns)})


def as_file(table: pa.Table) -> pa.Table:
    """A table from `conform` as it stands in a file: metrics and curves that only some studies have are packed."""
    more = [name for name in table.column_names if name not in FIXED and _is_more(name, table.field(name).type)]
    metrics = [name for name in more if not name.startswith(CURVES)]
    packed = {
        MORE_METRICS: _packed(table, {name: name for name in metrics}),
        MORE_CURVES: _packed(table, {name: name.removeprefix(CURVES) for name in more if name not in metrics}),
    }
    others = [name for name in table.column_names if name not in FIXED and name not in more]
    columns = {name: table.column(name) for name in FIXED} | packed | {name: table.column(name) for name in others}
    return pa.table(columns).replace_schema_metadata({KEY: json.dumps({"table": FORMAT})})


def from_text(name: str, text: str) -> Any:
    """A value of a column from the text that `emoreg results --format csv` makes of it.

    Raises:
        ValueError: it is other text.
    """
    kind = type_of(name)
    if kind in (None, TEXT):
        return text
    try:
        if kind == BYTES:
            return base64.b64decode(text, validate=True)
        value = with_nan(json.loads(text.lower() if kind == FLAG else text))
        kept = pa.scalar(value, kind).as_py()
        if kind == INTEGER and kept != value:
            raise ValueError
        return kept
    except (ValueError, TypeError, RecursionError, OverflowError, binascii.Error, pa.ArrowException):
        raise _OtherKindError(
            f"column '{shortened(name)}' holds text in place of {_kind(kind)}, as after a CSV file: only one of "
            "'emoreg results --format csv' can be read again"
        ) from None


def _refuse_later_format(metadata: Mapping[bytes, bytes]) -> None:
    try:
        found = json.loads(metadata[KEY])["table"]
    except (KeyError, ValueError, TypeError):  # other libraries leave it out
        return
    if type(found) is not int or found > FORMAT:
        raise ValueError(f"it is of format {shortened(str(found))}, and this emoreg reads {FORMAT}: update emoreg")


def _is_more(name: str, found: pa.DataType) -> bool:
    """Whether a column is a metric or a curve that only some studies have, and not the user's own of such a name."""
    return type_of(name) in (NUMBER, INTEGER, NUMBERS) and found == type_of(name)


def _packed(table: pa.Table, names: Mapping[str, str]) -> pa.Array:
    """A JSON object for each row, by the given names; null for a row that has none of the columns."""
    rows = zip(*(table.column(name).to_pylist() for name in names), strict=True) if names else [()] * len(table)
    found = ({key: _plain(value) for key, value in zip(names.values(), row, strict=True)} for row in rows)
    kept = [{key: value for key, value in row.items() if value is not None} for row in found]
    return pa.array([json.dumps(row) if row else None for row in kept], TEXT)


def _plain(value: Any) -> Any:
    """As JSON has it: null for NaN."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _unpacked(packed: str, rows: Iterable[str | None]) -> dict[str, pa.Array]:
    """The columns in the JSON objects of a column."""
    prefix, wanted = (CURVES, (NUMBERS,)) if packed == MORE_CURVES else ("", (NUMBER, INTEGER, NUMBERS))
    try:
        found = [{} if row is None else {prefix + key: value for key, value in json.loads(row).items()} for row in rows]
        names = dict.fromkeys(name for row in found for name in row)
        if len(names) > MOST or any(name in FIXED or type_of(name) not in wanted for name in names):
            raise ValueError
        return {name: pa.array([with_nan(row.get(name)) for row in found], type_of(name)) for name in names}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, pa.ArrowException):
        raise ValueError(f"column '{packed}' does not hold what emoreg writes there") from None


def with_nan(value: Any) -> Any:
    """A value from JSON, which has null in place of NaN: in a list it stands for that."""
    return [math.nan if number is None else number for number in value] if isinstance(value, list) else value


class _OtherKindError(ValueError):
    """A column has values of another kind than its name says."""


def _converted(name: str, column: Column) -> Column:
    """A column with the type of its name. ValueError if its values are of another kind."""
    is_packed = name in (MORE_METRICS, MORE_CURVES)
    wanted = TEXT if is_packed else type_of(name)
    if wanted is None:
        return decoded(column)
    if pc.all(column.is_null(nan_is_null=True)).as_py() is not False:  # libraries give such a column any type
        return pa.nulls(len(column), wanted)
    column = decoded(column)
    try:
        return _as_text(name, column) if wanted == TEXT else _as_values(name, column, wanted)
    except _OtherKindError:
        if name in FIXED or is_packed:
            raise
        return column  # the user's own: test_group is no metric, though only some studies have those named like it
    except pa.ArrowException as error:
        if wanted == INTEGER:
            raise ValueError(f"a number in column '{shortened(name)}' is not a whole number") from None
        raise ValueError(f"column '{shortened(name)}': {shortened(str(error))}") from None


def _as_text(name: str, column: Column) -> Column:
    if _kind(column.type) == "bytes":  # text of files that do not say that it is text
        try:
            return column.cast(TEXT)
        except pa.ArrowInvalid as error:
            raise _OtherKindError(str(error)) from None
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type) or pa.types.is_time(column.type):  # parsed
        return pa.array([None if time is None else time.isoformat() for time in column.to_pylist()], TEXT)
    column = _cast(name, column, TEXT)
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, TEXT), column) if name in IDENTITY else column


def _as_values(name: str, column: Column, wanted: pa.DataType) -> Column:
    """All else than text, which CSV files and some libraries write in other ways."""
    if _kind(column.type) == "text":
        return pa.array([from_text(name, text) if text else None for text in column.to_pylist()], wanted)
    if wanted == FLAG and _kind(column.type) == "numbers":
        values = column.to_pylist()
        if all(value is None or value in (0, 1) or math.isnan(value) for value in values):
            return pa.array([bool(value) if value in (0, 1) else None for value in values], wanted)
    if wanted == INTEGER and pa.types.is_floating(column.type):  # pandas has no missing integers
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if wanted == NUMBER and column.type == pa.float32():  # by the shortest text: 0.1, not 0.10000000149
        return column.cast(TEXT).cast(wanted)
    return _cast(name, column, wanted)


def _cast(name: str, column: Column, wanted: pa.DataType) -> Column:
    """The values in the wanted width and encoding. Empty lists are of any kind, unless they may be the user's own."""
    found, expected = _kind(column.type), _kind(wanted)
    is_empty = name in FIXED and _is_list(column.type) and pa.types.is_null(column.type.value_type)
    if found != expected and not (is_empty and _is_list(wanted)):
        raise _OtherKindError(f"column '{shortened(name)}' holds {shortened(found)} in place of {expected}")
    return column.cast(wanted)


def decoded(column: Column) -> Column:
    """A column without an encoding of its values: dictionaries (categories), views, extension types; also in lists."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # such as DuckDB's JSON
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return decoded(pa.chunked_array([chunk.storage for chunk in chunks], kind.storage_type))
    plain = _without_encoding(kind)
    return column if plain == kind else column.cast(plain)


def _without_encoding(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _without_encoding(kind.value_type)
    if _is_list(kind):
        return pa.list_(_without_encoding(kind.value_type))
    return {"string_view": TEXT, "binary_view": BYTES}.get(str(kind), kind)  # pyarrow 16 cannot test for them


def _is_list(of: pa.DataType) -> bool:
    return pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_fixed_size_list(of)


def _kind(of: pa.DataType) -> str:
    """What a column holds, in words. Types of the same kind differ in width and encoding alone."""
    types = pa.types
    if _is_list(of):
        return f"lists of {_kind(of.value_type)}"
    if types.is_string(of) or types.is_large_string(of):
        return "text"
    if types.is_integer(of) or types.is_floating(of) or types.is_decimal(of):
        return "numbers"
    if types.is_binary(of) or types.is_large_binary(of) or types.is_fixed_size_binary(of):
        return "bytes"
    return "truth values" if types.is_boolean(of) else "nothing" if types.is_null(of) else str(of)

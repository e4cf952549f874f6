"""Cast tables of results to the schema of `columns`, and convert them to and from their form in a file."""

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
PACKED = (MORE_METRICS, MORE_CURVES)
MAX_UNPACKED = 1000  # columns from one packed column: a small file could otherwise claim any number
Column: TypeAlias = pa.ChunkedArray | pa.Array


def fits(name: str, value: Any) -> bool:
    """Return whether the column of this name can hold a value."""
    try:
        _cast_column(name, pa.array([value]))
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return False
    return True


def conform(table: pa.Table) -> pa.Table:
    """Cast a table to the schema of `columns`, whichever library wrote it; absent columns are filled with nulls.

    An index that pandas wrote is dropped. Columns unknown to emoreg are kept as they are (settings of another version,
    or the user's own), unless the name is so close to that of an absent column that it must be a misspelling.

    Raises:
        ValueError: a column has values of the wrong type, a misspelt name, or the same name as another; the table has a
            later format.
    """
    _refuse_later_format(table.schema.metadata or {})
    names = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"it has two columns '{shortened(twice[0])}'")
    absent = [name for name in FIXED if name not in names]
    for name in names:
        if type_of(name) is not None or name in PACKED or name.startswith((SETTINGS, MACHINE)):
            continue
        if meant := difflib.get_close_matches(name, absent, n=1, cutoff=0.75):
            raise ValueError(f"no column is called '{shortened(name)}' (did you mean '{meant[0]}'?)")
    columns = {name: _cast_column(name, table.column(name)) for name in names}
    for packed in PACKED:
        if packed in columns:
            columns |= _unpacked(packed, columns.pop(packed).to_pylist())
    columns |= {name: pa.nulls(len(table), FIXED[name]) for name in absent}
    return pa.table({name: columns[name] for name in in_order(columns)})


def as_file(table: pa.Table) -> pa.Table:
    """Convert a table from `conform` to its form in a file, with metrics and curves outside `FIXED` packed."""
    more = [name for name in table.column_names if name not in FIXED and _is_more(name, table.field(name).type)]
    curves = [name for name in more if name.startswith(CURVES)]
    packed = {
        MORE_METRICS: _packed(table, [name for name in more if name not in curves], ""),
        MORE_CURVES: _packed(table, curves, CURVES),
    }
    others = [name for name in table.column_names if name not in FIXED and name not in more]
    columns = {name: table.column(name) for name in FIXED} | packed | {name: table.column(name) for name in others}
    return pa.table(columns).replace_schema_metadata({KEY: json.dumps({"table": FORMAT})})


def from_text(name: str, text: str) -> Any:
    """Parse a value of a column from the text that `emoreg results --format csv` writes for it.

    Raises:
        ValueError: the text is not of this form.
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
        raise ValueError(
            f"column '{shortened(name)}' holds text instead of {_kind(kind)}, as after a CSV file: only those of "
            "'emoreg results --format csv' can be read"
        ) from None


def _refuse_later_format(metadata: Mapping[bytes, bytes]) -> None:
    try:
        version = json.loads(metadata[KEY])["table"]
    except (KeyError, ValueError, TypeError):  # other libraries drop it
        return
    if type(version) is not int or version > FORMAT:
        raise ValueError(f"it is of format {shortened(str(version))}, and this emoreg reads {FORMAT}: update emoreg")


def _is_more(name: str, kind: pa.DataType) -> bool:
    """Return whether a column is a metric or curve that only some studies have; the user's own may have such a name."""
    return type_of(name) in (NUMBER, INTEGER, NUMBERS) and kind == type_of(name)


def _packed(table: pa.Table, names: Iterable[str], prefix: str) -> pa.Array:
    """A JSON object per row, of the columns' names without the prefix; null for a row without any values."""
    columns = {name.removeprefix(prefix): table.column(name).to_pylist() for name in names}
    rows = [{key: without_nan(values[row]) for key, values in columns.items()} for row in range(len(table))]
    present = [{key: value for key, value in row.items() if value is not None} for row in rows]
    return pa.array([json.dumps(row) if row else None for row in present], TEXT)


def without_nan(value: Any) -> Any:
    """The inverse of `with_nan`: null for each NaN, also in lists of lists."""
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _unpacked(packed: str, rows: Iterable[str | None]) -> dict[str, pa.Array]:
    """The columns in the JSON objects of a packed column."""
    prefix, kinds = (CURVES, (NUMBERS,)) if packed == MORE_CURVES else ("", (NUMBER, INTEGER, NUMBERS))
    try:
        objects = [{} if row is None else json.loads(row) for row in rows]
        parsed = [{prefix + key: value for key, value in each.items()} for each in objects]
        names = dict.fromkeys(name for row in parsed for name in row)
        if len(names) > MAX_UNPACKED or any(name in FIXED or type_of(name) not in kinds for name in names):
            raise ValueError
        return {name: pa.array([with_nan(row.get(name)) for row in parsed], type_of(name)) for name in names}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, pa.ArrowException):
        raise ValueError(f"column '{packed}' does not hold what emoreg writes there") from None


def with_nan(value: Any) -> Any:
    """A value from JSON, with NaN for each null in a list: JSON has no NaN."""
    return [math.nan if number is None else number for number in value] if isinstance(value, list) else value


def _cast_column(name: str, column: Column) -> Column:
    """Cast a column to the type of its name, or raise ValueError; an unknown column is only decoded.

    A column that is not in `FIXED` is left uncast if its values are of another kind: it is then the user's own, such as
    test_group, which only looks like a metric.
    """
    wanted = TEXT if name in PACKED else type_of(name)
    if wanted is None:
        return decoded(column)
    if pc.all(column.is_null(nan_is_null=True)).as_py() is not False:  # libraries give such a column any type
        return pa.nulls(len(column), wanted)
    column = decoded(column)
    try:
        return _cast_to_text(name, column) if wanted == TEXT else _cast_values(name, column, wanted)
    except pa.ArrowException as error:  # the right kind, but out of range
        if wanted == INTEGER:
            raise ValueError(f"a number in column '{shortened(name)}' is not a whole number") from None
        raise ValueError(f"column '{shortened(name)}': {shortened(str(error))}") from None
    except ValueError:
        if name in FIXED or name in PACKED:
            raise
        return column


def _cast_to_text(name: str, column: Column) -> Column:
    kind = column.type
    if _kind(kind) == "bytes":  # some files do not declare their text as text
        try:
            return column.cast(TEXT)
        except pa.ArrowInvalid as error:
            raise ValueError(str(error)) from None
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):  # the library parsed the text
        return pa.array([None if time is None else time.isoformat() for time in column.to_pylist()], TEXT)
    column = _cast(name, column, TEXT)
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, TEXT), column) if name in IDENTITY else column


def _cast_values(name: str, column: Column, wanted: pa.DataType) -> Column:
    """Cast a column to a type other than text, from the forms that CSV files and other libraries have for it."""
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
    """Cast to a type of the same kind, or raise ValueError. In columns of `FIXED`, empty lists are of any kind."""
    actual, expected = _kind(column.type), _kind(wanted)
    is_empty = name in FIXED and _is_list(column.type) and pa.types.is_null(column.type.value_type)
    if actual != expected and not (is_empty and _is_list(wanted)):
        raise ValueError(f"column '{shortened(name)}' holds {shortened(actual)} instead of {expected}")
    return column.cast(wanted)


def decoded(column: Column) -> Column:
    """Resolve encodings of a column's values, also in lists: dictionaries (categories), views, extension types."""
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
    return {pa.string_view(): TEXT, pa.binary_view(): BYTES}.get(kind, kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _kind(type_: pa.DataType) -> str:
    """The kind of values in words. Types of the same kind differ only in width and encoding."""
    types = pa.types
    if _is_list(type_):
        return f"lists of {_kind(type_.value_type)}"
    if types.is_string(type_) or types.is_large_string(type_):
        return "text"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "numbers"
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
        return "bytes"
    if types.is_boolean(type_):
        return "truth values"
    return "nothing" if types.is_null(type_) else str(type_)

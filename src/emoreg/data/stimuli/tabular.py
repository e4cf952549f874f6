"""Tables as people write them: CSV, JSON, JSON Lines and Parquet. Each row comes with its file and number."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from emoreg.data.images.files import MAX_ENTRIES, File
from emoreg.errors import UserError, nearest, shortened
from emoreg.runtime.optional import importing


def read_rows(
    sheet: File, columns: Sequence[str] = (), delimiter: str = ",", quote: str = '"'
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a table with a header, whatever its line ends; keys and values without outer blanks.

    Args:
        sheet: the file; in UTF-8 or UTF-16 with a byte-order mark, in UTF-8 without, or else in Windows-1252.
        columns: required columns; case matters, brackets around a header do not (Emotion6 has them).
        delimiter: character between fields.
        quote: character around fields.

    Raises:
        UserError: an unreadable file, a column that is missing (the nearest is named) or repeated, a
            row of another length, no rows.
    """
    table = _cells(sheet, delimiter, quote)
    header = [" ".join(name.strip(" []").split()) for name in table[0]] if table else []
    for column in columns:
        if column not in header:
            raise UserError(f"{sheet}: no column '{column}'{nearest(column, filter(None, header))}")
    for column in filter(None, header):
        if header.count(column) > 1:
            raise UserError(f"{sheet}: the column '{column}' occurs {header.count(column)} times; keep one")
    count = 0
    for number, cells in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{sheet}, row {number}"
        if len(cells) != len(header):
            raise UserError(f"{place}: {len(cells)} fields, but the header has {len(header)}")
        count += 1
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    if count == 0:
        raise UserError(f"{sheet} has no rows")


def _cells(sheet: File, delimiter: str, quote: str) -> list[list[str]]:
    content = sheet.read()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise UserError(f"{sheet} is not text in UTF-8 or Windows-1252; save it as UTF-8")
    # newline="": any line end closes a row, but stays as it is within quotes
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, skipinitialspace=True, strict=True
    )
    try:
        return list(reader)
    except csv.Error as error:  # strict: a quote that is never closed would swallow the rest of the file
        raise UserError(f"{sheet}, line {reader.line_num}: not a table: {error}; check the quotes") from None


def read_json(sheet: File) -> Any:
    """What a JSON file holds. UserError if it is none."""
    try:
        return json.loads(sheet.read())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{sheet} is not JSON: {error}") from None


def read_lines(sheet: File) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of JSON Lines, one object per line; null is "". UserError names a line that is not."""
    for number, line in enumerate(sheet.read().split(b"\n"), start=1):
        place = f"{sheet}, row {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f'{place} must be an object, as {{"path": "a.jpg", "emotion": "awe"}}')
        yield place, {column: _cell(value) for column, value in row.items()}


def read_parquet(sheet: File) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a Parquet file; null is "", and columns of lists, structures or bytes are "" throughout.

    Raises:
        UserError: it is none, or pyarrow is not installed.
    """
    with importing("pyarrow", f"{sheet}: Parquet", "pyarrow, or write CSV or JSON Lines"):
        from pyarrow import parquet, types
    try:
        file = parquet.ParquetFile(io.BytesIO(sheet.read()))
        # A few bytes can stand for any number of equal rows.
        if file.metadata.num_rows > MAX_ENTRIES:
            raise ValueError(f"it has {file.metadata.num_rows:,} rows; the limit is {MAX_ENTRIES:,}")
        fields = list(file.schema_arrow)
        nested = [f.name for f in fields if types.is_nested(f.type) or types.is_binary(f.type)]  # such as the images
        rows = file.read(columns=[f.name for f in fields if f.name not in nested]).to_pylist()
    except UserError:
        raise
    except Exception as error:  # damaged, it makes Arrow raise almost anything
        reason = shortened(str(error) or type(error).__name__, 200)
        raise UserError(f"{sheet} is not Parquet: {reason}") from None
    for number, row in enumerate(rows, start=1):
        yield f"{sheet}, row {number}", {c: _cell(v) for c, v in row.items()} | dict.fromkeys(nested, "")


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()

"""Read tables in the variants that people write: CSV, JSON, JSON Lines and Parquet.

Readers give (place, row) pairs. The place is the file and the row's number, for messages.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from emoreg.data.images.files import MAX_ENTRIES, File
from emoreg.data.images.names import composed
from emoreg.errors import UserError, nearest, shortened
from emoreg.runtime.optional import importing

SEPARATORS = (",", ";", "\t", "|")


def read_rows(
    sheet: File, columns: Sequence[str] = (), delimiter: str = ",", quote: str = '"'
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a table with a header and any line ends. Keys and values are stripped.

    Args:
        sheet: the file, in UTF-8, UTF-16 with a byte-order mark, or else Windows-1252.
        columns: required columns; case matters, brackets around a header do not (Emotion6 has them).
        delimiter: character between fields.
        quote: character around fields.

    Raises:
        UserError: an unreadable file, a column that is missing (names the closest match) or repeated, a row of another
            length than the header, no rows.
    """
    yield from _rows(sheet, _parse(sheet, _text(sheet), delimiter, quote), 0, columns, delimiter)


def read_any_rows(sheet: File, column: str) -> tuple[str, Iterator[tuple[str, dict[str, str]]]]:
    """Detect the separator of a table whose header has `column`; return it and the rows as from `read_rows`.

    Blank lines above the header, and Excel's `sep=;`, are skipped. csv.Sniffer is not used: it guesses from character
    frequencies, and takes letters for separators in a table of one column.

    Raises:
        UserError: see `read_rows`.
    """
    text = _text(sheet)
    blank = "".join(SEPARATORS) + ' "'
    header = next((line for line in text.splitlines() if line.strip(blank)), "")
    declared = re.fullmatch(r"""\s*["']?sep=(.)["']?\s*""", header)
    if declared:
        separator = declared[1]
    else:
        names = {
            each: [_name(cell).lower() for cell in next(csv.reader([header], delimiter=each), [])]
            for each in SEPARATORS
        }
        separator = max(SEPARATORS, key=lambda each: (column in names[each], len(names[each])))
    table = _parse(sheet, text, separator, '"')
    first = next((number for number, cells in enumerate(table) if any(cell.strip() for cell in cells)), 0)
    return separator, _rows(sheet, table, first + 1 if declared else first, (), separator)


def _name(cell: str) -> str:
    """Normalise a column's name: no surrounding brackets, single spaces, NFC."""
    return composed(" ".join(cell.strip(" []").split()))


def _rows(
    sheet: File, table: Sequence[Sequence[str]], header_row: int, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows below the header, by column."""
    numbered = enumerate(table[header_row + 1 :], start=header_row + 2)
    rows = [(number, cells) for number, cells in numbered if any(cell.strip() for cell in cells)]
    if not rows:
        raise UserError(f"{sheet} has no rows")
    header = _header(sheet, table[header_row], columns)
    for number, cells in rows:
        place = f"{sheet}, row {number}"
        if len(cells) != len(header):
            hint = f"; put a value that contains '{delimiter}' in quotes" if len(cells) > len(header) else ""
            raise UserError(f"{place}: {len(cells)} fields, but the header has {len(header)}{hint}")
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _header(sheet: File, cells: Sequence[str], required: Sequence[str]) -> list[str]:
    """The columns, "" for unnamed ones. UserError if there are none, a required one is missing, or one is repeated."""
    header = [_name(cell) for cell in cells]
    named = [column for column in header if column]
    if not named:
        raise UserError(f"{sheet}: the header names no columns")
    for column in required:
        if column not in header:
            raise UserError(f"{sheet}: no column '{column}'{nearest(column, named)}")
    for column, count in Counter(named).items():
        if count > 1:
            raise UserError(f"{sheet}: the column '{column}' occurs {count} times; keep one")
    return header


def _text(sheet: File) -> str:
    content = sheet.read()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{sheet} is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def _parse(sheet: File, text: str, delimiter: str, quote: str) -> list[list[str]]:
    # newline="": any line end closes a row; within quotes it is kept as it is
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, skipinitialspace=True, strict=True
    )
    try:
        return list(reader)
    except csv.Error as error:  # strict: a quote that is never closed would swallow the rest of the file
        raise UserError(f"{sheet}, line {reader.line_num}: not a table: {error}; check the quotes") from None


def read_json(sheet: File) -> Any:
    """The content of a JSON file. UserError if it is not JSON."""
    try:
        return json.loads(sheet.read())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{sheet} is not JSON: {error}") from None


def read_objects(sheet: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read JSON Lines, with one object per line, or a list of objects (.json). UserError names the first bad row."""
    content = sheet.read()
    rows: Iterable[tuple[int, Any]]
    if sheet.name.lower().endswith(".json") and content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        rows = enumerate(_parse_row(f"{sheet}, row 1", content), start=1)
    else:
        lines = enumerate(content.split(b"\n"), start=1)
        rows = ((number, _parse_row(f"{sheet}, row {number}", line)) for number, line in lines if line.strip())
    for number, row in rows:
        place = f"{sheet}, row {number}"
        if not isinstance(row, dict):
            raise UserError(f'{place} must be an object, such as {{"path": "a.jpg", "emotion": "awe"}}')
        yield place, row


def _parse_row(place: str, content: bytes) -> Any:
    try:  # decoded here, because `json` would take lines of UTF-16, which are cut within characters, for another text
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON: {error}") from None


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with duplicate keys, of which Python would keep the last."""
    duplicate = _duplicate(key for key, _ in pairs)
    if duplicate is not None:
        raise ValueError(f"the key {duplicate!r} occurs twice in an object")
    return dict(pairs)


def _duplicate(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def read_parquet(sheet: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a Parquet file. Columns of lists, structures or bytes are read as "".

    Raises:
        UserError: it is not a Parquet file, or pyarrow is not installed.
    """
    with importing("pyarrow", f"{sheet}: Parquet", "pyarrow, or write CSV or JSON Lines"):
        from pyarrow import parquet, types
    try:
        file = parquet.ParquetFile(io.BytesIO(sheet.read()))
        # A few bytes can encode any number of equal rows.
        if file.metadata.num_rows > MAX_ENTRIES:
            raise ValueError(f"it has {file.metadata.num_rows:,} rows; the limit is {MAX_ENTRIES:,}")
        fields = list(file.schema_arrow)
        duplicate = _duplicate(field.name for field in fields)
        if duplicate is not None:
            raise UserError(f"{sheet}: the column '{duplicate}' occurs twice; keep one")
        nested = [f.name for f in fields if types.is_nested(f.type) or types.is_binary(f.type)]  # such as the images
        rows = file.read(columns=[f.name for f in fields if f.name not in nested]).to_pylist()
    except UserError:
        raise
    except Exception as error:  # Arrow raises almost anything for a damaged file
        reason = shortened(str(error) or type(error).__name__, 200)
        raise UserError(f"{sheet} is not Parquet: {reason}") from None
    for number, row in enumerate(rows, start=1):
        yield f"{sheet}, row {number}", row | dict.fromkeys(nested, "")

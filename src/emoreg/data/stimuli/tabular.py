"""Tables as people write them: CSV, JSON, JSON Lines and Parquet. Each row comes with its file and number."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from emoreg.data.images.files import MAX_ENTRIES, File
from emoreg.data.images.names import composed
from emoreg.errors import UserError, nearest, shortened
from emoreg.runtime.optional import importing

SEPARATORS = (",", ";", "\t", "|")


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
    table = _cells(sheet, _text(sheet), delimiter, quote)
    yield from _rows(sheet, table, columns, delimiter)


def read_any_rows(sheet: File, column: str) -> tuple[str, Iterator[tuple[str, dict[str, str]]]]:
    """The separator of a table whose header has `column`, and its (place, row) as `read_rows` gives them.

    Blank lines above the header, and Excel's `sep=;`, are no rows. Not csv.Sniffer: it guesses from how often a
    character stands, and finds letters in a table of one column; a known column leaves nothing to guess.

    Raises:
        UserError: as `read_rows`; the column is in no header, whichever of SEPARATORS is between the fields.
    """
    text = _text(sheet)
    above, header = 0, ""
    for line in text.splitlines():
        if line.strip("".join(SEPARATORS) + ' "'):
            header = line
            break
        above += 1
    told = re.fullmatch(r"""\s*["']?sep=(.)["']?\s*""", header)
    if told:
        separators: Sequence[str] = (told[1],)
        header = "".join(text.splitlines()[above + 1 : above + 2])
    else:
        separators = SEPARATORS
    names = {one: [_name(cell).lower() for cell in next(csv.reader([header], delimiter=one), [])] for one in separators}
    separator = next(
        (one for one in separators if column in names[one]), max(separators, key=lambda one: len(names[one]))
    )
    table = _cells(sheet, text, separator, '"')
    blank = next((number for number, cells in enumerate(table) if any(cell.strip() for cell in cells)), 0)
    return separator, _rows(sheet, table, (), separator, blank + bool(told))


def _name(cell: str) -> str:
    """A column's name without outer blanks and brackets, in one Unicode form."""
    return composed(" ".join(cell.strip(" []").split()))


def _rows(
    sheet: File, table: Sequence[Sequence[str]], columns: Sequence[str], delimiter: str, above: int = 0
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) below the header, which has so many rows above it."""
    header = [_name(cell) for cell in table[above]] if len(table) > above else []
    for column in columns:
        if column not in header:
            raise UserError(f"{sheet}: no column '{column}'{nearest(column, filter(None, header))}")
    for column in filter(None, header):
        if header.count(column) > 1:
            raise UserError(f"{sheet}: the column '{column}' occurs {header.count(column)} times; keep one")
    count = 0
    for number, cells in enumerate(table[above + 1 :], start=above + 2):
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{sheet}, row {number}"
        if len(cells) != len(header):
            hint = f"; a value with '{delimiter}' in it stands between quotes" if len(cells) > len(header) else ""
            raise UserError(f"{place}: {len(cells)} fields, but the header has {len(header)}{hint}")
        count += 1
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    if count == 0:
        raise UserError(f"{sheet} has no rows")


def _text(sheet: File) -> str:
    content = sheet.read()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{sheet} is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def _cells(sheet: File, text: str, delimiter: str, quote: str) -> list[list[str]]:
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


def read_objects(sheet: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of JSON Lines, one object per line, or one list of objects (.json). UserError names what is none."""
    content = sheet.read()
    if sheet.name.lower().endswith(".json") and content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        try:
            rows = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{sheet}, row 1 is not JSON: {error}") from None
        for number, row in enumerate(rows, start=1):
            yield _object(f"{sheet}, row {number}", row)
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        place = f"{sheet}, row {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON: {error}") from None
        yield _object(place, row)


def _object(place: str, row: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, dict):
        raise UserError(f'{place} must be an object, as {{"path": "a.jpg", "emotion": "awe"}}')
    return place, row


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key that stands twice, of which Python would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} occurs twice in an object")
    return found


def read_parquet(sheet: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a Parquet file; columns of lists, structures or bytes are "" throughout.

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
        twice = [f.name for number, f in enumerate(fields) if f.name in {other.name for other in fields[:number]}]
        if twice:
            raise UserError(f"{sheet}: the column '{twice[0]}' occurs twice; keep one")
        nested = [f.name for f in fields if types.is_nested(f.type) or types.is_binary(f.type)]  # such as the images
        rows = file.read(columns=[f.name for f in fields if f.name not in nested]).to_pylist()
    except UserError:
        raise
    except Exception as error:  # damaged, it makes Arrow raise almost anything
        reason = shortened(str(error) or type(error).__name__, 200)
        raise UserError(f"{sheet} is not Parquet: {reason}") from None
    for number, row in enumerate(rows, start=1):
        yield f"{sheet}, row {number}", row | dict.fromkeys(nested, "")

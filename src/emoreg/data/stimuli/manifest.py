"""Any stimuli, listed in one manifest: a text table (.csv, .tsv, .txt), JSON, JSON Lines or Parquet file.

| column | content |
|---|---|
| `path` | path of the image, relative to the manifest's folder; may be absolute unless the manifest is in a zip |
| `emotion` | the category, in the first of Mikels-8, Ekman-6, Ekman-6 with neutral and polarity that has all, if any |
| `p_<emotion>` | votes or probabilities, 0 or more; see below |
| `valence`, `arousal`, `dominance` | in [-1, 1], with 0 in the middle of the rating scale |
| `split` | train, validation (val, valid, dev) or test |

Only `path` and one kind of label are required. A column that exists must have a value in each row. Other columns are
ignored, except that a name close to a known one is an error. Fields may be separated by commas, semicolons, tabs or
bars. If the separator is not a comma, numbers may have decimal commas.

Columns `p_...` are emotions if all of them are known emotions. They also are if there are two or more and each row sums
to about 1, or to a number of votes that differs between rows by at most a factor of two. `p_value` alone is ignored.
"""

from __future__ import annotations

import difflib
import json
import math
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from emoreg.data.images.files import File
from emoreg.data.images.names import SPLITS, Split, composed
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import (
    VALENCE_AROUSAL_DOMINANCE,
    EmotionSpace,
    emotion_index,
    emotion_names,
    is_known,
    refuse_misspelt,
)
from emoreg.data.stimuli.set_reader import SetReader, number, path_key, votes
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.data.stimuli.tabular import read_any_rows, read_objects, read_parquet
from emoreg.errors import UserError, nearest, shortened

ABOUT = About(
    title="Your images, listed in a manifest",
    size="any",
    labels="emotion, votes or probabilities, valence, arousal, dominance",
    licence="yours to know",
    source="your own",
    layout="manifest.csv|tsv|json|jsonl|parquet (path, emotion, p_<emotion>, valence, arousal, dominance, split)",
)
DIMENSIONS = VALENCE_AROUSAL_DOMINANCE.names
COLUMNS = ("path", "emotion", *DIMENSIONS, "split")
NAMED = {";": "semicolons", "\t": "tabs", "|": "bars"}
TEXT = ("path", "emotion", "split")  # other known columns hold numbers
SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
MANIFESTS = tuple(f"manifest{suffix}" for suffix in SUFFIXES)
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")  # some are zips, and would pass as a zipped set
SCALE = "; map the ratings to it first, e.g. (x - 5) / 4 from 1..9"

Row = tuple[str, Mapping[str, str]]  # the place and the cells
_Listings = dict[Path, dict[str, list[str]]]  # names of the entries of each folder listed so far, by `path_key`


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the images and labels of a manifest.

    Args:
        root: the manifest, or a folder or zip that holds one, named "manifest" with one of SUFFIXES.
        skip_missing: skip rows whose image is missing; if false, the first one is an error.

    Raises:
        UserError: see `read_manifest`.
    """
    return read_manifest("manifest", root, skip_missing)


def is_manifest(root: str) -> bool:
    """Whether the root of a set is a manifest, and not a folder or zip that may hold one."""
    return Path(root).is_file() and Path(root).suffix.lower() != ".zip"


def read_manifest(name: str, root: str | None, skip_missing: bool) -> Stimuli:
    """Read the set `name` from its manifest, with labels in the order votes, category, dimensions.

    Raises:
        UserError: no manifest or more than one, no labels, a value out of range, an image that is missing or
            listed twice, a path that leaves the zip; names file, row and column.
    """
    reader = SetReader(name, root, skip_missing)
    sheet = _sheet(reader)
    separator, table = _read_table(sheet)
    columns = list(dict.fromkeys(column for _, row in table for column in row))
    _check_columns(sheet, columns)
    notes = []
    if separator not in (None, ","):
        notes.append(f"{sheet}: fields are separated by {NAMED[separator]}, and numbers may have decimal commas")
    vote_columns, note = _vote_columns(sheet, table, [column for column in columns if column.startswith("p_")])
    if note:
        notes.append(note)
    spaces = list(_spaces(table, columns, vote_columns))
    if not spaces:
        hint = f" ({note})" if note else ""
        raise UserError(f"{sheet} has no labels: no emotion, p_<emotion>, valence, arousal or dominance{hint}")
    listings: _Listings = {}
    for place, row in table:
        labels = [_label((place, row), space, vote_columns.values()) for space in spaces]
        path = row.get("path", "")
        image = _find(reader, sheet, place, path, listings)
        reader.add(place, path, image, *labels, split=_split(place, row.get("split", "")))
    return reader.stimuli(*spaces, notes=notes)


def _spaces(table: Sequence[Row], columns: Sequence[str], vote_columns: Mapping[str, str]) -> Iterator[EmotionSpace]:
    if vote_columns:
        yield EmotionSpace("votes", tuple(vote_columns))
    if "emotion" in columns:
        words = {row["emotion"]: place for place, row in reversed(table) if row.get("emotion")}
        yield EmotionSpace("category", emotion_names(words))
    dimensions = tuple(column for column in DIMENSIONS if column in columns)
    if dimensions:
        yield EmotionSpace("dimensions", dimensions)


def _label(row: Row, space: EmotionSpace, vote_columns: Iterable[str]) -> int | Sequence[float]:
    place, cells = row
    if space.kind == "category":
        return emotion_index(cells.get("emotion", ""), space.names, place)
    if space.kind == "dimensions":
        return [number(place, column, cells.get(column, ""), -1, 1, SCALE) for column in space.names]
    return votes(place, cells, vote_columns)


def _sheet(reader: SetReader) -> File:
    """The manifest: the root itself, or a file in it. UserError if the root is another kind of file."""
    root = Path(reader.root)
    suffix = root.suffix.lower()
    if root.is_dir():
        return reader.sheet(*MANIFESTS)
    if suffix in SUFFIXES:
        return File(root.name, root.parent)
    if suffix in SPREADSHEETS or (suffix != ".zip" and root.is_file() and not zipfile.is_zipfile(root)):
        raise UserError(f"{root} is not a manifest; save the table as one of {', '.join(SUFFIXES)}")
    return reader.sheet(*MANIFESTS)


def _read_table(sheet: File) -> tuple[str | None, list[Row]]:
    """The separator of a text table (else None), and the rows by lower-case column names."""
    suffix, separator = Path(sheet.name).suffix.lower(), None
    rows: Iterable[tuple[str, Mapping[str, object]]]
    if suffix == ".parquet":
        rows = read_parquet(sheet)
    elif suffix in (".json", ".jsonl"):
        rows = read_objects(sheet)
    else:
        separator, rows = read_any_rows(sheet, "path")
    decimal_commas = separator not in (None, ",")
    return separator, [(place, _cells(place, row, decimal_commas)) for place, row in rows]


def _cells(place: str, row: Mapping[str, object], decimal_commas: bool) -> dict[str, str]:
    cells: dict[str, str] = {}
    for column, value in row.items():
        name = composed(" ".join(column.split())).lower()
        is_read = name in COLUMNS or name.startswith("p_")
        if name in cells and is_read:
            raise UserError(f"{place}: {column!r} is a second column '{name}'; keep one")
        if name in TEXT and value is not None and not isinstance(value, str):
            raise UserError(f"{place}: {name} must be text, not {shortened(json.dumps(value, default=str))}")
        text = "" if value is None else str(value).strip()
        is_number = is_read and name not in TEXT
        if decimal_commas and is_number and re.fullmatch(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?", text):
            text = text.replace(",", ".")
        cells[name] = text
    return cells


def _check_columns(sheet: File, columns: Sequence[str]) -> None:
    """Raise UserError if there are no rows or no column `path`, or a column looks like a misspelt known one."""
    if not columns:
        raise UserError(f"{sheet} has no rows")
    for column in columns:
        if column in COLUMNS or column.startswith("p_"):
            continue
        close = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.85)
        if close and not column.startswith(f"{close[0]}_"):  # valence_n is not a misspelling
            raise UserError(f"{sheet}: unknown column {column!r}; did you mean '{close[0]}'?")
    if "path" not in columns:
        raise UserError(f"{sheet}: no column 'path'{nearest('path', filter(None, columns))}")


def _vote_columns(sheet: File, table: Sequence[Row], columns: Sequence[str]) -> tuple[dict[str, str], str]:
    """The column of votes for each emotion of the space ("" if missing), and a note on how `columns` were interpreted.

    Empty if `columns` are not emotions.
    """
    if not columns:
        return {}, ""
    words = {column[2:]: f"{sheet}, {column}" for column in columns}
    unknown = [column for column in columns if not is_known(column[2:])]
    if unknown:
        refuse_misspelt(words)
        if not _are_votes(table, columns):
            listed = " and ".join(f"'{column}'" for column in unknown)
            why = f"{listed}: not a known emotion, and neither shares that sum to 1 nor votes with similar totals"
            if len(unknown) < len(columns):
                raise UserError(f"{sheet}: {why}; remove the prefix p_ from columns that are not emotions")
            return {}, f"{why}; ignored"
    names = emotion_names(words)
    column_of = dict.fromkeys(names, "")
    for column in columns:
        name = names[emotion_index(column[2:], names, str(sheet))]
        if column_of[name]:
            raise UserError(f"{sheet}: the columns '{column_of[name]}' and '{column}' are the same emotion; keep one")
        column_of[name] = column
    return column_of, f"{sheet}: {', '.join(columns)} are votes for emotions, or their probabilities"


def _are_votes(table: Sequence[Row], columns: Sequence[str]) -> bool:
    """Whether two or more columns are probabilities, or votes whose sums differ by at most a factor of two."""
    try:
        rows = [[float(row.get(column, "")) for column in columns] for _, row in table]
    except ValueError:
        return False
    if len(columns) < 2 or not all(0 <= share < math.inf for row in rows for share in row):
        return False
    sums = [sum(row) for row in rows]
    are_votes = all(share == int(share) for row in rows for share in row) and 0 < max(sums) <= 2 * min(sums)
    return are_votes or all(abs(total - 1) <= 0.02 for total in sums)


def _split(place: str, text: str) -> Split | None:
    if text and text.lower() not in SPLITS:
        raise UserError(f"{place}: no split {text!r}{nearest(text.lower(), SPLITS)}")
    return SPLITS[text.lower()] if text else None


def _find(reader: SetReader, sheet: File, place: str, path: str, listings: _Listings) -> File | None:
    """The image at `path` relative to the manifest's folder, ignoring case and Unicode form; None if missing.

    Raises:
        UserError: the path is empty, leaves a zip, or matches several files.
    """
    if not path:
        raise UserError(f"{place}: path is empty")
    path = posixpath.normpath(path.replace("\\", "/"))
    inner = posixpath.dirname(sheet.name)
    if not sheet.root.is_dir():
        whole = posixpath.normpath(posixpath.join(inner, path))
        if whole.startswith(("/", "../")):
            raise UserError(f"{place}: the path {path!r} leaves the zip; images must be in it")
        return reader.find(whole)
    folder = sheet.root / inner  # not searched as a whole: a manifest may be beside a million unrelated files
    try:
        actual = path if (folder / path).is_file() else _match(place, folder, path, listings)
        if actual is None or not (folder / actual).is_file():
            return None
    except (OSError, ValueError):  # a name that is too long, or has a null byte
        return None
    if actual.startswith("../") or Path(actual).is_absolute():
        return File((folder / actual).name, (folder / actual).parent)
    return File(actual, folder)


def _match(place: str, folder: Path, path: str, listings: _Listings) -> str | None:
    """The existing path below `folder` that equals `path` except for case and Unicode form; None if there is none."""
    matched = PurePosixPath("/" if path.startswith("/") else "")
    for part in PurePosixPath(path).parts:
        parent = folder / matched
        if part in ("/", "..") or (parent / part).exists():
            matched /= part
            continue
        if parent not in listings:
            names: dict[str, list[str]] = {}
            for entry in parent.iterdir():
                names.setdefault(path_key(entry.name), []).append(entry.name)
            listings[parent] = names
        matches = listings[parent].get(path_key(part), [])
        if len(matches) > 1:
            raise UserError(
                f"{place}: {part!r} matches both {matches[0]!r} and {matches[1]!r} in {parent}; use the exact name"
            )
        if not matches:
            return None
        matched /= matches[0]
    return str(matched)

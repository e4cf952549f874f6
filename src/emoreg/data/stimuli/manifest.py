"""Any stimuli, listed in one manifest: a text table (.csv, .tsv, .txt), JSON, JSON Lines or Parquet file.

| column | what it is |
|---|---|
| `path` | of the image, from the manifest's folder; absolute only where the manifest is no part of a zip |
| `emotion` | the category; Mikels-8, Ekman-6 (with neutral or without) or polarity if one of these knows all |
| `p_<emotion>` | votes or probabilities, 0 or more; see below |
| `valence`, `arousal`, `dominance` | in [-1, 1], with 0 in the middle of the scale that people rated on |
| `split` | train, validation (val, valid, dev) or test |

Only `path` and one kind of label are needed. A column that is there has a value in each row. Other columns are
not read, but one whose name is nearly a known one is an error. Fields may stand between commas, semicolons, tabs or
bars; where it is no comma, numbers may have a decimal comma.

Columns `p_...` are emotions where all of them are known ones, or where two or more add up to about 1 in every row or
are votes of about as many people in each. `p_value` alone is none, and is not read.
"""

from __future__ import annotations

import difflib
import json
import math
import posixpath
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
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
TEXT = ("path", "emotion", "split")  # all else is a number, or is not read
SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
MANIFESTS = tuple(f"manifest{suffix}" for suffix in SUFFIXES)
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")  # some are zips, and would be taken for a set
SCALE = "; map the ratings to it first, e.g. (x - 5) / 4 from 1..9"

Row = tuple[str, Mapping[str, str]]  # the place and the cells
_Listed = dict[Path, dict[str, list[str]]]  # of folders that were listed: the names by `path_key`


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Images with the labels that the manifest gives them.

    Args:
        root: the manifest, or a folder or zip that holds one, named manifest with one of SUFFIXES.
        skip_missing: skip rows whose image is missing, instead of stopping at the first.

    Raises:
        UserError: as `read_manifest`.
    """
    return read_manifest("manifest", root, skip_missing)


def read_manifest(name: str, root: str | None, skip_missing: bool) -> Stimuli:
    """The set `name` as its manifest lists it; labels in the order votes, category, dimensions.

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

    shares, told = _emotions_of_shares(sheet, table, [column for column in columns if column.startswith("p_")])
    notes += [told] if told else []
    dimensions = tuple(column for column in DIMENSIONS if column in columns)
    emotions: tuple[str, ...] = ()
    if "emotion" in columns:
        emotions = emotion_names({row["emotion"]: place for place, row in reversed(table) if row.get("emotion")})
    spaces = [EmotionSpace("votes", tuple(shares))] if shares else []
    spaces += [EmotionSpace("category", emotions)] if emotions else []
    spaces += [EmotionSpace("dimensions", dimensions)] if dimensions else []
    if not spaces:
        hint = f" ({told})" if told else ""
        raise UserError(f"{sheet} has no labels: no emotion, p_<emotion>, valence, arousal or dominance{hint}")

    listed: _Listed = {}
    for place, row in table:
        labels: list[int | Sequence[float]] = []
        if shares:
            given_shares = [number(place, c, row.get(c, ""), 0, math.inf) if c else 0 for c in shares.values()]
            labels.append(votes(place, given_shares))
        if emotions:
            labels.append(emotion_index(row.get("emotion", ""), emotions, place))
        if dimensions:
            labels.append([number(place, column, row.get(column, ""), -1, 1, SCALE) for column in dimensions])
        path = row.get("path", "")
        reader.add(
            place, path, _find(reader, sheet, place, path, listed), *labels, split=_split(place, row.get("split", ""))
        )
    return reader.stimuli(*spaces, notes=notes)


def _sheet(reader: SetReader) -> File:
    """The manifest: the root itself, or a file in it. UserError for a file of another kind."""
    given = Path(reader.root)
    suffix = given.suffix.lower()
    if given.is_dir():
        return reader.sheet(*MANIFESTS)
    if suffix in SUFFIXES:
        return File(given.name, given.parent)
    if suffix in SPREADSHEETS or (suffix != ".zip" and given.is_file() and not zipfile.is_zipfile(given)):
        raise UserError(f"{given} is no manifest; save the table as one of {', '.join(SUFFIXES)}")
    return reader.sheet(*MANIFESTS)


def _read_table(sheet: File) -> tuple[str | None, list[Row]]:
    """The separator of a text table, and the rows by their columns' names in small letters."""
    suffix, separator = Path(sheet.name).suffix.lower(), None
    rows: Iterable[tuple[str, Mapping[str, object]]]
    if suffix == ".parquet":
        rows = read_parquet(sheet)
    elif suffix in (".json", ".jsonl"):
        rows = read_objects(sheet)
    else:
        separator, rows = read_any_rows(sheet, "path")
    has_commas = separator not in (None, ",")
    return separator, [(place, _cells(place, row, has_commas)) for place, row in rows]


def _cells(place: str, row: Mapping[str, object], has_commas: bool) -> dict[str, str]:
    cells: dict[str, str] = {}
    for column, value in row.items():
        name = composed(" ".join(column.split())).lower()
        is_read = name in COLUMNS or name.startswith("p_")
        if name in cells and is_read:
            raise UserError(f"{place}: {column!r} is a second column '{name}'; keep one")
        if name in TEXT and value is not None and not isinstance(value, str):
            raise UserError(f"{place}: {name} must be text, not {shortened(json.dumps(value, default=str))}")
        text = "" if value is None else str(value).strip()
        if has_commas and is_read and name not in TEXT and re.fullmatch(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?", text):
            text = text.replace(",", ".")
        cells[name] = text
    return cells


def _check_columns(sheet: File, columns: Sequence[str]) -> None:
    """UserError if there is no path (or no row), or a column is nearly a known one."""
    if not columns:
        raise UserError(f"{sheet} has no rows")
    for column in columns:
        if column in COLUMNS or column.startswith("p_"):
            continue
        close = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.85)
        if close and not column.startswith(f"{close[0]}_"):  # valence_n is somebody's own
            raise UserError(f"{sheet}: unknown column {column!r}; did you mean '{close[0]}'?")
    if "path" not in columns:
        raise UserError(f"{sheet}: no column 'path'{nearest('path', filter(None, columns))}")


def _emotions_of_shares(sheet: File, table: Sequence[Row], columns: Sequence[str]) -> tuple[dict[str, str], str]:
    """The emotions of the space, with the column of each one's votes ("" for none); what the columns were taken for."""
    if not columns:
        return {}, ""
    words = {column[2:]: f"{sheet}, {column}" for column in columns}
    strange = [column for column in columns if not is_known(column[2:])]
    if strange:
        refuse_misspelt(words)
        if not _are_shares(table, columns):
            listed = " and ".join(f"'{column}'" for column in strange)
            why = f"{listed}: no known emotion, and no shares that add up to 1 or votes of about as many people"
            if len(strange) < len(columns):
                raise UserError(f"{sheet}: {why}; rename what is no emotion, so that it does not begin with p_")
            return {}, f"{why}; not read"
    names = emotion_names(words)
    found: dict[str, str] = dict.fromkeys(names, "")
    for column in columns:
        name = names[emotion_index(column[2:], names, str(sheet))]
        if found[name]:
            raise UserError(f"{sheet}: the columns '{found[name]}' and '{column}' are the same emotion; keep one")
        found[name] = column
    return found, f"{sheet}: {', '.join(columns)} are votes for emotions, or their probabilities"


def _are_shares(table: Sequence[Row], columns: Sequence[str]) -> bool:
    """Whether two or more columns are probabilities, or votes of which no row has twice as many as another."""
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


def _find(reader: SetReader, sheet: File, place: str, path: str, listed: _Listed) -> File | None:
    """The image at `path`, from the manifest's folder, whatever the case and Unicode form of its letters.

    Raises:
        UserError: an empty path, one that leaves a zip, or that fits several files.
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
    folder = sheet.root / inner  # not listed as a whole: a manifest may stand beside a million other files
    try:
        written = path if (folder / path).is_file() else _like(place, folder, path, listed)
        if written is None or not (folder / written).is_file():
            return None
    except (OSError, ValueError):  # a name that is too long, or has a null byte
        return None
    outside = written.startswith("../") or Path(written).is_absolute()
    return File((folder / written).name, (folder / written).parent) if outside else File(written, folder)


def _like(place: str, folder: Path, path: str, listed: _Listed) -> str | None:
    """The path that is there, and differs in nothing but case or Unicode form; None without one."""
    found = PurePosixPath("/" if path.startswith("/") else "")
    for part in PurePosixPath(path).parts:
        here = folder / found
        if part in ("/", "..") or (here / part).exists():
            found /= part
            continue
        if here not in listed:
            names: dict[str, list[str]] = {}
            for entry in here.iterdir():
                names.setdefault(path_key(entry.name), []).append(entry.name)
            listed[here] = names
        like = listed[here].get(path_key(part), [])
        if len(like) > 1:
            raise UserError(f"{place}: {part!r} may be {like[0]!r} or {like[1]!r} in {here}; write it as it is there")
        if not like:
            return None
        found /= like[0]
    return str(found)

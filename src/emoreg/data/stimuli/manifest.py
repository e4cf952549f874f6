"""Any stimuli, listed in one manifest: a CSV (UTF-8, commas), JSON Lines or Parquet file.

| column | what it is |
|---|---|
| `path` | of the image, from the manifest's folder; absolute only where the manifest is no part of a zip |
| `emotion` | the category; Mikels-8, Ekman-6 (with neutral or without) or polarity if one of these knows all |
| `p_<emotion>` | votes or probabilities, 0 or more |
| `valence`, `arousal`, `dominance` | in [-1, 1], with 0 in the middle of the scale that people rated on |
| `split` | train, validation (val, valid, dev) or test |

Only `path` and one kind of label are needed. A column that is there has a value in each row. Other columns are
not read, but one whose name is nearly a known one is an error.
"""

from __future__ import annotations

import difflib
import math
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from emoreg.data.images.files import File
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL_DOMINANCE, EmotionSpace, emotion_index, emotion_names
from emoreg.data.stimuli.set_reader import SPLITS, SetReader, number, votes
from emoreg.data.stimuli.stimulus_set import Split, Stimuli
from emoreg.data.stimuli.tabular import read_lines, read_parquet, read_rows
from emoreg.errors import UserError, nearest

ABOUT = About(
    title="Your images, listed in a manifest",
    size="any",
    labels="emotion, votes or probabilities, valence, arousal, dominance",
    licence="yours to know",
    source="your own",
    layout="manifest.csv|jsonl|parquet (path, emotion, p_<emotion>, valence, arousal, dominance, split)",
)
DIMENSIONS = VALENCE_AROUSAL_DOMINANCE.names
COLUMNS = ("path", "emotion", *DIMENSIONS, "split")
SCALE = "; map the ratings to it first, e.g. (x - 5) / 4 from 1..9"

Row = tuple[str, Mapping[str, str]]  # the place and the cells


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Images with the labels that the manifest gives them.

    Args:
        root: the manifest, or a folder or zip that holds one, named manifest.csv, .jsonl or .parquet.
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
    given = Path(reader.root)
    if given.suffix.lower() in (".csv", ".jsonl", ".parquet") and not given.is_dir():
        sheet = File(given.name, given.parent)
    else:
        sheet = reader.sheet("manifest.csv", "manifest.jsonl", "manifest.parquet")
    table = list(_read_table(sheet))
    columns = list(dict.fromkeys(column for _, row in table for column in row))
    _check_columns(sheet, columns)

    shares = _emotions_of_shares(sheet, [column for column in columns if column.startswith("p_")])
    dimensions = tuple(column for column in DIMENSIONS if column in columns)
    emotions: tuple[str, ...] = ()
    if "emotion" in columns:
        emotions = emotion_names({row["emotion"]: place for place, row in reversed(table) if row.get("emotion")})
    spaces = [EmotionSpace("votes", tuple(shares))] if shares else []
    spaces += [EmotionSpace("category", emotions)] if emotions else []
    spaces += [EmotionSpace("dimensions", dimensions)] if dimensions else []
    if not spaces:
        raise UserError(f"{sheet} has no labels: no emotion, p_<emotion>, valence, arousal or dominance")

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
        reader.add(place, path, _find(reader, sheet, place, path), *labels, split=_split(place, row.get("split", "")))
    return reader.stimuli(*spaces)


def _read_table(sheet: File) -> Iterator[Row]:
    read_any = {".csv": read_rows, ".jsonl": read_lines, ".parquet": read_parquet}[Path(sheet.name).suffix.lower()]
    for place, row in read_any(sheet):
        cells: dict[str, str] = {}
        for column, value in row.items():
            name = " ".join(column.split()).lower()
            if cells.get(name, value) != value:
                raise UserError(f"{place}: {column!r} is a second column '{name}', and says otherwise; keep one")
            cells[name] = value
        yield place, cells


def _check_columns(sheet: File, columns: Iterable[str]) -> None:
    """UserError if there is no path (or no row), or a column is nearly a known one."""
    columns = list(columns)
    if not columns:
        raise UserError(f"{sheet} has no rows")
    unknown = [column for column in columns if column not in COLUMNS and not column.startswith("p_")]
    for column in unknown:
        close = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.85)
        if close and not column.startswith(f"{close[0]}_"):  # valence_n is somebody's own
            raise UserError(f"{sheet}: unknown column {column!r}; did you mean '{close[0]}'?")
    if "path" not in columns:
        raise UserError(f"{sheet}: no column 'path'{nearest('path', filter(None, columns))}")


def _emotions_of_shares(sheet: File, columns: Sequence[str]) -> dict[str, str]:
    """The emotions of the space, and the column that has each one's votes ("" for none)."""
    if not columns:
        return {}
    names = emotion_names({column[2:]: f"{sheet}, {column}" for column in columns})
    found: dict[str, str] = dict.fromkeys(names, "")
    for column in columns:
        name = names[emotion_index(column[2:], names, str(sheet))]
        if found[name]:
            raise UserError(f"{sheet}: the columns '{found[name]}' and '{column}' are the same emotion; keep one")
        found[name] = column
    return found


def _split(place: str, text: str) -> Split | None:
    if text and text.lower() not in SPLITS:
        raise UserError(f"{place}: no split {text!r}{nearest(text.lower(), SPLITS)}")
    return SPLITS[text.lower()] if text else None


def _find(reader: SetReader, sheet: File, place: str, path: str) -> File | None:
    """The image at `path`, from the manifest's folder. UserError for an empty path, or one that leaves a zip."""
    if not path:
        raise UserError(f"{place}: path is empty")
    path = posixpath.normpath(path.replace("\\", "/"))
    inner = posixpath.dirname(sheet.name)
    if not sheet.root.is_dir():
        whole = posixpath.normpath(posixpath.join(inner, path))
        if whole.startswith(("/", "../")):
            raise UserError(f"{place}: the path {path!r} leaves the zip; images must be in it")
        return reader.find(whole)
    folder = sheet.root / inner  # not listed: a manifest may stand beside a million other files
    for written in dict.fromkeys((path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))):
        try:
            if (folder / written).is_file():
                outside = written.startswith("../") or Path(written).is_absolute()
                whole_path = folder / written
                return File(whole_path.name, whole_path.parent) if outside else File(written, folder)
        except (OSError, ValueError):  # a name that is too long, or has a null byte
            return None
    return None

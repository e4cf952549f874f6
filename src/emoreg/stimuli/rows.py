"""What the readers of published sets share: finding files by name, and rows that say where they stand."""

from __future__ import annotations

import csv
import math
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from emoreg.emotion import EmotionSpace
from emoreg.errors import UserError, nearest
from emoreg.images.files import File, list_files
from emoreg.stimuli.stimuli import Labels, Split, Stimuli


class Rows:
    """Collects images and labels while a reader goes through a set's tables.

    Args:
        name: of the set.
        root: its folder or zip.
        skip_missing: leave out rows whose image is not there, instead of stopping at the first.
        spaces: of the labels that each row brings.

    Raises:
        UserError: no `root`, or it cannot be listed.
    """

    def __init__(self, name: str, root: str | None, skip_missing: bool, *spaces: EmotionSpace) -> None:
        if root is None:
            raise UserError(f"{name}: name the folder or zip that holds it (root)")
        self.name, self.root, self.skip_missing, self.spaces = name, root, skip_missing, spaces
        self.files = list_files(root)
        self._by_name = {_key(file.name): file for file in self.files}
        self._seen: dict[str, str] = {}
        self._images: list[File] = []
        self._labels: list[tuple[int | Sequence[float], ...]] = []
        self._splits: list[Split | None] = []

    def sheet(self, name: str) -> File:
        """The set's table of this name, in whichever folder it lies (the topmost). UserError if there is none."""
        found = [file for file in self.files if file.name.rsplit("/", 1)[-1].lower() == name.lower()]
        if not found:
            raise UserError(f"{self.root} holds no {name}, which {self.name} is published with")
        return min(found, key=lambda file: file.name.count("/"))

    def find(self, path: str) -> File | None:
        """The file of this path below the root, whatever the case and Unicode form of its letters."""
        return self._by_name.get(_key(path))

    def add(
        self, place: str, image: File | None, path: str, *labels: int | Sequence[float], split: Split | None = None
    ) -> None:
        """One row.

        Args:
            place: where it stands, e.g. "OASIS.csv, row 3".
            image: the file; None if it is not there.
            path: what the row calls it.
            labels: one for each of the spaces: an index, or E numbers.
            split: that it is published in.

        Raises:
            UserError: the image is missing, or stands in an earlier row too.
        """
        if image is None:
            if self.skip_missing:
                return
            raise UserError(f"{place}: no image {path} (skip_unreadable: true leaves such rows out)")
        first = self._seen.setdefault(image.name, place)
        if first != place:
            raise UserError(f"{place}: {path} stands there a second time, after {first}")
        self._images.append(image)
        self._labels.append(labels)
        self._splits.append(split)

    def stimuli(self) -> Stimuli:
        """All rows so far. UserError if there are none."""
        if not self._images:
            raise UserError(f"{self.root} holds no images of {self.name}")
        columns = zip(*self._labels, strict=True)
        labels = [
            Labels(space, np.array(column, np.int64 if space.kind == "category" else np.float32))
            for space, column in zip(self.spaces, columns, strict=True)
        ]
        splits = [split for split in self._splits if split is not None]
        return Stimuli(self.name, self._images, tuple(labels), splits if len(splits) == len(self._images) else None)


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()


def read_rows(
    sheet: File, columns: Sequence[str], delimiter: str = ",", quote: str = '"'
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a table with a header, whatever its line ends; keys and values without outer blanks.

    Args:
        sheet: the file, in UTF-8 (with or without a byte-order mark).
        columns: that it must have; case matters.
        delimiter: between fields.
        quote: around fields.

    Raises:
        UserError: an unreadable file, a missing column (the nearest is named), a row of another length.
    """
    try:
        lines = sheet.read().decode("utf-8-sig").splitlines()
        table = list(csv.reader(lines, delimiter=delimiter, quotechar=quote, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{sheet}: not a table in UTF-8 text: {error}") from None
    header = [name.strip() for name in table[0]] if table else []
    for column in columns:
        if column not in header:
            raise UserError(f"{sheet}: no column '{column}'{nearest(column, filter(None, header))}")
    for number, cells in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{sheet}, row {number}"
        if len(cells) != len(header):
            raise UserError(f"{place}: {len(cells)} fields, but the header has {len(header)}")
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))


def number(place: str, column: str, text: str, low: float, high: float) -> float:
    """The number in a cell. UserError if it is none, or not in [low, high]."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # NaN compares false
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise UserError(f"{place}: {column} is '{text}'; it must be a number {limits}")
    return value


def votes(place: str, counts: Sequence[float]) -> Sequence[float]:
    """The votes of one row. UserError if there are none."""
    if sum(counts) <= 0:
        raise UserError(f"{place}: no votes at all; an image needs at least one")
    return counts

"""Shared code of the readers of stimulus sets: find files by name, collect rows, and report errors with their place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from emoreg.data.images.files import File, is_image, list_files
from emoreg.data.images.names import Split, composed
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import SettingError, UserError


class SetReader:
    """Finds the files of a stimulus set, and collects its images and labels row by row.

    Args:
        name: name of the set.
        root: its folder or zip.
        skip_missing: skip rows whose image is missing; if false, the first one is an error. Without effect for sets
            that have no table.

    Raises:
        SettingError: `root` is None.
    """

    def __init__(self, name: str, root: str | None, skip_missing: bool) -> None:
        if root is None:
            raise SettingError("stimuli.root", f"name the folder or zip that holds {name}")
        self.name, self.root, self.skip_missing = name, root, skip_missing
        self._images: list[File] = []
        self._labels: list[tuple[int | Sequence[float], ...]] = []
        self._splits: list[Split | None] = []
        self._first_place: dict[str, str] = {}  # by path of the image
        self._missing: list[str] = []

    @cached_property
    def files(self) -> list[File]:
        """All files below the root. UserError if it cannot be listed."""
        return list_files(self.root)

    @cached_property
    def image_files(self) -> list[File]:
        """The files that are images, by suffix."""
        return [file for file in self.files if is_image(file.name)]

    def has(self, *names: str) -> bool:
        """Whether a file with one of these names exists in any folder, ignoring case."""
        return bool(self._named(names))

    def _named(self, names: Sequence[str]) -> list[File]:
        wanted = {name.lower() for name in names}
        return [file for file in self.files if file.name.rsplit("/", 1)[-1].lower() in wanted]

    def sheet(self, *names: str) -> File:
        """The set's table, in any folder. If there are several, the one closest to the root.

        Args:
            names: its possible names, ignoring case.

        Raises:
            UserError: there is no such table, or several are equally close to the root.
        """
        tables = self._named(names)
        if not tables:
            raise UserError(f"{self.root} holds no {' or '.join(names)}, which has the labels of {self.name}")
        depth = min(file.name.count("/") for file in tables)
        first, *others = (file for file in tables if file.name.count("/") == depth)
        if others:
            raise UserError(f"{self.root} holds both {first.name} and {others[0].name}: keep one, or name its folder")
        return first

    def find(self, path: str, beside: File | None = None) -> File | None:
        """The file at `path`, relative to the root or to the folder of `beside`; None if it does not exist.

        An exact match is preferred. Otherwise case and Unicode form are ignored.

        Raises:
            UserError: several files match, none of them exactly.
        """
        if beside is not None:
            path = beside.name[: beside.name.rfind("/") + 1] + path
        matches = self._by_key.get(path_key(path), [])
        for match in matches:
            if match.name == path:
                return match
        if len(matches) > 1:
            raise UserError(
                f"{self.root}: '{path}' matches both {matches[0].name!r} and {matches[1].name!r}; rename one"
            )
        return matches[0] if matches else None

    @cached_property
    def _by_key(self) -> dict[str, list[File]]:
        by_key: dict[str, list[File]] = {}
        for file in self.files:
            by_key.setdefault(path_key(file.name), []).append(file)
        return by_key

    def add(
        self, place: str, path: str, image: File | None, *labels: int | Sequence[float], split: Split | None = None
    ) -> None:
        """Add one row.

        Args:
            place: file and row, such as "OASIS.csv, row 3".
            path: path of the image, as the row gives it.
            image: the file; None if it is missing.
            labels: one label per emotion space: an index, or E numbers.
            split: published split; None if there is none.

        Raises:
            UserError: the image is missing and `skip_missing` is false, or an earlier row has the same image.
        """
        if image is None:
            if self.skip_missing:
                self._missing.append(place)
                return
            raise UserError(f"{place}: no image {path!r} (stimuli.skip_unreadable: true skips such rows)")
        first = self._first_place.setdefault(image.path, place)
        if first != place:
            raise UserError(f"{place}: {path!r} is listed a second time, after {first}; remove one")
        self._images.append(image)
        self._labels.append(labels)
        self._splits.append(split)

    def stimuli(self, *spaces: EmotionSpace, notes: Sequence[str] = (), left_out: Sequence[str] = ()) -> Stimuli:
        """All rows that were added, with labels in these spaces. See `Stimuli` for `notes` and `left_out`.

        Raises:
            UserError: there are no rows, or only some have a split.
        """
        if not self._images:
            raise UserError(f"{self.root} holds no images of {self.name}")
        columns = zip(*self._labels, strict=True)
        labels = tuple(
            Labels(space, np.array(column, np.int64) if space.kind == "category" else np.array(column, np.float32))
            for space, column in zip(spaces, columns, strict=True)
        )
        splits = [split for split in self._splits if split is not None]
        if 0 < len(splits) < len(self._splits):
            image = self._images[self._splits.index(None)]
            raise UserError(f"{self._first_place[image.path]}: {image.name!r} is in no split, but other images are")
        return Stimuli(
            self.name, self._images, labels, splits or None, self._missing, None, tuple(notes), tuple(left_out)
        )


def path_key(path: str) -> str:
    """Normalise a path for comparison: forward slashes, NFC, case-folded."""
    return composed(path.replace("\\", "/")).casefold()


def number(place: str, column: str, text: str, low: float, high: float, hint: str = "") -> float:
    """The number in a cell. UserError if it is not a number in [low, high]; `hint` is added if it is out of range."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not text.strip():
        raise UserError(f"{place}: {column} is empty; give every image a number, or leave the image out")
    if not (math.isfinite(value) and low <= value <= high):
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        hint = hint if math.isfinite(value) else ""
        raise UserError(f"{place}: {column} is {text!r}; it must be a number {limits}{hint}")
    return value


def votes(place: str, row: Mapping[str, str], columns: Iterable[str]) -> list[float]:
    """The votes in the given columns of a row, 0 for a column "". UserError if one is not 0 or more, or all are 0."""
    counts = [number(place, column, row.get(column, ""), 0, math.inf) if column else 0 for column in columns]
    if sum(counts) <= 0:
        raise UserError(f"{place}: no votes at all; an image needs at least one")
    return counts

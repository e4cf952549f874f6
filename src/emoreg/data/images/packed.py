"""Packs: image sets that were decoded and resized once, by `emoreg data pack` or `emoreg.write_pack`.

They open in milliseconds.

| file | content |
|---|---|
| pack.json | description of the pack; written last, so a pack without it is known to be unfinished |
| pixels.npy | uint8 (N, S, S, 3) |
| names.npy | text (N,), names of the files below the source's root; made up for images without files |
| labels-<kind>.npy | int64 (N,) or float32 (N, E); one file for each kind of label |
| splits.npy | text (N,), for sets with splits |

Everything is plain NumPy; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import Fit
from emoreg.errors import SettingError, UserError, is_plain, shortened
from emoreg.runtime.safe_io import read_json, require_regular

FORMAT = 1  # packs of other formats are refused
PACK, UNFINISHED = "pack.json", "unfinished.json"
PIXELS, NAMES, SPLITS = "pixels.npy", "names.npy", "splits.npy"


@dataclass(frozen=True, eq=False)
class PackedImages(Sequence[NDArray[np.uint8]]):
    """Images in a memory-mapped file, read on access.

    Args:
        pixels: uint8 (N, S, S, 3), memory-mapped.
        names: text (N,), memory-mapped.
        rows: int64 (M,), row numbers of the selected images, in order.
    """

    pixels: NDArray[np.uint8]
    names: NDArray[np.str_]
    rows: NDArray[np.int64]

    @property
    def image_size(self) -> int:
        """S, in pixels."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, row: slice) -> PackedImages: ...
    def __getitem__(self, row: int | slice) -> NDArray[np.uint8] | PackedImages:
        """One image (S, S, 3), or a slice of the images."""
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        return np.asarray(self.pixels[self.rows[row]])

    def name(self, row: int) -> str:
        """Name of an image's source file."""
        return str(self.names[self.rows[row]])

    def take(self, rows: NDArray[np.int64]) -> PackedImages:
        """Select the images of these rows, in this order. Only row numbers are copied."""
        return PackedImages(self.pixels, self.names, self.rows[rows])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read the pixels of these rows into memory: (B, S, S, 3)."""
        return np.take(self.pixels, self.rows[rows], axis=0)


LabelKind = Literal["class", "multilabel", "category", "votes", "dimensions", "neutral"]


@dataclass(frozen=True)
class PackedLabels:
    """Labels of one kind, and the names that they stand for."""

    # For targets "class", "multilabel" (1 if a label applies, else 0) or "dimensions" (any values); "neutral" for
    # categories other than emotions; else an `EmotionSpace`'s kind.
    kind: LabelKind
    names: tuple[str, ...]
    values: NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Pack:
    """An opened pack.

    Args:
        set: name of the stimulus set or target.
        title: name of its tables, for messages and records.
        images: N images.
        labels: labels of at least one kind.
        splits: text (N,), or None for a set without splits.
        about: the content of pack.json.
    """

    set: str
    title: str
    images: PackedImages
    labels: tuple[PackedLabels, ...]
    splits: NDArray[np.str_] | None
    about: dict[str, Any]


def labels_file(kind: LabelKind) -> str:
    """Name of the file with the labels of this kind."""
    if kind not in get_args(LabelKind):  # from a damaged pack.json
        raise ValueError(f"no kind of label '{kind}'")
    return f"labels-{kind}.npy"


def is_pack(root: str | Path | None) -> bool:
    """Whether `root` is the folder of a pack, finished or not."""
    return root is not None and any((Path(root) / name).is_file() for name in (PACK, UNFINISHED))


def read_about(folder: str | Path) -> dict[str, Any]:
    """Read pack.json. UserError if the pack is unfinished, damaged, or of another format."""
    path = Path(folder) / PACK
    if not path.is_file():
        raise UserError(f"{folder} is an unfinished pack: pack the same set into it again to resume")
    try:
        about = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete {folder} and pack again") from None
    if about.get("format") != FORMAT:
        shown = shortened(str(about.get("format")))
        raise UserError(f"{folder} is a pack of format {shown}, not {FORMAT}: pack again")
    return about


def open_pack(
    folder: str | Path,
    kind: Literal["stimuli", "target"],
    name: str | None = None,
    image_size: int | None = None,
    fit: Fit | None = None,
) -> Pack:
    """Open a pack: labels are read; pixels and names are only memory-mapped.

    Args:
        folder: folder of the pack.
        kind: expected kind of set.
        name: expected set; None for any.
        image_size: expected S; None for any.
        fit: how the images are expected to have been made square; None for any.

    Raises:
        UserError: the pack is unfinished, damaged, or not the expected one; says which setting to change.
    """
    about = read_about(folder)
    try:
        packed_set, packed_size = str(about["set"]), int(about["image_size"])
        packed_fit = shortened(str(about.get("fit", "crop")))
        if about["kind"] != kind:
            stage = "stage 1 (stimuli)" if about["kind"] == "stimuli" else "stage 2 (target)"
            raise SettingError(f"{kind}.root", f"{folder} is a pack of {packed_set}, which is for {stage}")
        if name is not None and name.casefold() != packed_set.casefold():
            reason = f"is {name}, but {folder} is a pack of {packed_set}; set it to {packed_set}"
            raise SettingError(f"{kind}.name", reason)
        for setting, expected, packed, described, option in (
            ("image_size", image_size, packed_size, f"{packed_size} pixels", "--image-size"),
            ("fit", fit, packed_fit, f"--fit {packed_fit}", "--fit"),
        ):
            if expected not in (None, packed):
                again = f"set it to {packed}, or pack the set again with {option} {expected}"
                reason = f"is {expected}, but {folder} is a pack of {described}; {again}"
                raise SettingError(f"{kind}.{setting}", reason)
        return _open(Path(folder), about)
    except UserError:
        raise
    except Exception as error:  # NumPy parses headers as Python code, which may raise anything for a damaged one
        reason = f"no {error}" if isinstance(error, KeyError) else shortened(str(error), 300)
        raise UserError(f"{folder} is a damaged pack ({reason}): delete it and pack again") from None


def _open(folder: Path, about: dict[str, Any]) -> Pack:
    """Open the files of a pack. ValueError if they do not match its description."""
    count, size = int(about["images"]), int(about["image_size"])
    pixels = _map(folder / PIXELS, count)
    if pixels.dtype != np.uint8 or pixels.shape != (count, size, size, 3):
        raise ValueError(f"{PIXELS} is {pixels.dtype} {pixels.shape}, not uint8 {(count, size, size, 3)}")
    names = _map_text(folder / NAMES, count)
    labels = tuple(_read_labels(folder, entry, count) for entry in about["labels"])
    if not labels:
        raise ValueError("it has no labels")
    splits = np.array(_map_text(folder / SPLITS, count)) if about["splits"] else None
    images, title = PackedImages(pixels, names, np.arange(count)), str(about["title"])
    if not is_plain(title):
        raise ValueError("its title has control characters")
    return Pack(str(about["set"]), title, images, labels, splits, about)


def _map(path: Path, count: int) -> NDArray[Any]:
    require_regular(path)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape[:1] != (count,):
        raise ValueError(f"{path.name} is of shape {array.shape}, and not of {count} rows")
    return array


def _map_text(path: Path, count: int) -> NDArray[np.str_]:
    text = _map(path, count)
    if text.dtype.kind != "U":
        raise ValueError(f"{path.name} is of type {text.dtype}, not text")
    return text


def _read_labels(folder: Path, entry: dict[str, Any], count: int) -> PackedLabels:
    file = labels_file(entry["kind"])
    # Read, not mapped: labels are small, and torch needs writable arrays.
    labels = PackedLabels(entry["kind"], tuple(entry["names"]), np.array(_map(folder / file, count)))
    if not labels.names or not all(isinstance(name, str) and is_plain(name) for name in labels.names):
        raise ValueError(f"the names of {file} are not text")
    if not _fits(labels):
        raise ValueError(f"{file} does not fit {len(labels.names)} names")
    return labels


def _fits(labels: PackedLabels) -> bool:
    """Whether shape, type and range of the values suit the kind of label."""
    values, count = labels.values, len(labels.names)
    if labels.kind in ("class", "category", "neutral"):
        return values.ndim == 1 and values.dtype == np.int64 and values.min() >= -1 and values.max() < count
    are_allowed = np.isin(values, (0, 1)) if labels.kind == "multilabel" else np.isfinite(values)
    return values.shape[1:] == (count,) and values.dtype == np.float32 and bool(are_allowed.all())

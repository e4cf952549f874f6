"""Packs: image sets that `emoreg data pack` has decoded and resized once, opened again in milliseconds.

| file | holds |
|---|---|
| pack.json | its description, see `Pack`; written last, so a pack without it is known to be unfinished |
| pixels.npy | uint8 (N, S, S, 3) |
| names.npy | text (N,), of the files below the source's root |
| labels-<kind>.npy | int64 (N,) or float32 (N, E); one file for each kind of label |
| splits.npy | text (N,), of sets that have splits |

Everything is plain NumPy, readable by anything; nothing is pickled.
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

FORMAT = 1  # of packs; another one is packed again, never guessed at
PACK, UNFINISHED = "pack.json", "unfinished.json"
PIXELS, NAMES, SPLITS = "pixels.npy", "names.npy", "splits.npy"


@dataclass(frozen=True, eq=False)
class PackedImages(Sequence[NDArray[np.uint8]]):
    """Images in a memory-mapped file, read on access.

    Args:
        pixels: uint8 (N, S, S, 3), mapped.
        names: text (N,), mapped.
        rows: int64 (M,), the selected images, in order.
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
        """One image (S, S, 3), or a part of them."""
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        return np.asarray(self.pixels[self.rows[row]])

    def name(self, row: int) -> str:
        """Name of one image's source file."""
        return str(self.names[self.rows[row]])

    def take(self, rows: NDArray[np.int64]) -> PackedImages:
        """The images of these rows, in this order. Only row numbers are copied."""
        return PackedImages(self.pixels, self.names, self.rows[rows])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of these rows, in memory: (B, S, S, 3)."""
        return np.take(self.pixels, self.rows[rows], axis=0)


LabelKind = Literal["class", "category", "votes", "dimensions", "neutral"]


@dataclass(frozen=True)
class PackedLabels:
    """Labels of one kind, and the names they stand for: "class" for targets, "neutral" for categories that are no
    emotion, else the kind of an `EmotionSpace`."""

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
    if kind not in get_args(LabelKind):  # as a damaged pack.json may have it
        raise ValueError(f"no kind of label '{kind}'")
    return f"labels-{kind}.npy"


def is_pack(root: str | Path | None) -> bool:
    """Whether `root` is the folder of a pack, finished or not."""
    return root is not None and any((Path(root) / name).is_file() for name in (PACK, UNFINISHED))


def read_about(folder: str | Path) -> dict[str, Any]:
    """pack.json. UserError if the pack is not finished, damaged, or of another version."""
    path = Path(folder) / PACK
    if not path.is_file():
        raise UserError(f"{folder} is an unfinished pack: run the same 'emoreg data pack' again to resume")
    try:
        about = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete {folder} and pack again") from None
    if about.get("format") != FORMAT:
        found = shortened(str(about.get("format")))
        raise UserError(f"{folder} is a pack of format {found}, not {FORMAT}: pack again")
    return about


def open_pack(
    folder: str | Path,
    kind: Literal["stimuli", "target"],
    name: str | None = None,
    image_size: int | None = None,
    fit: Fit | None = None,
) -> Pack:
    """A pack as it is on disk: labels are read, pixels and names are only mapped.

    Args:
        folder: folder of the pack.
        kind: expected kind of set.
        name: expected set; None for any.
        image_size: expected S; None for any.
        fit: how its images were expected to be made square; None for any.

    Raises:
        UserError: the pack is not finished, damaged, or not what was expected; says which setting to change.
    """
    about = read_about(folder)
    try:
        found_set, found_size, found_kind = str(about["set"]), int(about["image_size"]), about["kind"]
        if found_kind != kind:
            other = "stage 1 (stimuli)" if found_kind == "stimuli" else "stage 2 (target)"
            raise SettingError(f"{kind}.root", f"{folder} is a pack of {found_set}, which is for {other}")
        if name is not None and name.casefold() != found_set.casefold():
            reason = f"is {name}, but {folder} is a pack of {found_set}; set it to {found_set}"
            raise SettingError(f"{kind}.name", reason)
        if image_size not in (None, found_size):
            raise SettingError(
                f"{kind}.image_size",
                f"is {image_size}, but {folder} is a pack of {found_size} pixels; set it to {found_size}, or pack the "
                f"set again with --image-size {image_size}",
            )
        found_fit = shortened(str(about.get("fit", "crop")))
        if fit not in (None, found_fit):
            raise SettingError(
                f"{kind}.fit",
                f"is {fit}, but {folder} is a pack of --fit {found_fit}; set it to {found_fit}, or pack the set again "
                f"with --fit {fit}",
            )
        return _open(Path(folder), about)
    except UserError:
        raise
    except Exception as error:  # NumPy reads a header as Python's parser does, which on a damaged one raises anything
        reason = f"no {error}" if isinstance(error, KeyError) else shortened(str(error), 300)
        raise UserError(f"{folder} is a damaged pack ({reason}): delete it and pack again") from None


def _open(folder: Path, about: dict[str, Any]) -> Pack:
    """ValueError for files that do not fit together."""
    count, size = int(about["images"]), int(about["image_size"])

    def mapped(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        require_regular(folder / name)
        array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
        if array.shape[: len(shape)] != shape:
            raise ValueError(f"{name} is of shape {array.shape}, not {shape}")
        return array

    pixels = mapped(PIXELS, (count, size, size, 3))
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise ValueError(f"{PIXELS} is of type {pixels.dtype} with {pixels.ndim} dimensions, not uint8 with 4")
    names = mapped(NAMES, (count,))
    if names.dtype.kind != "U":
        raise ValueError(f"{NAMES} is of type {names.dtype}, not text")
    images = PackedImages(pixels, names, np.arange(count))
    # Read, not mapped: labels are small, and torch wants writable arrays.
    labels = tuple(
        PackedLabels(entry["kind"], tuple(entry["names"]), np.array(mapped(labels_file(entry["kind"]), (count,))))
        for entry in about["labels"]
    )
    if not labels:
        raise ValueError("it has no labels")
    for one in labels:
        if not one.names or not all(isinstance(name, str) and is_plain(name) for name in one.names):
            raise ValueError(f"the names of {labels_file(one.kind)} are not text")
        if not _fits(one):
            raise ValueError(f"{labels_file(one.kind)} does not fit {len(one.names)} names")
    splits = np.array(mapped(SPLITS, (count,))) if about["splits"] else None
    if splits is not None and splits.dtype.kind != "U":
        raise ValueError(f"{SPLITS} is of type {splits.dtype}, not text")
    return Pack(str(about["set"]), str(about["title"]), images, labels, splits, about)


def _fits(labels: PackedLabels) -> bool:
    """Whether the values are what the kind says, in shape, type and range."""
    values, count = labels.values, len(labels.names)
    if labels.kind in ("class", "category", "neutral"):
        return values.ndim == 1 and values.dtype == np.int64 and values.min() >= -1 and values.max() < count
    return values.shape[1:] == (count,) and values.dtype == np.float32 and bool(np.isfinite(values).all())

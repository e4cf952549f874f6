"""Tables: images and their labels, as the reader of any image set returns them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.files import File
from emoreg.data.images.packed import PackedImages
from emoreg.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Item:
    """One image of a library's data set (torchvision, Hugging Face), which that library decodes when needed."""

    name: str  # for messages
    index: int
    fetch: Callable[[int], Image.Image]

    def __str__(self) -> str:
        return f"{self.name}[{self.index}]"


Images = Sequence[File | Item] | NDArray[np.uint8] | PackedImages


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class Table:
    """Images, which need not be decoded yet, and one label each.

    Args:
        name: name of the set, for messages and records.
        images: N files or items, uint8 pixels (N, H, W, 3), or images of a pack.
        labels: (N,) int64 class indices, or (N, E) float32 (see `EmotionSpace`).

    Raises:
        UserError: wrong type, shape, axis order or number of images or labels; says what to write instead.
    """

    name: str
    images: Images
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise UserError(f"Table(name, images, labels) takes a string as name, not a {type(self.name).__name__}")
        _check_images(self.name, self.images)
        _check_labels(self.name, self.labels)
        if len(self.images) != len(self.labels):
            raise UserError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if len(self.images) == 0:
            raise UserError(f"{self.name} holds no images")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]) -> Table:
        """Select rows by number, in this order, or by a mask (N,).

        Raises:
            UserError: a row does not exist, or no row is selected.
        """
        numbers, count = np.asarray(rows), len(self)
        if numbers.dtype == bool and numbers.shape == (count,):
            numbers = np.flatnonzero(numbers)
        if numbers.ndim != 1 or not (numbers.dtype.kind in "iu" or numbers.size == 0):
            expected = f"row numbers, or a mask of {count:,} booleans"
            raise UserError(f"{self.name}: take takes {expected}, not {numbers.dtype} {numbers.shape}")
        outside = numbers[(numbers < -count) | (numbers >= count)]
        if len(outside):
            known = f"its {count:,} images are rows 0 to {count - 1:,}"
            raise UserError(f"{self.name}: there is no row {outside[0]}: {known}")
        numbers = numbers.astype(np.int64)
        return Table(self.name, take_images(self.images, numbers), self.labels[numbers])


def _check_images(name: str, images: Any) -> None:
    """Raise UserError for unsuitable images. For example, Pillow would truncate floats in [0, 1] to black."""
    if isinstance(images, PackedImages):
        return
    if isinstance(images, np.ndarray):
        kind, advice = f"{images.dtype} {images.shape}", _pixel_advice(images)
        if advice is None:
            return
    else:
        first = images[0] if isinstance(images, Sequence) and len(images) else None
        if _is_sequence_of_images(images, first):
            return
        kind = f"a {type(images).__name__}" + ("" if first is None else f" of {type(first).__name__}")
        if isinstance(first, str | Path):
            advice = "list_files of emoreg.data.images.files finds the files of a folder or a zip"
        elif isinstance(first, np.ndarray):
            advice = "give numpy.stack(images), or, if sizes differ, File objects (emoreg.data.images.files)"
        elif hasattr(images, "numpy"):
            scaled = _scaled("images.permute(0, 2, 3, 1).numpy()")
            advice = f"give a NumPy array with channels last and values 0 to 255; {scaled}"
        else:
            advice = "give pixels as a NumPy array, uint8 (N, H, W, 3), or File objects"
    raise UserError(f"{name}: images must be uint8 (N, H, W, 3), not {kind}; {advice}")


def _pixel_advice(images: NDArray[Any]) -> str | None:
    """What to write instead of these pixels; None if they are uint8 (N, H, W, 3)."""
    channels = images.shape[-1] if images.ndim == 4 else None
    advice: str | None = None
    if images.ndim == 4 and channels != 3 == images.shape[1]:
        advice = "put channels last: give images.transpose(0, 2, 3, 1)"
    elif images.ndim == 3 or channels == 1:
        grey = "images[..., None]" if images.ndim == 3 else "images"
        advice = f"repeat the channel of grey images: numpy.repeat({grey}, 3, axis=-1)"
    elif channels == 4:
        advice = "drop the fourth channel, such as opacity: give images[..., :3]"
    elif channels != 3:
        advice = "give the pixels of all images, with three channels last"
    elif images.dtype != np.uint8:
        advice = f"values must be 0 to 255; {_conversion(images.dtype)}"
    return advice


def _is_sequence_of_images(images: Any, first: Any) -> bool:
    """Whether these are files or items, or a concatenation of image sets that have been checked already."""
    if not isinstance(images, Sequence) or isinstance(images, str):
        return False
    is_union = not isinstance(images, list | tuple) and isinstance(first, np.ndarray) and first.dtype == np.uint8
    return isinstance(first, File | Item | None) or is_union


def _conversion(dtype: np.dtype[Any]) -> str:
    """How to convert pixels of another type to bytes. Among integers, only uint16 suggests a range."""
    if dtype == np.uint16:
        return "if they are 0 to 65,535, give (images >> 8).astype(numpy.uint8), as for files"
    if dtype.kind in "iu":
        return "if they are, give images.astype(numpy.uint8)"
    if dtype.kind == "b":
        return "for masks give images.astype(numpy.uint8) * 255"
    return _scaled("images")


def _scaled(images: str) -> str:
    return f"if they are in [0, 1], give ({images} * 255).round().astype(numpy.uint8)"


# What to write instead of labels whose type is of one of these kinds (`numpy.dtype.kind`), by number of dimensions.
_LABEL_ADVICE = (
    ("iub", 1, "give labels.astype(numpy.int64)"),
    ("iub", 2, "for one class per image, a 1 in each row, give labels.argmax(1); else labels.astype(numpy.float32)"),
    (
        "f",
        1,
        "for one value per image give labels[:, None].astype(numpy.float32), for classes labels.astype(numpy.int64)",
    ),
    ("f", 2, "give labels.astype(numpy.float32)"),
    ("UOS", 1, "numpy.unique(labels, return_inverse=True) gives the names of the classes and their indices"),
)


def _check_labels(name: str, labels: Any) -> None:
    if isinstance(labels, np.ndarray):
        if (labels.dtype, labels.ndim) in ((np.int64, 1), (np.float32, 2)):
            return
        kind, advice = f"{labels.dtype} {labels.shape}", "give one row for each image"
        for kinds, ndim, text in _LABEL_ADVICE:
            if labels.dtype.kind in kinds and labels.ndim == ndim:
                advice = text
    else:
        kind = f"a {type(labels).__name__}"
        advice = "give labels.numpy()" if hasattr(labels, "numpy") else "give numpy.array(labels)"
    expected = "class indices, int64 (N,), or values, float32 (N, E)"
    raise UserError(f"{name}: labels must be {expected}, not {kind}; {advice}")


def joined(tables: Sequence[Table]) -> Table:
    """Concatenate tables of the same kind of images."""
    labels = np.concatenate([table.labels for table in tables])
    pixels = [table.images for table in tables if isinstance(table.images, np.ndarray)]
    if pixels:
        return Table(tables[0].name, np.concatenate(pixels), labels)
    packed = [table.images for table in tables if isinstance(table.images, PackedImages)]
    if packed:
        rows = np.concatenate([images.rows for images in packed])
        return Table(tables[0].name, PackedImages(packed[0].pixels, packed[0].names, rows), labels)
    images: list[Any] = [image for table in tables for image in table.images]
    return Table(tables[0].name, images, labels)


def take_images(images: Images, rows: NDArray[np.int64]) -> Images:
    """Select the images of these rows, in this order."""
    if isinstance(images, PackedImages):
        return images.take(rows)
    return images[rows] if isinstance(images, np.ndarray) else [images[row] for row in rows]


def name_image(images: Images, row: int) -> str:
    """Name of an image for messages: its file, its item in a library's data set, or its row."""
    if isinstance(images, PackedImages):
        return images.name(row)
    image = images[row]
    return f"row {row}" if isinstance(image, np.ndarray) else str(image)


@dataclass(frozen=True)
class About:
    """Facts about a set, for people who do not have it yet."""

    title: str
    size: str  # number of images
    labels: str  # kind of labels
    licence: str
    source: str  # where to get it
    layout: str  # files expected at its root

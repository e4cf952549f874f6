"""What the reader of any image set returns: images and their labels."""

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
    """One image of a library's data set (torchvision, Hugging Face), decoded by that library when it is needed."""

    name: str  # for messages
    index: int
    fetch: Callable[[int], Image.Image]

    def __str__(self) -> str:
        return f"{self.name}[{self.index}]"


Images = Sequence[File | Item] | NDArray[np.uint8] | PackedImages


@dataclass(frozen=True, eq=False)  # arrays have no single truth of being equal
class Table:
    """Images, not yet decoded (or drawn in memory), and one label each.

    Args:
        name: name of the set, for messages and records.
        images: N files or items, uint8 pixels (N, H, W, 3), or those of a pack.
        labels: (N,) int64 class indices, or (N, E) float32 (see `EmotionSpace`).

    Raises:
        UserError: images or labels of another kind, order, shape or number; says what to write instead.
    """

    name: str
    images: Images
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise UserError(f"Table(name, images, labels) takes text as name, not a {type(self.name).__name__}")
        _check_images(self.name, self.images)
        _check_labels(self.name, self.labels)
        if len(self.images) != len(self.labels):
            raise UserError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if len(self.images) == 0:
            raise UserError(f"{self.name} holds no images")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]) -> Table:
        """The table of these rows, in this order; of a mask (N,) those where it is true.

        Raises:
            UserError: there are no such rows, or none is left.
        """
        numbers = _row_numbers(self.name, rows, len(self))
        return Table(self.name, take_images(self.images, numbers), self.labels[numbers])


def _row_numbers(name: str, rows: Any, count: int) -> NDArray[np.int64]:
    """The numbers of the rows that are meant, by number or by a mask, of so many."""
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (count,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or not (rows.dtype.kind in "iu" or rows.size == 0):
        wanted = f"row numbers, or a mask of {count:,} truths"
        raise UserError(f"{name}: take takes {wanted}, not {rows.dtype} {rows.shape}")
    outside = rows[(rows < -count) | (rows >= count)]
    if len(outside):
        raise UserError(f"{name}: there is no row {outside[0]}: its {count:,} images are rows 0 to {count - 1:,}")
    return rows.astype(np.int64)


def _check_images(name: str, images: Any) -> None:
    """UserError unless these are images as a table has them: Pillow would cut floats in [0, 1] to black."""
    if isinstance(images, PackedImages):
        return
    if not isinstance(images, np.ndarray):
        first = images[0] if isinstance(images, Sequence) and len(images) else None
        if _is_sequence_of_images(images, first):
            return
        what = f"a {type(images).__name__}" + ("" if first is None else f" of {type(first).__name__}")
        if isinstance(first, str | Path):
            mend = "list_files of emoreg.data.images.files finds the files of a folder or a zip"
        elif isinstance(first, np.ndarray):
            mend = "give numpy.stack(images), or of several sizes File objects (emoreg.data.images.files)"
        elif hasattr(images, "numpy"):
            mend = f"give NumPy's, colours last and 0 to 255; {_scaled('images.permute(0, 2, 3, 1).numpy()')}"
        else:
            mend = "give pixels as a NumPy array, uint8 (N, H, W, 3), or File objects"
        raise UserError(f"{name}: images must be uint8 (N, H, W, 3), not {what}; {mend}")
    _check_pixels(name, images)


def _check_pixels(name: str, images: NDArray[Any]) -> None:
    shape = images.shape
    if images.ndim == 4 and shape[-1] != 3 == shape[1]:
        mend = "the colours stand last: give images.transpose(0, 2, 3, 1)"
    elif images.ndim == 3 or (images.ndim == 4 and shape[-1] == 1):
        grey = "images" if images.ndim == 4 else "images[..., None]"
        mend = f"grey images get three equal colours: numpy.repeat({grey}, 3, axis=-1)"
    elif images.ndim == 4 and shape[-1] == 4:
        mend = "without the fourth channel, such as opacity, they are images[..., :3]"
    elif images.ndim != 4 or shape[-1] != 3:
        mend = "pixels of all images, with three colours last"
    elif images.dtype != np.uint8:
        mend = f"values are 0 to 255; {_in_bytes(images.dtype)}"
    else:
        return
    raise UserError(f"{name}: images must be uint8 (N, H, W, 3), not {images.dtype} {shape}; {mend}")


def _is_sequence_of_images(images: Any, first: Any) -> bool:
    """Whether these are files or items, or several sets behind each other, each of which was a table already."""
    if not isinstance(images, Sequence) or isinstance(images, str):
        return False
    is_union = not isinstance(images, list | tuple) and isinstance(first, np.ndarray) and first.dtype == np.uint8
    return isinstance(first, File | Item | None) or is_union


def _in_bytes(dtype: np.dtype[Any]) -> str:
    """How pixels of another kind become bytes. Integers tell nothing of their range, but for 16 bits without a sign."""
    if dtype == np.uint16:
        return "of 0 to 65,535 give (images >> 8).astype(numpy.uint8), as files are read"
    if dtype.kind in "iu":
        return "where these are, give images.astype(numpy.uint8)"
    if dtype.kind == "b":
        return "of masks give images.astype(numpy.uint8) * 255"
    return _scaled("images")


def _scaled(images: str) -> str:
    return f"of values in [0, 1] give ({images} * 255).round().astype(numpy.uint8)"


def _check_labels(name: str, labels: Any) -> None:
    """UserError unless these are class indices, int64 (N,), or values, float32 (N, E)."""
    wanted = "class indices, int64 (N,), or values, float32 (N, E)"
    if not isinstance(labels, np.ndarray):
        mend = "give labels.numpy()" if hasattr(labels, "numpy") else "give numpy.array(labels)"
        raise UserError(f"{name}: labels must be {wanted}, not a {type(labels).__name__}; {mend}")
    if (labels.dtype, labels.ndim) in ((np.int64, 1), (np.float32, 2)):
        return
    if labels.dtype.kind in "iub" and labels.ndim == 1:
        mend = "give labels.astype(numpy.int64)"
    elif labels.dtype.kind == "f" and labels.ndim == 2:
        mend = "give labels.astype(numpy.float32)"
    elif labels.dtype.kind in "iub" and labels.ndim == 2:
        mend = "of one class an image, a 1 in each row, give labels.argmax(1); else labels.astype(numpy.float32)"
    elif labels.dtype.kind == "f" and labels.ndim == 1:
        mend = "of one dimension give labels[:, None].astype(numpy.float32)"
    elif labels.dtype.kind in "UOS" and labels.ndim == 1:
        mend = "numpy.unique(labels, return_inverse=True) gives the names of the classes and their indices"
    else:
        mend = "one row for each image"
    raise UserError(f"{name}: labels must be {wanted}, not {labels.dtype} {labels.shape}; {mend}")


def joined(tables: Sequence[Table]) -> Table:
    """One table of several of the same kind of images, in this order."""
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
    """The images of these rows, in this order."""
    if isinstance(images, PackedImages):
        return images.take(rows)
    return images[rows] if isinstance(images, np.ndarray) else [images[row] for row in rows]


def name_image(images: Images, row: int) -> str:
    """Name of an image for messages: its file, its place in a library's set, or its row."""
    if isinstance(images, PackedImages):
        return images.name(row)
    image = images[row]
    return f"row {row}" if isinstance(image, np.ndarray) else str(image)


@dataclass(frozen=True)
class About:
    """Facts about a set for people who do not have it yet."""

    title: str
    size: str  # how many images
    labels: str  # what kind
    licence: str
    source: str  # where to get it
    layout: str  # what is expected at its root

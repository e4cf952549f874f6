"""What the reader of any image set returns: images and their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Table:
    """Images, not yet decoded (or drawn in memory), and one label each.

    Args:
        name: name of the set, for messages and records.
        images: N files or items, uint8 pixels (N, H, W, 3), or those of a pack.
        labels: (N,) int64 class indices, or (N, E) float32 (see `EmotionSpace`).
    """

    name: str
    images: Images
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if len(self.images) == 0:
            raise UserError(f"{self.name} holds no images")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """The table of these rows, in this order."""
        return Table(self.name, take_images(self.images, rows), self.labels[rows])


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

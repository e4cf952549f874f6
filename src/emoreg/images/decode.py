"""From image files to one uint8 tensor: decoded, turned upright, resized and cropped to a square, once."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emoreg.errors import UserError
from emoreg.images.files import File
from emoreg.images.table import Item, Table
from emoreg.progress import Progress

MAX_PIXELS = 100_000_000  # of one image: a guard against decompression bombs, above any camera's


@dataclass(frozen=True)
class ImageSet:
    """Square RGB images and labels, ready for batching.

    Args:
        table: where they come from.
        image_size: S, side in pixels.
        pixels: uint8 (N, 3, S, S), on any device; None for a set too large to hold, which is decoded again
            every epoch by worker processes.
        labels: (N,) int64 or (N, E) float32, on the same device as the pixels.
    """

    table: Table
    image_size: int
    pixels: Tensor | None
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        """The same set on `device`."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        return ImageSet(self.table, self.image_size, pixels, self.labels.to(device))

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images uint8 (B, 3, S, S) and labels in `order` (indices (M,)), the last batch possibly smaller."""
        device = self.labels.device
        chunks = order.split(batch_size)
        if self.pixels is not None:
            for rows in chunks:
                rows = rows.to(device)  # noqa: PLW2901
                yield self.pixels.index_select(0, rows), self.labels.index_select(0, rows)
            return
        loader = DataLoader(
            _OnDemand(self.table, self.image_size),
            batch_sampler=[rows.tolist() for rows in chunks],
            num_workers=min(os.cpu_count() or 1, 8),
            pin_memory=device.type == "cuda",
        )
        for rows, images in zip(chunks, loader, strict=True):
            yield images.to(device, non_blocking=True), self.labels.index_select(0, rows.to(device))


def load_images(
    table: Table, image_size: int, skip_unreadable: bool, memory_limit_gib: float, progress: Progress
) -> ImageSet:
    """Decode `table` into memory, or prepare to decode it on demand if it is larger than the limit.

    Args:
        table: what to decode.
        image_size: S; the shorter side is resized to it and the middle is kept.
        skip_unreadable: leave out images that cannot be decoded, with a count.
        memory_limit_gib: of the decoded pixels.
        progress: told how far it is.

    Raises:
        UserError: an image cannot be decoded (its path is named) and `skip_unreadable` is false; none is left.
    """
    in_memory = len(table) * 3 * image_size * image_size <= memory_limit_gib * 2**30
    pixels = np.empty((len(table) if in_memory else 0, image_size, image_size, 3), np.uint8)
    unreadable: dict[int, UserError] = {}

    def attempt(row: int) -> NDArray[np.uint8] | UserError:
        try:
            return decode(table.images[row], image_size)
        except UserError as error:
            return error

    # A set too large to hold is decoded here too, only to find what is unreadable before training begins.
    # Pillow lets go of the interpreter lock while it decodes and resizes, so threads use all cores.
    pool = ThreadPoolExecutor(os.cpu_count())
    with pool, progress.task(f"decode {table.name}", len(table), "images") as advance:
        for row, square in enumerate(pool.map(attempt, range(len(table)))):
            if isinstance(square, UserError):
                if not skip_unreadable:
                    pool.shutdown(cancel_futures=True)
                    raise UserError(f"{square} (skip_unreadable: true leaves such images out)")
                unreadable[row] = square
            elif in_memory:
                pixels[row] = square
            advance(1)
    if unreadable:
        first = next(iter(unreadable.values()))
        progress.say(f"{table.name}: left out {len(unreadable)} unreadable of {len(table)}; the first: {first}")
        kept = np.array([row for row in range(len(table)) if row not in unreadable], np.int64)
        table = table.take(kept)
        pixels = pixels[kept] if in_memory else pixels
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() if in_memory else None
    return ImageSet(table, image_size, tensor, torch.from_numpy(table.labels))


def decode(image: File | Item | NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """One image as uint8 (S, S, 3): upright by its EXIF orientation, RGB, its middle square.

    Raises:
        UserError: it cannot be decoded, or has more than MAX_PIXELS pixels.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (image_size, image_size):
            return image
        return _square(Image.fromarray(image), image_size)
    try:
        with image.fetch(image.index) if isinstance(image, Item) else Image.open(io.BytesIO(image.read())) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise UserError(f"{image} has {opened.width}x{opened.height} pixels; the limit is {MAX_PIXELS:,}")
            return _square(ImageOps.exif_transpose(opened).convert("RGB"), image_size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not an image in a known format" if "cannot identify" in str(error) else error
        raise UserError(f"cannot decode {image}: {reason}") from None


def _square(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image)


class _OnDemand(Dataset[Tensor]):
    def __init__(self, table: Table, image_size: int) -> None:
        self.table, self.image_size = table, image_size

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(decode(self.table.images[row], self.image_size).copy()).permute(2, 0, 1)

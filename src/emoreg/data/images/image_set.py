"""A set of images, decoded once into one uint8 tensor, or read batch by batch if it is too large to hold."""

from __future__ import annotations

import functools
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emoreg.config.schema import Fit
from emoreg.data.images.decode import EMPTY, ImageError, decode
from emoreg.data.images.files import File
from emoreg.data.images.packed import PackedImages
from emoreg.data.images.table import Images, Table
from emoreg.data.images.threads import ahead, in_threads
from emoreg.errors import UserError
from emoreg.runtime.cores import usable_cores, usable_memory
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import leave_to_parent

SKIPS = " (skip_unreadable: true skips such images)"
AHEAD = 2  # batches that each worker process has ready in shared memory
SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it; in containers it is often small (docker: 64 MB)


@dataclass(frozen=True)
class ImageSet:
    """Square RGB images and labels, ready for batching.

    Args:
        table: the images' source.
        image_size: S, side in pixels.
        pixels: uint8 (N, 3, S, S), channels last in memory, on any device; None for a set too large to hold, which
            worker processes decode again every epoch, or of which a pack's pixels are read.
        labels: (N,) int64 or (N, E) float32, on the same device as the pixels.
        fit: how images that are decoded on demand become square.
    """

    table: Table
    image_size: int
    pixels: Tensor | None
    labels: Tensor
    fit: Fit = "crop"

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        """The same set on `device`."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        return ImageSet(self.table, self.image_size, pixels, self.labels.to(device), self.fit)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images uint8 (B, 3, S, S), labels and row numbers in `order` (M,); the last batch may be smaller.

        Raises:
            UserError: an image that is decoded on demand has become unreadable; names it.
        """
        device = self.labels.device
        chunks = order.to(device).split(batch_size)
        if self.pixels is not None:
            held = self.pixels.permute(0, 2, 3, 1)  # the layout in memory, which index_select keeps
            batches = (held.index_select(0, rows) for rows in chunks)
        else:
            rows = order.split(batch_size)
            read = _read(self.table, self.image_size, self.fit, rows, pin_memory=device.type == "cuda")
            batches = (pixels.to(device, non_blocking=pixels.is_pinned()) for pixels in read)
        for rows, pixels in zip(chunks, batches, strict=True):
            yield pixels.permute(0, 3, 1, 2), self.labels.index_select(0, rows), rows


def fits_memory(tables: Sequence[Table], image_size: int, limit_gib: float, progress: Progress) -> bool:
    """Whether the decoded images of all tables fit together into `limit_gib`, and into half of the usable memory.

    If only the latter is too small, a line says so.
    """
    size, usable = sum(len(table) for table in tables) * 3 * image_size**2 / 2**30, usable_memory() / 2**30
    if usable / 2 < size <= limit_gib:
        progress.say(
            f"{', '.join(table.name for table in tables)}: {size:.1f} GiB of pixels are not held, as this process may "
            f"use {usable:.1f} GiB of memory; they are read again every epoch"
        )
    return size <= min(limit_gib, usable / 2)


def load_images(
    table: Table,
    image_size: int,
    skip_unreadable: bool,
    memory_limit_gib: float,
    progress: Progress,
    fit: Fit = "crop",
) -> ImageSet:
    """Decode `table` into memory, or prepare to read it on demand if it is larger than the limit.

    Args:
        table: images and labels.
        image_size: S.
        skip_unreadable: skip images that cannot be decoded, and report how many.
        memory_limit_gib: limit for the decoded pixels, in GiB.
        progress: shows how many images are decoded.
        fit: how images that are not square become so; see `decode.square`.

    Raises:
        UserError: an image cannot be decoded (its path is named) and `skip_unreadable` is false; none can.
    """
    count = len(table)
    in_memory = fits_memory([table], image_size, memory_limit_gib, progress)
    labels = torch.from_numpy(table.labels)
    gather = _gatherer(table.images, image_size)
    if gather is not None and not in_memory:
        return ImageSet(table, image_size, None, labels, fit)
    pixels = np.empty((count if in_memory else 0, image_size, image_size, 3), np.uint8)

    def load(rows: range) -> dict[int, UserError]:
        """Fill in the pixels of these rows; gives the errors of those that are unreadable."""
        if gather is not None:
            pixels[rows.start : rows.stop] = gather(np.arange(rows.start, rows.stop))
            return {}
        failed: dict[int, UserError] = {}
        for row in rows:
            try:
                square = decode(table.images[row], image_size, fit)
            except UserError as error:
                failed[row] = error
            else:
                if in_memory:
                    pixels[row] = square
        return failed

    # A set too large to hold is decoded here too, only to find unreadable images before training begins.
    verb, step = ("decode", 16) if gather is None else ("copy", 1024)
    unreadable: dict[int, UserError] = {}
    with progress.task(f"{verb} {table.name}", count, "images") as advance:
        for rows, failed in in_threads(load, range(count), step):
            if failed and not skip_unreadable:
                raise UserError(f"{next(iter(failed.values()))}{SKIPS}")
            unreadable |= failed
            advance(len(rows))
    if unreadable:
        first = next(iter(unreadable.values()))
        progress.say(f"{table.name}: skipped {len(unreadable)} unreadable of {count} images; the first: {first}")
        kept = np.array([row for row in range(count) if row not in unreadable], np.int64)
        table = table.take(kept)
        labels = torch.from_numpy(table.labels)
        pixels = pixels[kept] if in_memory else pixels
    held = torch.from_numpy(pixels).permute(0, 3, 1, 2) if in_memory else None
    return ImageSet(table, image_size, held, labels, fit)


def refuse_empty(images: Images) -> None:
    """UserError for a file of 0 bytes or one that is not there, as `load_images` has it; no image is decoded."""
    if not isinstance(images[0], File):
        return
    try:
        for image in images:
            if isinstance(image, File) and image.size() == 0:
                raise ImageError(image, EMPTY)
    except UserError as error:
        raise UserError(f"{error}{SKIPS}") from None


def _gatherer(images: Images, image_size: int) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None:
    """For images that have this size already: the function from row numbers to (B, S, S, 3). None for others."""
    if isinstance(images, PackedImages) and images.image_size == image_size:
        return images.gather
    if isinstance(images, np.ndarray) and images.shape[1:] == (image_size, image_size, 3):
        return lambda rows: np.take(images, rows, axis=0)
    return None


def _read(table: Table, image_size: int, fit: Fit, batches: Sequence[Tensor], pin_memory: bool) -> Iterator[Tensor]:
    """Pixels (B, S, S, 3) of each batch of row numbers, read one ahead, or decoded by worker processes or threads."""
    gather = _gatherer(table.images, image_size)
    if gather is not None:
        yield from map(torch.from_numpy, ahead(gather, [rows.numpy() for rows in batches]))
        return
    workers, decoded = min(usable_cores(), 8), _DecodedBatches(table, image_size, fit)
    order = [rows.tolist() for rows in batches]
    read: Iterator[Tensor | UserError]
    largest = max((len(rows) for rows in batches), default=0) * 3 * image_size**2
    if _shared_memory() < (AHEAD * workers + 2) * largest:  # two more: this process has one, and copies another
        _say_threads()
        read = ahead(decoded.__getitem__, order, workers)
    else:
        read = iter(
            DataLoader(
                decoded,
                batch_size=None,  # the sampler gives the rows of whole batches
                sampler=order,
                num_workers=workers,
                prefetch_factor=AHEAD,
                pin_memory=pin_memory,
                worker_init_fn=leave_to_parent,
                generator=torch.Generator(),  # for the workers' seeds; else torch's global one is drawn from
            )
        )
    for pixels in read:
        if isinstance(pixels, UserError):
            raise pixels
        yield pixels


def _shared_memory() -> float:
    """Bytes of shared memory that are free; infinite where it has no limit of its own."""
    if sys.platform != "linux":
        return math.inf
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0.0


@functools.cache  # once
def _say_threads() -> None:
    print(
        f"{SHARED_MEMORY} is too small for worker processes to hand over images: threads decode them, which is slower; "
        "make it larger (docker run --shm-size 2g), or pack the images once (emoreg data pack)",
        file=sys.stderr,
        flush=True,
    )


class _DecodedBatches(Dataset[Tensor | UserError]):
    """Decodes batches in worker processes. Errors are returned: raised there, they would arrive as a traceback."""

    def __init__(self, table: Table, image_size: int, fit: Fit) -> None:
        self.table, self.image_size, self.fit = table, image_size, fit

    def __getitem__(self, rows: list[int]) -> Tensor | UserError:
        try:
            images = [decode(self.table.images[row], self.image_size, self.fit) for row in rows]
            return torch.from_numpy(np.stack(images))
        except UserError as error:
            return error

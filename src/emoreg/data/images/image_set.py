"""A set of images, decoded once into one uint8 tensor, or read batch by batch if it is too large for memory."""

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
from emoreg.runtime.main_module import shared
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import leave_to_parent
from emoreg.runtime.streams import print_line

Gather = Callable[[NDArray[np.int64]], NDArray[np.uint8]]  # row numbers (B,) to pixels (B, S, S, 3)
SKIPS = " (skip_unreadable: true skips such images)"
PREFETCH = 2  # batches that each worker process keeps ready in shared memory
SHARED_MEMORY = Path("/dev/shm")  # of Linux; often small in containers (docker: 64 MB)


@dataclass(frozen=True)
class ImageSet:
    """Square RGB images and labels, ready for batching.

    Args:
        table: source of the images.
        image_size: S, side in pixels.
        pixels: uint8 (N, 3, S, S), channels last in memory, on any device. None for a set too large for memory: its
            images are then decoded again every epoch, or read from a pack.
        labels: (N,) int64 or (N, E) float32, on the same device as the pixels.
        fit: how images that are decoded on demand are made square.
    """

    table: Table
    image_size: int
    pixels: Tensor | None
    labels: Tensor
    fit: Fit = "crop"

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        """Return the same set on `device`."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        return ImageSet(self.table, self.image_size, pixels, self.labels.to(device), self.fit)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images uint8 (B, 3, S, S), labels and row numbers, in `order` (M,); the last batch may be smaller.

        Raises:
            UserError: an image that is decoded on demand has become unreadable.
        """
        device = self.labels.device
        chunks = order.to(device).split(batch_size)
        if self.pixels is not None:
            all_pixels = self.pixels.permute(0, 2, 3, 1)  # the layout in memory, which index_select preserves
            batches = (all_pixels.index_select(0, rows) for rows in chunks)
        else:
            rows = order.split(batch_size)
            read = _read(self.table, self.image_size, self.fit, rows, pin_memory=device.type == "cuda")
            batches = (pixels.to(device, non_blocking=pixels.is_pinned()) for pixels in read)
        for rows, pixels in zip(chunks, batches, strict=True):
            yield pixels.permute(0, 3, 1, 2), self.labels.index_select(0, rows), rows


def fits_memory(tables: Sequence[Table], image_size: int, limit_gib: float, progress: Progress) -> bool:
    """Whether the decoded images of all tables together fit into `limit_gib`, and into half of the usable memory.

    If they fit into `limit_gib` only, a line is printed.
    """
    size = sum(map(len, tables)) * 3 * image_size**2 / 2**30
    usable = usable_memory() / 2**30
    if usable / 2 < size <= limit_gib:
        progress.say(
            f"{', '.join(table.name for table in tables)}: {size:.1f} GiB of pixels are not kept in memory, of which "
            f"this process may use {usable:.1f} GiB; they are read again every epoch"
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
    """Decode `table` into memory, or prepare to read it on demand if it is too large; see `fits_memory`.

    Args:
        table: images and labels.
        image_size: S.
        skip_unreadable: skip images that cannot be decoded, and report how many.
        memory_limit_gib: limit for the decoded pixels, in GiB.
        progress: shows how many images have been decoded.
        fit: how images are made square; see `decode.square`.

    Raises:
        UserError: an image cannot be decoded and `skip_unreadable` is false, or no image can be decoded.
    """
    in_memory = fits_memory([table], image_size, memory_limit_gib, progress)
    gather = _gatherer(table.images, image_size)
    pixels = np.empty((len(table) if in_memory else 0, image_size, image_size, 3), np.uint8)
    if gather is None:
        table, pixels = _decode_all(table, pixels, image_size, fit, skip_unreadable, progress)
    elif in_memory:
        _copy_all(table, pixels, gather, progress)
    held = torch.from_numpy(pixels).permute(0, 3, 1, 2) if in_memory else None
    return ImageSet(table, image_size, held, torch.from_numpy(table.labels), fit)


def _copy_all(table: Table, pixels: NDArray[np.uint8], gather: Gather, progress: Progress) -> None:
    def copy(rows: range) -> None:
        pixels[rows.start : rows.stop] = gather(np.arange(rows.start, rows.stop))

    with progress.task(f"copy {table.name}", len(table), "images") as advance:
        for rows, _ in in_threads(copy, range(len(table)), 1024):
            advance(len(rows))


def _decode_all(
    table: Table, pixels: NDArray[np.uint8], image_size: int, fit: Fit, skip_unreadable: bool, progress: Progress
) -> tuple[Table, NDArray[np.uint8]]:
    """Decode all images into `pixels`; return the table and the pixels of the readable images.

    If `pixels` is empty, the images are decoded only to find unreadable ones before training starts.
    """

    def load(rows: range) -> dict[int, UserError]:
        """Decode the images of these rows; return the error of each unreadable one."""
        errors: dict[int, UserError] = {}
        for row in rows:
            try:
                square = decode(table.images[row], image_size, fit)
            except UserError as error:
                errors[row] = error
            else:
                if len(pixels):
                    pixels[row] = square
        return errors

    count = len(table)
    unreadable: dict[int, UserError] = {}
    with progress.task(f"decode {table.name}", count, "images") as advance:
        for rows, errors in in_threads(load, range(count), 16):
            if errors and not skip_unreadable:
                raise UserError(f"{next(iter(errors.values()))}{SKIPS}")
            unreadable |= errors
            advance(len(rows))
    if not unreadable:
        return table, pixels
    first = next(iter(unreadable.values()))
    progress.say(f"{table.name}: skipped {len(unreadable)} unreadable of {count} images; the first: {first}")
    kept = np.setdiff1d(np.arange(count), list(unreadable))
    return table.take(kept), pixels[kept] if len(pixels) else pixels


def refuse_empty(images: Images) -> None:
    """Raise the error of `load_images` for a file of 0 bytes or one that does not exist, without decoding any."""
    if not isinstance(images[0], File):
        return
    try:
        for image in images:
            if isinstance(image, File) and image.size() == 0:
                raise ImageError(image, EMPTY)
    except UserError as error:
        raise UserError(f"{error}{SKIPS}") from None


def _gatherer(images: Images, image_size: int) -> Gather | None:
    """The function that returns the pixels of given rows, if the images already have this size; None otherwise."""
    if isinstance(images, PackedImages) and images.image_size == image_size:
        return images.gather
    if isinstance(images, np.ndarray) and images.shape[1:] == (image_size, image_size, 3):
        return lambda rows: np.take(images, rows, axis=0)
    return None


def _read(table: Table, image_size: int, fit: Fit, batches: Sequence[Tensor], pin_memory: bool) -> Iterator[Tensor]:
    """Yield the pixels (B, S, S, 3) of each batch of row numbers.

    Images of the right size are read one batch ahead; others are decoded by worker processes or threads.
    """
    gather = _gatherer(table.images, image_size)
    if gather is not None:
        yield from map(torch.from_numpy, ahead(gather, [rows.numpy() for rows in batches]))
        return
    workers = min(usable_cores(), 8)
    decoded = _DecodedBatches(table, image_size, fit)
    order = [rows.tolist() for rows in batches]
    results: Iterator[Tensor | UserError]
    largest = max(map(len, order), default=0) * 3 * image_size**2  # bytes
    if _shared_memory() < (PREFETCH * workers + 2) * largest:  # this process holds one more, and copies another
        _warn_of_threads()
        results = ahead(decoded.__getitem__, order, workers)
    else:
        loader = DataLoader(
            decoded,
            batch_size=None,  # each element of the sampler holds the rows of a whole batch
            sampler=order,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            pin_memory=pin_memory,
            # Since Python 3.14 the default on Linux is a fork server, which a scheduler's signal to all processes ends.
            multiprocessing_context="fork" if sys.platform == "linux" else None,
            worker_init_fn=leave_to_parent,
            generator=torch.Generator(),  # seeds the workers; without it torch's global generator is drawn from
        )
        with shared():  # a script without a main guard would start over in each worker that is not forked
            results = iter(loader)
    for pixels in results:
        if isinstance(pixels, UserError):
            raise pixels
        yield pixels


def _shared_memory() -> float:
    """Free bytes of shared memory; infinite on systems where it has no separate limit."""
    if sys.platform != "linux":
        return math.inf
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0.0


@functools.cache  # print once
def _warn_of_threads() -> None:
    print_line(
        f"{SHARED_MEMORY} is too small for worker processes to hand over images: threads decode them, which is slower; "
        "make it larger (docker run --shm-size 2g), or pack the images once (emoreg data pack)"
    )


class _DecodedBatches(Dataset[Tensor | UserError]):
    """Decode batches in worker processes. Errors are returned, because raised errors would arrive with a traceback."""

    def __init__(self, table: Table, image_size: int, fit: Fit) -> None:
        self.table, self.image_size, self.fit = table, image_size, fit

    def __getitem__(self, rows: list[int]) -> Tensor | UserError:
        try:
            images = [decode(self.table.images[row], self.image_size, self.fit) for row in rows]
            return torch.from_numpy(np.stack(images))
        except UserError as error:
            return error

"""From image files to one uint8 tensor: decoded, turned upright, resized and cropped to a square, once."""

from __future__ import annotations

import io
import itertools
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from emoreg.data.images.files import IMAGE_FORMATS, File
from emoreg.data.images.packed import PackedImages
from emoreg.data.images.table import Images, Item, Table
from emoreg.errors import UserError, printable
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import leave_to_parent

MAX_PIXELS = 89_478_485  # of one image: Pillow's own guard against decompression bombs, above most cameras
# How many times larger than wanted a JPEG file is decoded at least: the last halving is left to the resizing
# filter. Pillow's thumbnail() takes 2 for the same reason (its reducing_gap).
DRAFT_GAP = 2

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True)
class ImageSet:
    """Square RGB images and labels, ready for batching.

    Args:
        table: where they come from.
        image_size: S, side in pixels.
        pixels: uint8 (N, 3, S, S), channels last in memory, on any device; None for a set too large to hold. Such a
            set is decoded again every epoch by worker processes; from a pack only its pixels are read.
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

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images uint8 (B, 3, S, S), labels and row numbers in `order` (M,), the last batch possibly smaller."""
        device = self.labels.device
        on_device = order.to(device).split(batch_size)
        if self.pixels is not None:
            lines = self.pixels.permute(0, 2, 3, 1)  # as they lie in memory, which index_select keeps
            for rows in on_device:
                yield lines.index_select(0, rows).permute(0, 3, 1, 2), self.labels.index_select(0, rows), rows
            return
        chunks = order.split(batch_size)
        ready = _ready(self.table.images, self.image_size)
        if ready is not None:
            squares = _one_ahead(ready, [rows.numpy() for rows in chunks])
            for rows, square in zip(on_device, squares, strict=True):
                pixels = torch.from_numpy(square).permute(0, 3, 1, 2)
                yield pixels.to(device), self.labels.index_select(0, rows), rows
            return
        loader = DataLoader(
            _OnDemand(self.table, self.image_size),
            batch_sampler=[rows.tolist() for rows in chunks],
            num_workers=min(os.cpu_count() or 1, 8),
            pin_memory=device.type == "cuda",
            worker_init_fn=leave_to_parent,
        )
        try:
            for rows, images in zip(on_device, loader, strict=True):
                yield images.to(device, non_blocking=True), self.labels.index_select(0, rows), rows
        except UserError as error:  # from a worker it comes with the worker's traceback
            reason = str(error).strip().splitlines()[-1].partition("UserError: ")[2] or str(error)
        else:
            return
        raise UserError(reason)  # not above: as its context the first error would keep the workers alive


def _one_ahead(work: Callable[[A], T], items: Sequence[A]) -> Iterator[T]:
    """work(item) of each, the next one worked on by a thread meanwhile."""
    coming: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        for result in coming:
            yield result.result()


def load_images(
    table: Table, image_size: int, skip_unreadable: bool, memory_limit_gib: float, progress: Progress
) -> ImageSet:
    """Decode `table` into memory, or prepare to read it on demand if it is larger than the limit.

    Args:
        table: what to decode.
        image_size: S; the shorter side is resized to it and the middle is kept.
        skip_unreadable: leave out images that cannot be decoded, with a count.
        memory_limit_gib: of the decoded pixels.
        progress: told how far it is.

    Raises:
        UserError: an image cannot be decoded (its path is named) and `skip_unreadable` is false; none is left.
    """
    count = len(table)
    in_memory = count * 3 * image_size * image_size <= memory_limit_gib * 2**30
    labels = torch.from_numpy(table.labels)
    ready = _ready(table.images, image_size)
    if ready is not None and not in_memory:
        return ImageSet(table, image_size, None, labels)
    pixels = np.empty((count if in_memory else 0, image_size, image_size, 3), np.uint8)

    def copy(rows: range) -> dict[int, UserError]:
        assert ready is not None
        pixels[rows.start : rows.stop] = ready(np.arange(rows.start, rows.stop))
        return {}

    def attempt(rows: range) -> dict[int, UserError]:
        failed: dict[int, UserError] = {}
        for row in rows:
            try:
                square = decode(table.images[row], image_size)
            except UserError as error:
                failed[row] = error
            else:
                if in_memory:
                    pixels[row] = square
        return failed

    # A set too large to hold is decoded here too, only to find what is unreadable before training begins.
    verb, work, step = ("decode", attempt, 16) if ready is None else ("copy", copy, 1024)
    unreadable: dict[int, UserError] = {}
    with progress.task(f"{verb} {table.name}", count, "images") as advance:
        for rows, failed in by_all_cores(work, range(count), step):
            if failed and not skip_unreadable:
                raise UserError(f"{next(iter(failed.values()))} (skip_unreadable: true leaves such images out)")
            unreadable |= failed
            advance(len(rows))
    if unreadable:
        first = next(iter(unreadable.values()))
        progress.say(f"{table.name}: left out {len(unreadable)} unreadable of {count}; the first: {first}")
        kept = np.array([row for row in range(count) if row not in unreadable], np.int64)
        table = table.take(kept)
        labels = torch.from_numpy(table.labels)
        pixels = pixels[kept] if in_memory else pixels
    held = torch.from_numpy(pixels).permute(0, 3, 1, 2) if in_memory else None
    return ImageSet(table, image_size, held, labels)


def by_all_cores(work: Callable[[range], T], rows: range, step: int) -> Iterator[tuple[range, T]]:
    """(part, work(part)) of consecutive parts of `rows`, in order, worked on by threads.

    Pillow and NumPy let go of the interpreter lock while they decode, resize and copy, so threads use all cores.
    Parts that are done sooner than Python changes threads are worked on here: threads would wait for each other's lock.
    Only a few parts are ahead of the one that is given, so that results do not pile up.

    Args:
        work: on one part; what it raises is raised here.
        rows: consecutive.
        step: length of a part.
    """
    parts = iter([rows[start : start + step] for start in range(0, len(rows), step)])
    seconds = math.inf
    for part in itertools.islice(parts, 3):  # the quickest counts: the first may import what decodes
        begun = time.perf_counter()
        done = work(part)
        seconds = min(seconds, time.perf_counter() - begun)
        yield part, done
    if seconds < sys.getswitchinterval():
        for part in parts:
            yield part, work(part)
        return
    workers = os.cpu_count() or 1
    waiting: deque[tuple[range, Future[T]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for part in parts:
                waiting.append((part, pool.submit(work, part)))
                if len(waiting) > 3 * workers:
                    oldest, result = waiting.popleft()
                    yield oldest, result.result()
            for part, result in waiting:
                yield part, result.result()
        finally:
            for _, result in waiting:
                result.cancel()


def _ready(images: Images, image_size: int) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None:
    """For images that have this size already: what gives (B, S, S, 3) for row numbers. None for others."""
    if isinstance(images, PackedImages) and images.image_size == image_size:
        return images.gather
    if isinstance(images, np.ndarray) and images.shape[1:] == (image_size, image_size, 3):
        return lambda rows: np.take(images, rows, axis=0)
    return None


def decode(image: File | Item | NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """One image as uint8 (S, S, 3): `upright`, its shorter side resized to S, its middle square.

    Raises:
        UserError: as `upright`.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (image_size, image_size):
            return image
        return square(Image.fromarray(image), image_size)
    return square(upright(image, at_least=image_size), image_size)


def upright(image: File | Item, content: bytes | None = None, at_least: int | None = None) -> Image.Image:
    """The whole image, in RGB, as a person sees it.

    - Turned as its EXIF orientation says; of an animation the first frame.
    - 16-bit grey is scaled to 8 bits by its high byte, as Pillow scales 16-bit RGB, and never clipped.
    - What is transparent is laid over white, as on a page (ours): the colour that the file keeps beneath was
      never seen by those who rated the image.
    - CMYK is converted by Pillow's plain formula, with Adobe's inverted values told by their marker. Colour
      profiles are not applied.

    Args:
        image: what to decode.
        content: of the file, where it has been read already.
        at_least: a size in pixels that is enough for both sides. JPEG files of more than twice that size are
            then decoded at 1/2, 1/4 or 1/8, which is several times faster.

    Raises:
        UserError: it cannot be decoded, has more than MAX_PIXELS pixels, or pixels that are no colours.
    """
    try:
        if isinstance(image, Item):
            opened = image.fetch(image.index)
        else:
            content = image.read() if content is None else content
            if not content:
                raise UserError(f"cannot decode {image}: it is empty (0 bytes)")
            opened = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)  # EPS would start Ghostscript
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise UserError(f"{image} has {opened.width}x{opened.height} pixels; the limit is {MAX_PIXELS:,}")
            if at_least is not None:
                opened.draft(None, (DRAFT_GAP * at_least, DRAFT_GAP * at_least))
            opened.load()
            return _rgb(_turned(opened), opened)
    except UserError:
        raise
    except Exception as error:  # on broken bytes Pillow's readers raise nearly anything
        reason = str(error) or type(error).__name__
        reason = "not an image in a known format" if "cannot identify" in reason else printable(reason)
        raise UserError(f"cannot decode {image}: {reason}") from None


def _turned(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    except Exception:  # broken EXIF tells nothing, and the picture may be whole
        return image


def _rgb(image: Image.Image, source: Image.Image) -> Image.Image:
    """`image` in RGB; `source` is the opened file, which knows its format. ValueError for pixels without colours."""
    if image.mode.startswith("I;16") or (image.mode == "I" and source.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, whose range is not known; save it with 8 or 16 bits")
    elif image.mode == "CMYK" and source.format == "JPEG" and "adobe" not in source.info:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image.convert("RGB")


def square(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """The middle square as uint8 (S, S, 3), its side resized to S by bicubic interpolation with antialiasing."""
    if image.size == (image_size, image_size):
        return np.asarray(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side))))
    # Pillow's own filter but for rounding and edges, several times faster.
    resized = F.interpolate(middle.permute(2, 0, 1)[None], (image_size,) * 2, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


class _OnDemand(Dataset[Tensor]):
    def __init__(self, table: Table, image_size: int) -> None:
        self.table, self.image_size = table, image_size

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(decode(self.table.images[row], self.image_size).copy()).permute(2, 0, 1)

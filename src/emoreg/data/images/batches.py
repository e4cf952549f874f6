"""Batches of normalised images: cropped and mirrored as whole tensors, a different draw for each image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.config.schema import AugmentSettings
from emoreg.data.images.decode import ImageSet
from emoreg.errors import UserError
from emoreg.runtime.seeding import generator

# One normalisation for every set and both stages (ours): the same colour is the same number to the emotional
# encoder wherever it is seen. The values are ImageNet's, which published weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Batch(NamedTuple):
    """What a network is trained on in one step."""

    images: Tensor  # float32 (B, 3, S, S), normalised, channels last in memory
    labels: Tensor  # (B,) int64 or (B, E) float32
    rows: Tensor  # int64 (B,): which images of the set they are


def normalise(images: Tensor) -> Tensor:
    """float32 (B, 3, H, W), channels last in memory, of uint8 (B, 3, H, W)."""
    count, _, height, width = images.shape
    # Whole lines of pixels, (B, H, 3 · W), with the statistics of a line beside them: an inner dimension of three
    # numbers would be worked on one number at a time.
    lines = images.permute(0, 2, 3, 1).reshape(count, height, 3 * width).to(torch.float32)
    mean, std = _statistics(width, images.device)
    return lines.sub_(mean).div_(std).view(count, height, width, 3).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)
def _statistics(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a line of pixels as bytes, float32 (3 · W,) each, in the order R, G, B, R, ...

    Kept, because a copy to a GPU waits for all that it has yet to do.
    """
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).mul_(255).repeat(width) for values in (MEAN, STD))
    return mean, std


def crop_and_flip(images: Tensor, padding: int, offsets: Tensor, mirrored: Tensor) -> Tensor:
    """Each image shifted by its own offsets within a border of zeros, then mirrored left to right or not.

    Args:
        images: uint8 (B, 3, H, W), fastest if channels are last in memory.
        padding: of the border, in pixels.
        offsets: int64 (B, 2), down and right, in [0, 2 · padding].
        mirrored: bool (B,).
    """
    count, _, height, width = images.shape
    device = images.device
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))  # (B, H + 2p, W + 2p, 3)
    down, right = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = torch.arange(count, device=device)[:, None] * padded.shape[1] + offsets[:, :1] + down  # (B, H)
    columns = offsets[:, 1:] + torch.where(mirrored[:, None], right.flip(0), right)  # (B, W)
    pixels = rows[:, :, None] * padded.shape[2] + columns[:, None, :]  # one gather for both changes
    chosen = padded.reshape(-1, 3).index_select(0, pixels.view(-1))
    return chosen.view(count, height, width, 3).permute(0, 3, 1, 2)


def resize(images: Tensor, size: int) -> Tensor:
    """Normalised images (B, 3, S, S) scaled to `size` pixels a side, antialiased."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Share:
    """One of several sets whose images lie behind each other."""

    count: int  # images that it has
    quota: int  # images that it gives to an epoch


def shares(counts: Sequence[int], weights: Sequence[float] | None) -> tuple[Share, ...]:
    """What each of several sets gives to an epoch, which is as long as all of them together.

    Args:
        counts: images of each set.
        weights: positive; quotas are in proportion, rounded by largest remainders. None for each image once.
    """
    if weights is None:
        return tuple(Share(count, count) for count in counts)
    exact = [sum(counts) * weight / sum(weights) for weight in weights]
    quotas = [int(quota) for quota in exact]
    by_remainder = sorted(range(len(exact)), key=lambda part: quotas[part] - exact[part])
    for part in by_remainder[: sum(counts) - sum(quotas)]:
        quotas[part] += 1
    return tuple(Share(count, quota) for count, quota in zip(counts, quotas, strict=True))


def mixed_order(mixture: Sequence[Share], seed: int, epoch: int, draw: torch.Generator) -> Tensor:
    """Indices int64 (sum of the quotas,) of an epoch's images, the sets shuffled together.

    A set's images come without replacement until all have been seen, within an epoch or over several; then in
    a new order. What has been seen before follows from (seed, epoch), so no state is kept.
    """
    rows, first = [], 0
    for number, share in enumerate(mixture):
        count, quota = share.count, share.quota
        start = epoch * quota  # in the endless row of the set's passes
        passes = range(start // count, -(-(start + quota) // count))
        orders = [torch.randperm(count, generator=generator(seed, "pass", number, each)) for each in passes]
        rows.append(first + torch.cat(orders)[start - passes.start * count :][:quota])
        first += count
    order = torch.cat(rows)
    return order[torch.randperm(len(order), generator=draw)]


def training_batches(
    images: ImageSet,
    batch_size: int,
    augment: AugmentSettings,
    seed: int,
    epoch: int,
    mixture: Sequence[Share] = (),
    done: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """One epoch in random order.

    Order and augmentation depend on (seed, epoch) alone, so an epoch can be repeated after a restart and is
    the same for every arm of a study. All draws of an epoch are made at once and moved to the device once.
    Only full batches are given, but for sets smaller than one batch.

    Args:
        images: to train on.
        batch_size: B.
        augment: random changes.
        seed: of the run.
        epoch: from 0.
        mixture: of `shares`, where `images` are those of several sets; empty for each image once.
        done: batches at the beginning that are left out.
        part: (which, of how many) equal parts of each batch is given: the share of one of several processes. Parts
            differ by an image where they do not come out even.

    Raises:
        UserError: a batch has fewer images than parts.
    """
    count = len(images)
    draw = generator(seed, "epoch", epoch)
    order = mixed_order(mixture, seed, epoch, draw) if mixture else torch.randperm(count, generator=draw)
    order = order[: count - count % batch_size or None]
    change = _draw_changes(count, augment, draw, images.labels.device)
    size, (which, parts) = min(batch_size, len(order)), part
    if size < parts:
        raise UserError(f"{parts} processes cannot share batches of {size} images; start fewer, or use larger batches")
    first, last = size * which // parts, size * (which + 1) // parts
    mine = order.view(-1, size)[done:, first:last].reshape(-1)
    start = done * size + first
    for pixels, labels, rows in images.batches(mine, last - first):
        yield Batch(normalise(change(pixels, slice(start, start + len(pixels)))), labels, rows)
        start += size


def view_batches(
    images: ImageSet, augment: AugmentSettings, seed: int, view: int, batch_size: int = 512
) -> Iterator[Batch]:
    """All images in order, changed at random in a way that depends on (seed, view) alone."""
    change = _draw_changes(len(images), augment, generator(seed, "view", view), images.labels.device)
    for pixels, labels, rows in images.batches(torch.arange(len(images)), batch_size):
        part = slice(int(rows[0]), int(rows[0]) + len(rows))
        yield Batch(normalise(change(pixels, part)), labels, rows)


def _draw_changes(
    count: int, augment: AugmentSettings, draw: torch.Generator, device: torch.device
) -> Callable[[Tensor, slice], Tensor]:
    """What changes images uint8 (B, 3, S, S), those of a part of `count`, by the draws for that part."""
    offsets = torch.randint(0, 2 * augment.crop_padding + 1, (count, 2), generator=draw).to(device)
    mirrored = (torch.rand(count, generator=draw) < 0.5).to(device) & augment.flip

    def change(pixels: Tensor, part: slice) -> Tensor:
        if not (augment.crop_padding or augment.flip):
            return pixels
        return crop_and_flip(pixels, augment.crop_padding, offsets[part], mirrored[part])

    return change


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches `training_batches` gives."""
    return max(count // batch_size, 1)


def evaluation_batches(images: ImageSet, batch_size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as they are: float32 (B, 3, S, S) and labels."""
    for pixels, labels, _ in images.batches(torch.arange(len(images)), batch_size):
        yield normalise(pixels), labels

"""Batches of normalised images: cropped and mirrored as whole tensors, a different draw for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.images.decode import ImageSet
from emoreg.randomness import generator
from emoreg.settings import AugmentSettings

# One normalisation for every set and both stages (ours): the same colour is the same number to the emotional
# encoder wherever it is seen. The values are ImageNet's, which published weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """float32 (B, 3, H, W), channels last in memory, of uint8 (B, 3, H, W)."""
    mean = torch.tensor(MEAN, device=images.device).mul_(255).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).mul_(255).view(1, 3, 1, 1)
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def crop(images: Tensor, padding: int, offsets: Tensor) -> Tensor:
    """Each image shifted by its own offsets within a border of zeros.

    Args:
        images: (B, C, H, W).
        padding: of the border, in pixels.
        offsets: int64 (B, 2), down and right, in [0, 2 · padding].
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, C, 2p+1, 2p+1, H, W)
    rows = torch.arange(len(images), device=images.device)
    return windows[rows, :, offsets[:, 0], offsets[:, 1]]


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Images (B, C, H, W) with those `chosen` (bool (B,)) mirrored left to right."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


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
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: float32 (B, 3, S, S) and labels.

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
    """
    count = len(images)
    draw = generator(seed, "epoch", epoch)
    device = images.labels.device
    order = mixed_order(mixture, seed, epoch, draw) if mixture else torch.randperm(count, generator=draw)
    order = order[: count - count % batch_size or None]
    offsets = torch.randint(0, 2 * augment.crop_padding + 1, (count, 2), generator=draw).to(device)
    mirrored = (torch.rand(count, generator=draw) < 0.5).to(device)
    start = done * batch_size
    for batch, labels in images.batches(order[start:], batch_size):
        part = slice(start, start + len(batch))
        start += len(batch)
        if augment.crop_padding:
            batch = crop(batch, augment.crop_padding, offsets[part])  # noqa: PLW2901
        if augment.flip:
            batch = flip(batch, mirrored[part])  # noqa: PLW2901
        yield normalise(batch), labels


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches `training_batches` gives."""
    return max(count // batch_size, 1)


def evaluation_batches(images: ImageSet, batch_size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as they are: float32 (B, 3, S, S) and labels."""
    for batch, labels in images.batches(torch.arange(len(images)), batch_size):
        yield normalise(batch), labels

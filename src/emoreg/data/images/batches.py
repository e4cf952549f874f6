"""Batches of normalised images: the order of an epoch, over one set or several, and its split into batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.augment import draw_changes, normalise
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.mixing import Mixing, draw_mixing, mix, partners
from emoreg.errors import UserError
from emoreg.runtime.seeding import generator


class Batch(NamedTuple):
    """The images and labels of one training step."""

    images: Tensor  # float32 (B, 3, S, S), normalised, channels last in memory
    labels: Tensor  # (B,) int64 or (B, E) float32
    rows: Tensor  # int64 (B,): row numbers in the set
    partner_labels: Tensor | None = None  # labels of the images that these are mixed with; None without mixing
    share: Tensor | None = None  # float32 (B,), in [0, 1]: weight of the image itself in the mixture

    def targets(self, classes: int) -> Tensor:
        """Targets of a classifier with K classes: `labels`, or, for mixed images, float32 (B, K) mixed labels.

        Class indices of mixed images become probabilities.
        """
        if self.partner_labels is None or self.share is None:
            return self.labels
        labels, others = self.labels, self.partner_labels
        if labels.ndim == 1:
            labels, others = F.one_hot(labels, classes).float(), F.one_hot(others, classes).float()
        return torch.lerp(others, labels, self.share[:, None])


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into at most `parts` parts of consecutive images, with sizes that differ by at most one."""
    if parts == 1:
        return [batch]
    ends = [len(batch.rows) * part // parts for part in range(parts + 1)]
    return [
        Batch._make(None if values is None else values[start:end] for values in batch)
        for start, end in itertools.pairwise(ends)
        if end > start
    ]


@dataclass(frozen=True)
class SetQuota:
    """Number of images drawn per epoch from one of several concatenated sets."""

    count: int  # images in the set
    per_epoch: int  # images drawn from it


def epoch_quotas(counts: Sequence[int], weights: Sequence[float] | None) -> tuple[SetQuota, ...]:
    """Number of images drawn from each set per epoch; an epoch is as long as all sets together.

    Args:
        counts: number of images in each set.
        weights: positive. Quotas are proportional to them, rounded by the largest-remainder method. None draws each
            image once.
    """
    if weights is None:
        return tuple(SetQuota(count, count) for count in counts)
    exact = [sum(counts) * weight / sum(weights) for weight in weights]
    quotas = [int(quota) for quota in exact]
    by_remainder = sorted(range(len(exact)), key=lambda part: quotas[part] - exact[part])
    for part in by_remainder[: sum(counts) - sum(quotas)]:
        quotas[part] += 1
    return tuple(SetQuota(count, quota) for count, quota in zip(counts, quotas, strict=True))


def mixed_order(quotas: Sequence[SetQuota], seed: int, epoch: int, draw: torch.Generator) -> Tensor:
    """Row numbers of an epoch's images, int64 (sum of the quotas,), with the sets shuffled together.

    Each set is drawn without replacement until it is exhausted, which may take several epochs, then in a new order.
    The position in it follows from the epoch, so no state is kept.
    """
    rows, first = [], 0
    for number, quota in enumerate(quotas):
        start = epoch * quota.per_epoch  # position in an endless sequence of passes over the set
        passes = range(start // quota.count, -(-(start + quota.per_epoch) // quota.count))
        orders = [torch.randperm(quota.count, generator=generator(seed, "pass", number, each)) for each in passes]
        rows.append(first + torch.cat(orders)[start - passes.start * quota.count :][: quota.per_epoch])
        first += quota.count
    order = torch.cat(rows)
    return order[torch.randperm(len(order), generator=draw)]


def training_batches(
    images: ImageSet,
    batch_size: int,
    augment: AugmentSettings,
    seed: int,
    epoch: int,
    quotas: Sequence[SetQuota] = (),
    done: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yield the batches of one epoch, in random order.

    Order and augmentation depend only on (seed, epoch), so an epoch can be repeated after a restart and is the same
    for every arm of a study. All random numbers of an epoch are drawn at once and moved to the device once. An
    incomplete last batch is dropped, unless it is the only one.

    Args:
        images: the training images.
        batch_size: B.
        augment: settings of the augmentation.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        quotas: from `epoch_quotas`, if `images` concatenates several sets; empty draws each image once.
        done: number of batches to skip at the beginning.
        part: (rank, world size). Each batch is split among the processes into parts whose sizes differ by at most one
            image; only this process's part is yielded.

    Raises:
        UserError: a batch has fewer images than there are processes, or a part would split pairs of images to be mixed.
    """
    count = len(images)
    draw = generator(seed, "epoch", epoch)
    order = mixed_order(quotas, seed, epoch, draw) if quotas else torch.randperm(count, generator=draw)
    order = order[: count - count % batch_size or None]
    change = draw_changes(images, order, augment, seed, ("epoch", epoch), draw)
    mixing = draw_mixing(count, images.image_size, augment, seed, ("epoch", epoch), images.labels.device)
    size, (rank, parts) = min(batch_size, len(order)), part
    if size < parts:
        raise UserError(f"{parts} processes cannot share batches of {size} images; start fewer, or use larger batches")
    if mixing and parts > 1 and size % (2 * parts):
        raise UserError(
            f"{parts} processes cannot share batches of {size} images that are mixed in pairs (augment."
            f"{augment.mixing}); make training.batch_size a multiple of {2 * parts}"
        )
    first, last = size * rank // parts, size * (rank + 1) // parts
    mine = order.view(-1, size)[done:, first:last].reshape(-1)
    start = done * size + first
    for pixels, labels, rows in images.batches(mine, last - first):
        part_of_epoch = slice(start, start + len(pixels))
        batch = Batch(change(pixels, part_of_epoch), labels, rows)
        yield _mixed(batch, Mixing(*(draws[part_of_epoch] for draws in mixing))) if mixing else batch
        start += size


def _mixed(batch: Batch, mixing: Mixing) -> Batch:
    """Mix each image of a batch with its partner; `mixing` holds the draws for these images."""
    rows = partners(len(batch.rows), batch.images.device)
    others = batch.images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)  # stays channels last
    images = mix(batch.images, others, mixing)
    return batch._replace(images=images, partner_labels=batch.labels.index_select(0, rows), share=mixing.share)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches that `training_batches` yields for `count` images."""
    return max(count // batch_size, 1)


def evaluation_batch_size(image_size: int) -> int:
    """Images at a time where no gradients are needed: as many as have the pixels of 512 images at 64; at least 8.

    Small images come 512 at a time. The last digits of results depend on this number, so it depends on nothing else.
    """
    return min(max(512 * 64**2 // image_size**2, 8), 512)


def view_batches(
    images: ImageSet, augment: AugmentSettings, seed: int, view: int, batch_size: int | None = None
) -> Iterator[Batch]:
    """Yield all images in order, with augmentation that depends only on (seed, view) and without mixing.

    `batch_size` is by default `evaluation_batch_size`.
    """
    order = torch.arange(len(images))
    change = draw_changes(images, order, augment, seed, ("view", view), generator(seed, "view", view))
    for pixels, labels, rows in images.batches(order, batch_size or evaluation_batch_size(images.image_size)):
        part = slice(int(rows[0]), int(rows[0]) + len(rows))
        yield Batch(change(pixels, part), labels, rows)


def evaluation_batches(images: ImageSet, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images in order, without augmentation: normalised float32 (B, 3, S, S), and labels.

    `batch_size` is by default `evaluation_batch_size`.
    """
    batch_size = batch_size or evaluation_batch_size(images.image_size)
    for pixels, labels, _ in images.batches(torch.arange(len(images)), batch_size):
        yield normalise(pixels), labels

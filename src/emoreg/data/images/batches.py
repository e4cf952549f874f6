"""Batches of normalised images: the order of an epoch, from one set or several, and how it is split into batches."""

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
    """What a network is trained on in one step."""

    images: Tensor  # float32 (B, 3, S, S), normalised, channels last in memory
    labels: Tensor  # (B,) int64 or (B, E) float32
    rows: Tensor  # int64 (B,): row numbers in the set
    partner_labels: Tensor | None = None  # as `labels`, of the images that these are mixed with; None if they are not
    share: Tensor | None = None  # float32 (B,), in [0, 1]: of an image itself in the mixture

    def targets(self, classes: int) -> Tensor:
        """What a classifier of K classes is to answer: `labels`, class indices (B,), or of mixed images float32 (B, K),
        probabilities; of several labels and of values always (B, K)."""
        if self.partner_labels is None or self.share is None:
            return self.labels
        own, other = self.labels, self.partner_labels
        if own.ndim == 1:
            own, other = F.one_hot(own, classes).float(), F.one_hot(other, classes).float()
        return torch.lerp(other, own, self.share[:, None])


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """A batch in at most `parts` parts of consecutive images, whose sizes differ by at most one."""
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
    """The images drawn from one of several concatenated sets per epoch."""

    count: int  # images in the set
    per_epoch: int  # images drawn from it


def epoch_quotas(counts: Sequence[int], weights: Sequence[float] | None) -> tuple[SetQuota, ...]:
    """The images drawn from each set per epoch; an epoch has as many as all sets together.

    Args:
        counts: images of each set.
        weights: positive; quotas are in proportion, rounded by largest remainders. None draws each image once.
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
    """Row numbers int64 (sum of the quotas,) of an epoch's images, the sets shuffled together.

    Each set is drawn without replacement until it is exhausted, within an epoch or over several, then in a new order.
    Its position follows from (seed, epoch), so no state is kept.
    """
    rows, first = [], 0
    for number, quota in enumerate(quotas):
        start = epoch * quota.per_epoch  # position in the endless sequence of passes over the set
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
    """One epoch in random order.

    Order and augmentation depend on (seed, epoch) alone, so an epoch can be repeated after a restart and is the same
    for every arm of a study. All random numbers of an epoch are drawn at once and moved to the device once. The last
    batch is dropped if it is incomplete, unless it is the only one.

    Args:
        images: the training images.
        batch_size: B.
        augment: random changes.
        seed: seed of the run.
        epoch: from 0.
        quotas: from `epoch_quotas`, if `images` are those of several sets; empty draws each image once.
        done: number of batches to skip at the beginning.
        part: (index, number) of the equal parts of each batch to yield: the share of one of several processes. Sizes
            differ by at most one image.

    Raises:
        UserError: a batch has fewer images than parts; parts that are to be mixed would not consist of whole pairs.
    """
    count = len(images)
    draw = generator(seed, "epoch", epoch)
    order = mixed_order(quotas, seed, epoch, draw) if quotas else torch.randperm(count, generator=draw)
    order = order[: count - count % batch_size or None]
    change = draw_changes(images, order, augment, seed, ("epoch", epoch), draw)
    mixing = draw_mixing(count, images.image_size, augment, seed, ("epoch", epoch), images.labels.device)
    size, (which, parts) = min(batch_size, len(order)), part
    if size < parts:
        raise UserError(f"{parts} processes cannot share batches of {size} images; start fewer, or use larger batches")
    if mixing and parts > 1 and size % (2 * parts):
        raise UserError(
            f"{parts} processes cannot share batches of {size} images that are mixed in pairs (augment."
            f"{augment.mixing}); make training.batch_size a multiple of {2 * parts}"
        )
    first, last = size * which // parts, size * (which + 1) // parts
    mine = order.view(-1, size)[done:, first:last].reshape(-1)
    start = done * size + first
    for pixels, labels, rows in images.batches(mine, last - first):
        part_of_epoch = slice(start, start + len(pixels))
        batch = Batch(change(pixels, part_of_epoch), labels, rows)
        yield _mixed(batch, Mixing(*(draws[part_of_epoch] for draws in mixing))) if mixing else batch
        start += size


def _mixed(batch: Batch, mixing: Mixing) -> Batch:
    """A batch each image of which is mixed with its partner's, by draws for these images."""
    other = partners(len(batch.rows), batch.images.device)
    of_others = batch.images.permute(0, 2, 3, 1).index_select(0, other).permute(0, 3, 1, 2)  # stays channels last
    images = mix(batch.images, of_others, mixing)
    return batch._replace(images=images, partner_labels=batch.labels.index_select(0, other), share=mixing.share)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches of `training_batches` for `count` images."""
    return max(count // batch_size, 1)


def view_batches(
    images: ImageSet, augment: AugmentSettings, seed: int, view: int, batch_size: int = 512
) -> Iterator[Batch]:
    """All images in order, with random changes that depend on (seed, view) alone. Images are not mixed."""
    order = torch.arange(len(images))
    change = draw_changes(images, order, augment, seed, ("view", view), generator(seed, "view", view))
    for pixels, labels, rows in images.batches(order, batch_size):
        part = slice(int(rows[0]), int(rows[0]) + len(rows))
        yield Batch(change(pixels, part), labels, rows)


def evaluation_batches(images: ImageSet, batch_size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, without augmentation: normalised float32 (B, 3, S, S), and labels."""
    for pixels, labels, _ in images.batches(torch.arange(len(images)), batch_size):
        yield normalise(pixels), labels

"""Outputs of a network for all images of a set, as metrics need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import evaluation_batch_size
from emoreg.data.images.image_set import ImageSet
from emoreg.runtime.out_of_memory import in_halves

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


def outputs_in_order(
    images: ImageSet,
    fabric: Fabric,
    compute: Callable[[Tensor], T],
    rows: Tensor | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, T]]:
    """Yield pixels uint8 (B, 3, S, S), labels and outputs of all images in order, without augmentation.

    Args:
        images: on the device.
        fabric: device and precision.
        compute: maps normalised images, float32 (B, 3, S, S), to outputs.
        rows: int64 (M,), on the CPU, indices of the images; None for all.
        batch_size: B; None for `evaluation_batch_size`.

    Raises:
        UserError: an image that is decoded on demand has become unreadable; one image alone does not fit into memory.
    """
    order = torch.arange(len(images)) if rows is None else rows
    for pixels, labels, _ in images.batches(order, batch_size or evaluation_batch_size(images.image_size)):
        outputs = partial(_outputs, fabric, compute, pixels, labels)
        yield from in_halves(outputs, slice(0, len(labels)), fabric.device)


def _outputs(
    fabric: Fabric, compute: Callable[[Tensor], T], pixels: Tensor, labels: Tensor, part: slice
) -> tuple[Tensor, Tensor, T]:
    with fabric.autocast():
        return pixels[part], labels[part], compute(normalise(pixels[part]))

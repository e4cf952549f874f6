"""Mixup and CutMix: mix each image, and its label, with another image of the batch.

Images are mixed in pairs of neighbours in the batch, whose order is random. Several processes can therefore each mix
their own part of a batch, with the same result as one process. λ and the choice between mixup and CutMix are drawn for
each image instead of once per batch, so that each step sees many strengths. timm's Mixup does so in a loop over the
images (5 times slower at 32 pixels on a CPU), and draws from NumPy's global state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.boxes import centred_boxes, inside
from emoreg.runtime.seeding import drawn_from, generator

CUTMIX = 0.5  # probability of CutMix if both are enabled, as in timm


class Mixing(NamedTuple):
    """How each of N images is mixed with its partner."""

    share: Tensor  # float32 (N,), in [0, 1]: weight of the image itself, and of its label
    is_cut: Tensor  # bool (N,): True for CutMix, False for mixup
    boxes: Tensor  # int64 (N, 4): boxes that CutMix takes from the partner; see `inside`


def draw_mixing(
    count: int, size: int, augment: AugmentSettings, seed: int, purpose: tuple[str | int, ...], device: torch.device
) -> Mixing | None:
    """Draw how to mix the images of an epoch; None if mixing is disabled.

    CutMix's boxes have 1 - λ of the area, are centred on a random pixel, and are clipped at the border; the share is
    the area that is left outside the clipped box (Yun et al. 2019, and their code).

    Args:
        count: N, number of images.
        size: S, side of the images in pixels.
        augment: settings of the augmentation.
        seed: seed of the run.
        purpose: purpose of the draws, such as ("epoch", 3).
        device: device of the images.
    """
    if augment.mixing is None:
        return None
    draw = generator(seed, *purpose, "mix")
    with drawn_from(seed, *purpose, "lambda"):  # torch.distributions take no generator
        mixup, cutmix = (
            torch.distributions.Beta(alpha, alpha).sample((count,)) if alpha else torch.ones(count)
            for alpha in (augment.mixup, augment.cutmix)
        )
    is_mixed = torch.rand(count, generator=draw) < augment.mix_share
    probability = CUTMIX if augment.mixup and augment.cutmix else float(augment.cutmix > 0)
    is_cut = torch.rand(count, generator=draw) < probability
    mixup, cutmix = mixup.where(is_mixed, 1.0), cutmix.where(is_mixed, 1.0)
    sides = (size * (1 - cutmix).sqrt()).long() * is_cut
    boxes = centred_boxes(sides, size, draw)
    top, bottom, left, right = boxes.unbind(dim=1)
    kept = 1 - (bottom - top) * (right - left) / size**2
    mixing = Mixing(torch.where(is_cut, kept, mixup), is_cut, boxes)
    return Mixing(*(part.to(device) for part in mixing))


def partners(count: int, device: torch.device) -> Tensor:
    """Position of each image's partner in a batch, int64 (B,): its neighbour, or itself for an unpaired last image."""
    return (torch.arange(count, device=device) ^ 1).clamp_(max=count - 1)


def mix(images: Tensor, other: Tensor, mixing: Mixing) -> Tensor:
    """Mix images with their partners.

    Args:
        images: images (B, 3, S, S), normalised.
        other: their partners, in the same order.
        mixing: the draws for these images.
    """
    weight = (1 - mixing.share)[:, None, None]  # of the partner
    weight = torch.where(mixing.is_cut[:, None, None], inside(mixing.boxes, images.shape[-1]), weight)  # (B, S, S)
    return torch.lerp(images, other, weight[:, None])

"""Mixup and CutMix: images that are partly another image of their batch, and so are their labels.

Images are mixed in pairs of neighbours in the batch, whose order is random: so the parts of a batch that several
processes share can be mixed each by itself, with the result that one process would have. λ and the choice between
mixup and CutMix are drawn for each image, not once a batch: as cheap here, and one step then sees many strengths.
timm's Mixup does that in a loop over the images (5 times slower at 32 pixels on a CPU), and draws from NumPy's global
state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.boxes import centred_boxes, inside
from emoreg.runtime.seeding import drawn_from, generator

CUTMIX = 0.5  # probability of CutMix where both are asked for, as in timm


class Mixing(NamedTuple):
    """How each of N images is mixed with its partner."""

    share: Tensor  # float32 (N,), in [0, 1]: how much of image and label stays the image's own
    is_cut: Tensor  # bool (N,): by CutMix, or else by mixup
    boxes: Tensor  # int64 (N, 4): what CutMix takes from the partner; see `inside`


def draw_mixing(
    count: int, size: int, augment: AugmentSettings, seed: int, purpose: tuple[str | int, ...], device: torch.device
) -> Mixing | None:
    """Draws for `count` images of `size` pixels a side; None if none are to be mixed.

    CutMix's boxes have 1 - λ of the area, around any pixel, and are cut off at the border; the share is what they leave
    in fact (Yun et al. 2019, and their code).

    Args:
        count: N.
        size: S.
        augment: mixup, cutmix and mix_share are used.
        seed: of the run.
        purpose: of the draws, such as ("epoch", 3).
        device: of the images.
    """
    if augment.mixing is None:
        return None
    draw = generator(seed, *purpose, "mix")
    with drawn_from(seed, *purpose, "lambda"):  # distributions take no generator
        shares = [_beta(alpha, count) if alpha else None for alpha in (augment.mixup, augment.cutmix)]
    is_mixed = torch.rand(count, generator=draw) < augment.mix_share
    probability = CUTMIX if augment.mixup and augment.cutmix else float(augment.cutmix > 0)
    is_cut = torch.rand(count, generator=draw) < probability
    mixup, cutmix = (torch.ones(count) if share is None else share.where(is_mixed, 1.0) for share in shares)
    sides = (size * (1 - cutmix).sqrt()).long() * is_cut
    boxes = centred_boxes(sides, size, draw)
    top, bottom, left, right = boxes.unbind(dim=1)
    kept = 1 - (bottom - top) * (right - left) / size**2
    mixing = Mixing(torch.where(is_cut, kept, mixup), is_cut, boxes)
    return Mixing(*(part.to(device) for part in mixing))


def _beta(alpha: float, count: int) -> Tensor:
    return torch.distributions.Beta(alpha, alpha).sample((count,))


def partners(count: int, device: torch.device) -> Tensor:
    """The partner of each image of a batch, int64 (B,): its neighbour. The last of an odd number has none: itself."""
    return (torch.arange(count, device=device) ^ 1).clamp_(max=count - 1)


def mix(images: Tensor, other: Tensor, mixing: Mixing) -> Tensor:
    """Mixed images (B, 3, S, S).

    Args:
        images: (B, 3, S, S), normalised.
        other: their partners, in the same order.
        mixing: of these images.
    """
    taken = (1 - mixing.share)[:, None, None]
    taken = torch.where(mixing.is_cut[:, None, None], inside(mixing.boxes, images.shape[-1]), taken)  # (B, S, S)
    return torch.lerp(images, other, taken[:, None])

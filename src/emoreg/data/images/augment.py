"""Preprocessing of pixels before they reach the network: augmentation, normalisation, scaling."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.config.augment import AugmentSettings
from emoreg.config.normalisation import MEAN, STD
from emoreg.data.images.boxes import cropped_boxes, draw_erased, erase
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.policies import apply_round, draw_rounds
from emoreg.errors import SettingError
from emoreg.runtime.seeding import generator


def normalise(images: Tensor) -> Tensor:
    """Normalise pixels, uint8 (B, 3, H, W), to float32 (B, 3, H, W), channels last in memory.

    Each channel is scaled to [0, 1], minus ImageNet's mean, (0.485, 0.456, 0.406), divided by ImageNet's standard
    deviation, (0.229, 0.224, 0.225).

    Raises:
        SettingError: `images` have another type or shape. Floats are refused because they may be normalised already.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise SettingError("images", f"must be pixels, uint8 (B, 3, H, W), not {_describe(images)}")
    count, _, height, width = images.shape
    # Work on whole lines of pixels, (B, H, 3 · W), with the statistics repeated along a line: kernels are not
    # vectorised over an inner dimension of three.
    lines = images.permute(0, 2, 3, 1).reshape(count, height, 3 * width).to(torch.float32)
    mean, std = _statistics(width, images.device)
    return lines.sub_(mean).div_(std).view(count, height, width, 3).permute(0, 3, 1, 2)


def _describe(images: object) -> str:
    if not isinstance(images, Tensor):
        return f"a {type(images).__name__}; give torch.from_numpy(images)"
    kind = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if images.ndim == 4 and images.shape[-1] == 3 != images.shape[1]:
        return f"{kind}; give images.permute(0, 3, 1, 2)"
    if images.is_floating_point():
        return f"{kind}; if values are in [0, 1], give (images * 255).round().byte(); if normalised, do not call this"
    return kind


@functools.lru_cache(maxsize=64)
def _statistics(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a line of 8-bit pixels, float32 (3 · W,) each, in the order R, G, B, R, ...

    Cached because copying to a GPU synchronises with it.
    """
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).mul_(255).repeat(width) for values in (MEAN, STD))
    return mean, std


def crop_and_flip(images: Tensor, padding: int, offsets: Tensor, mirrored: Tensor) -> Tensor:
    """Pad images with zeros, crop each at its own offsets, and mirror some of them left to right.

    Args:
        images: uint8 (B, 3, H, W), fastest if channels are last in memory.
        padding: width of the border in pixels.
        offsets: int64 (B, 2), down and right, in [0, 2 · padding].
        mirrored: bool (B,), whether to mirror each image.
    """
    count, _, height, width = images.shape
    device = images.device
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))  # (B, H + 2p, W + 2p, 3)
    down, right = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = torch.arange(count, device=device)[:, None] * padded.shape[1] + offsets[:, :1] + down  # (B, H)
    columns = offsets[:, 1:] + torch.where(mirrored[:, None], right.flip(0), right)  # (B, W)
    pixels = rows[:, :, None] * padded.shape[2] + columns[:, None, :]  # one gather crops and mirrors
    chosen = padded.reshape(-1, 3).index_select(0, pixels.view(-1))
    return chosen.view(count, height, width, 3).permute(0, 3, 1, 2)


def crop_and_enlarge(images: Tensor, boxes: Tensor) -> Tensor:
    """Scale each image's box to the size of the image, bilinearly. A box is at most as large, so nothing aliases.

    Args:
        images: uint8 (B, 3, S, S).
        boxes: int64 (B, 4); see `boxes.inside`.
    """
    size = images.shape[-1]
    centres = (torch.arange(size, device=images.device) + 0.5) / size  # of pixels, in [0, 1]

    def coordinates(first: Tensor, last: Tensor) -> Tensor:
        return 2 * (first[:, None] + centres * (last - first)[:, None]) / size - 1  # (B, S), in [-1, 1]

    top, bottom, left, right = boxes.unbind(dim=1)
    x, y = coordinates(left, right)[:, None, :], coordinates(top, bottom)[:, :, None]
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=3)
    enlarged = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return enlarged.round_().to(torch.uint8)


def resize(images: Tensor, size: int) -> Tensor:
    """Scale normalised images (B, 3, S, S) to `size` pixels a side, with antialiasing."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def draw_changes(
    images: ImageSet,
    order: Tensor,
    augment: AugmentSettings,
    seed: int,
    purpose: tuple[str, int],
    draw: torch.Generator,
) -> Callable[[Tensor, slice], Tensor]:
    """Draw the augmentation of an epoch's images, except for mixing.

    Args:
        images: the set; only its length, image size and device are used.
        order: row numbers of the images, by position in the epoch.
        augment: settings of the augmentation.
        seed: seed of the run.
        purpose: ("epoch", number) or ("view", number), which seeds a separate generator for each change that does
            not use `draw`. Switching one change on therefore does not alter the others.
        draw: generator of crops and flips.

    Returns:
        A function that takes images, uint8 (B, 3, S, S), and the slice of their positions in the epoch, and returns
        them augmented and normalised, float32 (B, 3, S, S).
    """
    count, size, device = len(images), images.image_size, images.labels.device
    offsets = torch.randint(0, 2 * augment.crop_padding + 1, (count, 2), generator=draw).to(device)
    mirrored = torch.rand(count, generator=draw) < 0.5
    if augment.alternate_flip:
        first = torch.rand(count, generator=generator(seed, "flip", purpose[0])) < 0.5
        mirrored = (first ^ (purpose[1] % 2 == 1))[order]
    mirrored = mirrored.to(device) & augment.flip
    rounds = draw_rounds(count, size, augment, seed, purpose, device)
    crops = None
    if augment.resized_crop is not None:
        crops = cropped_boxes(count, size, augment.resized_crop, generator(seed, *purpose, "resized crop")).to(device)
    boxes = draw_erased(count, size, augment, seed, purpose, device)

    def change(pixels: Tensor, part: slice) -> Tensor:
        if crops is not None:
            pixels = crop_and_enlarge(pixels, crops[part])
        if augment.crop_padding or augment.flip:
            pixels = crop_and_flip(pixels, augment.crop_padding, offsets[part], mirrored[part])
        for kernels, values in rounds:
            pixels = apply_round(pixels, kernels[part], values[part])
        normalised = normalise(pixels)
        for box in boxes:
            erase(normalised, box[part])
        return normalised

    return change

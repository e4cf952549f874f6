"""Changes of colour, each image with a strength of its own.

torchvision's functions take one strength for a whole batch. With a call for each image TrivialAugment took 200 µs an
image of 32 pixels on one core, with the functions here 26 (of 224 pixels 930 and 920). What has no strength, and the
parts that do not depend on it, are torchvision's.

All take pixels uint8 (B, 3, H, W) and a strength float32 (B,), and give uint8 (B, 3, H, W).
"""

from __future__ import annotations

import functools
from types import ModuleType

import torch
from torch import Tensor


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Every value times `factor`, at least 0."""
    return _away_from(pixels.new_zeros((), dtype=torch.float32), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """The distance from the image's mean grey times `factor`, at least 0."""
    grey = _grey(pixels)
    return _away_from(grey.mean(dim=(1, 2, 3), keepdim=True), pixels, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """The distance of each pixel from its own grey times `factor`, at least 0."""
    return _away_from(_grey(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """The distance from the smoothed image times `factor`, at least 0; the border stays as it is.

    Smoothed: the mean of a pixel and its neighbours, the pixel counted five times. No convolution, as torchvision's:
    its filter would be copied to a GPU each time, and cuDNN would look for the fastest one for each number of images.
    """
    smoothed = pixels.to(torch.float32, copy=True)
    if min(pixels.shape[2:]) > 2:
        inner = smoothed[:, :, 1:-1, 1:-1]
        of_three = smoothed[:, :, :-2] + smoothed[:, :, 1:-1] + smoothed[:, :, 2:]
        of_nine = of_three[..., :-2] + of_three[..., 1:-1] + of_three[..., 2:]
        inner.copy_(of_nine.add_(inner, alpha=4).div_(13).round_())
    return _away_from(smoothed, pixels, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Only the `bits` highest bits of every value, whole numbers from 1 to 8."""
    return pixels & (256 - 2 ** (8 - bits)).to(torch.uint8).view(-1, 1, 1, 1)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Values from `threshold` on, 0 to 255, are inverted."""
    return torch.where(pixels >= threshold.ceil().byte().view(-1, 1, 1, 1), 255 - pixels, pixels)


def autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    """The values of each channel stretched to 0 to 255."""
    stretched: Tensor = _torchvision().autocontrast(pixels)
    return stretched


def equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """The values of each channel spread until all are equally frequent."""
    spread: Tensor = _torchvision().equalize(pixels)
    return spread


@functools.cache
def _torchvision() -> ModuleType:
    """Its functions on pixels, imported when colours first change: importing it takes as long as importing torch."""
    from torchvision.transforms.v2 import functional

    return functional


def _grey(pixels: Tensor) -> Tensor:
    grey: Tensor = _torchvision().rgb_to_grayscale(pixels).float()
    return grey


def _away_from(base: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """base + factor · (pixels - base), cut off to 0 to 255 and rounded down as torchvision does it. A factor of 1
    leaves pixels as they are, bit for bit."""
    return torch.lerp(base.expand(pixels.shape), pixels.float(), factor.view(-1, 1, 1, 1)).clamp_(0, 255).byte()

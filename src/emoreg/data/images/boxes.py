"""Rectangles of images: drawn for random erasing, cutout and CutMix, and filled with the mean colour.

timm's RandomErasing goes through the images one by one (3 times slower at 32 pixels on a CPU), torchvision's has to be
called for each (20 times), and neither takes a generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from emoreg.config.augment import AugmentSettings
from emoreg.runtime.seeding import generator

# Random erasing (Zhong et al. 2020, section 4): the rectangle's share of the area, and its height in widths.
AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
CROP_ASPECT = (3 / 4, 4 / 3)  # width in heights of a random resized crop (Szegedy et al. 2015, section 6)
ATTEMPTS = 10  # at a rectangle that fits into the image, as in torchvision; about one in twenty does not at once


def draw_erased(
    count: int, size: int, augment: AugmentSettings, seed: int, purpose: tuple[str | int, ...], device: torch.device
) -> list[Tensor]:
    """Boxes to erase from each of `count` images, int64 (N, 4) for each kind that is asked for; see `inside`.

    Args:
        count: N.
        size: S, side of the images in pixels.
        augment: erase and cutout are used.
        seed: of the run.
        purpose: of the draws, such as ("epoch", 3).
        device: of the images.
    """
    boxes = []
    if augment.erase:
        boxes.append(random_boxes(count, size, augment.erase, generator(seed, *purpose, "erase")))
    if augment.cutout:
        draw = generator(seed, *purpose, "cutout")
        boxes.append(centred_boxes(torch.full((count,), round(augment.cutout * size)), size, draw))
    return [each.to(device) for each in boxes]


def random_boxes(count: int, size: int, probability: float, draw: torch.Generator) -> Tensor:
    """A rectangle of random area and shape within each image, int64 (N, 4); empty with probability 1 - `probability`.

    Shapes are drawn evenly in the logarithm, as in torchvision, so that wide and high ones are equally frequent.
    """
    is_erased = torch.rand(count, generator=draw) < probability
    sides = _draw_sides(count, size, AREA, ASPECT, draw).flip(dims=(2,))
    return _place(sides, (sides < size).all(dim=2) & is_erased[:, None], 0, size, draw)


def cropped_boxes(count: int, size: int, smallest: float, draw: torch.Generator) -> Tensor:
    """A rectangle of random area and shape within each image, for a random resized crop, int64 (N, 4); see `inside`.

    As torchvision's RandomResizedCrop: the area evenly, the shape evenly in the logarithm; the whole image where no
    attempt fits.

    Args:
        count: N.
        size: S.
        smallest: share of the image's area, in (0, 1].
        draw: of all of it.
    """
    sides = _draw_sides(count, size, (smallest, 1), CROP_ASPECT, draw)
    return _place(sides, ((sides > 0) & (sides <= size)).all(dim=2), size, size, draw)


def _draw_sides(
    count: int, size: int, areas: tuple[float, float], aspects: tuple[float, float], draw: torch.Generator
) -> Tensor:
    """Heights and widths of attempts at a rectangle, int64 (N, 10, 2): shares of the area, and widths in heights."""
    area = torch.rand(count, ATTEMPTS, generator=draw) * (areas[1] - areas[0]) + areas[0]
    low, high = map(math.log, aspects)
    aspect = (torch.rand(count, ATTEMPTS, generator=draw) * (high - low) + low).exp()
    return (size * torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=2)).round().long()


def _place(sides: Tensor, fits: Tensor, otherwise: int, size: int, draw: torch.Generator) -> Tensor:
    """The first of an image's attempts (N, 10, 2) that fits, bool (N, 10), anywhere in it: int64 (N, 4).

    Without one, a square of `otherwise` pixels a side.
    """
    chosen = sides[torch.arange(len(sides)), fits.int().argmax(dim=1)]
    chosen = torch.where(fits.any(dim=1)[:, None], chosen, otherwise)  # (N, 2)
    start = (torch.rand(len(sides), 2, generator=draw) * (size - chosen + 1)).long()
    return torch.stack([start, start + chosen], dim=2).view(-1, 4)


def centred_boxes(sides: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """A square around any pixel of each image, int64 (N, 4), cut off at the border.

    Args:
        sides: int64 (N,), in pixels.
        size: S.
        draw: of the centres.
    """
    start = torch.randint(size, (len(sides), 2), generator=draw) - sides[:, None] // 2
    ends = torch.stack([start, start + sides[:, None]], dim=2)
    return ends.clamp_(0, size).view(-1, 4)


def inside(boxes: Tensor, size: int) -> Tensor:
    """Whether each pixel is in the image's box, bool (B, S, S).

    Args:
        boxes: int64 (B, 4): first row, row after the last, first column, column after the last.
        size: S.
    """
    place = torch.arange(size, device=boxes.device)
    top, bottom, left, right = boxes[:, :, None].unbind(dim=1)  # (B, 1) each
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    return rows[:, :, None] & columns[:, None, :]


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Normalised images (B, 3, S, S), changed in place: 0, which is the mean colour, in the boxes (B, 4)."""
    return images.masked_fill_(inside(boxes, images.shape[-1])[:, None], 0.0)

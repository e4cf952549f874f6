"""Random rectangles for random erasing, cutout, CutMix and random resized crops.

N or `count` is the number of images, S or `size` their side in pixels, `draw` the generator of all random numbers.
timm's RandomErasing loops over the images (3 times slower at 32 pixels on a CPU), torchvision's has to be called for
each image (20 times slower), and neither takes a generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from emoreg.config.augment import AugmentSettings
from emoreg.runtime.seeding import generator

# Random erasing (Zhong et al. 2020, section 4): the rectangle's share of the area, and height / width.
AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
CROP_ASPECT = (3 / 4, 4 / 3)  # width / height of a random resized crop (Szegedy et al. 2015, section 6)
ATTEMPTS = 10  # rectangles drawn, of which the first that fits is used, as in torchvision; about 95 % fit at once


def draw_erased(
    count: int, size: int, augment: AugmentSettings, seed: int, purpose: tuple[str | int, ...], device: torch.device
) -> list[Tensor]:
    """Draw boxes to erase from each image: int64 (N, 4) for `erase` and for `cutout`, if enabled; see `inside`.

    The arguments are those of `mixing.draw_mixing`.
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

    Aspect ratios are log-uniform, as in torchvision, so that wide and high rectangles are equally frequent.
    """
    is_erased = torch.rand(count, generator=draw) < probability
    sides = _draw_sides(count, size, AREA, ASPECT, draw).flip(dims=(2,))
    return _place(sides, (sides < size).all(dim=2) & is_erased[:, None], 0, size, draw)


def cropped_boxes(count: int, size: int, smallest: float, draw: torch.Generator) -> Tensor:
    """A rectangle of random area and shape within each image, for a random resized crop, int64 (N, 4); see `inside`.

    As in torchvision's RandomResizedCrop, the area is uniform, from `smallest` to 1, and the aspect ratio log-uniform;
    if no attempt fits, the box is the whole image.
    """
    sides = _draw_sides(count, size, (smallest, 1), CROP_ASPECT, draw)
    return _place(sides, ((sides > 0) & (sides <= size)).all(dim=2), size, size, draw)


def _draw_sides(
    count: int, size: int, areas: tuple[float, float], aspects: tuple[float, float], draw: torch.Generator
) -> Tensor:
    """Heights and widths of rectangles, int64 (N, ATTEMPTS, 2), given ranges of the area's share and width / height."""
    area = torch.rand(count, ATTEMPTS, generator=draw) * (areas[1] - areas[0]) + areas[0]
    low, high = map(math.log, aspects)
    aspect = (torch.rand(count, ATTEMPTS, generator=draw) * (high - low) + low).exp()
    return (size * torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=2)).round().long()


def _place(sides: Tensor, fits: Tensor, default: int, size: int, draw: torch.Generator) -> Tensor:
    """Place the first of `sides` (N, ATTEMPTS, 2) that fits at random within each image: int64 (N, 4).

    If none fits, a square of `default` pixels a side is placed.
    """
    chosen = sides[torch.arange(len(sides)), fits.int().argmax(dim=1)]
    chosen = torch.where(fits.any(dim=1)[:, None], chosen, default)  # (N, 2)
    start = (torch.rand(len(sides), 2, generator=draw) * (size - chosen + 1)).long()
    return torch.stack([start, start + chosen], dim=2).view(-1, 4)


def centred_boxes(sides: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """A square of `sides` (N,) pixels around a random pixel of each image, int64 (N, 4), clipped at the border."""
    start = torch.randint(size, (len(sides), 2), generator=draw) - sides[:, None] // 2
    ends = torch.stack([start, start + sides[:, None]], dim=2)
    return ends.clamp_(0, size).view(-1, 4)


def inside(boxes: Tensor, size: int) -> Tensor:
    """Mask of the pixels inside each image's box, bool (B, S, S).

    Boxes, int64 (B, 4), are: first row, row after the last, first column, column after the last.
    """
    index = torch.arange(size, device=boxes.device)
    top, bottom, left, right = boxes[:, :, None].unbind(dim=1)  # (B, 1) each
    rows, columns = (index >= top) & (index < bottom), (index >= left) & (index < right)
    return rows[:, :, None] & columns[:, None, :]


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Fill the boxes (B, 4) of normalised images (B, 3, S, S) with 0, the mean colour, in place."""
    return images.masked_fill_(inside(boxes, images.shape[-1])[:, None], 0.0)

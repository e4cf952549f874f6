"""TrivialAugment, RandAugment and colour jitter: rounds of random changes, in each of which every image has its own.

An operation is applied to all images of a batch that have drawn it, at once. Which ones these are is known on the CPU,
where draws are made, so a GPU is never waited for. torchvision's classes draw once a batch, or have to be called for
each image (8 times slower at 32 pixels on a CPU), and take no generator; kornia's draw the operation once a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.colour import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from emoreg.runtime.seeding import generator

BINS = 31  # strengths of an operation, from none to most (both papers)
# The operations of both papers, in torchvision's order.
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",  # "Color" there
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
POSTERIZE, SOLARIZE = OPERATIONS.index("posterize"), OPERATIONS.index("solarize")


class Round(NamedTuple):
    """One change of each of N images, by their positions in an epoch."""

    kernels: Tensor  # int64 (N,), on the CPU: indices into `KERNELS`
    values: Tensor  # float32 (N, 6), on the device: the strength in column 0, or the 2 x 3 matrix of a warp


def warp(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Each image through its own affine map: nearest neighbour, black outside.

    Args:
        pixels: uint8 (B, 3, S, S).
        matrices: float32 (B, 2, 3), from places in the result to places in the image, both from -1 to 1.
    """
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, mode="nearest", align_corners=False).round_().byte()


KERNELS: tuple[Callable[[Tensor, Tensor], Tensor] | None, ...] = (
    None,  # the image stays as it is
    warp,
    brightness,
    saturation,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
)
WARP = KERNELS.index(warp)
KERNEL_OF = torch.tensor([0] + [WARP] * 5 + list(range(WARP + 1, len(KERNELS))))  # by index into `OPERATIONS`


def draw_rounds(
    count: int, size: int, augment: AugmentSettings, seed: int, purpose: tuple[str | int, ...], device: torch.device
) -> list[Round]:
    """The rounds of a policy and of colour jitter for `count` images of `size` pixels a side; empty for neither.

    Args:
        count: N.
        size: S.
        augment: policy and jitter are used.
        seed: of the run.
        purpose: of the draws, such as ("epoch", 3).
        device: of the images.
    """
    rounds = []
    if augment.policy != "none":
        draw, table = generator(seed, *purpose, "policy"), strengths(augment.policy, size)
        for _ in range(augment.policy_ops if augment.policy == "rand" else 1):
            operations = torch.randint(len(OPERATIONS), (count,), generator=draw)
            if augment.policy == "trivial":
                bins = torch.randint(BINS, (count,), generator=draw)
            else:
                bins = torch.full((count,), augment.policy_magnitude)
            is_negative = torch.rand(count, generator=draw) < 0.5
            values = values_of(operations, table[operations, bins], is_negative, size)
            rounds.append(Round(KERNEL_OF[operations], values.to(device)))
    if augment.jitter:
        draw = generator(seed, *purpose, "jitter")
        kinds = torch.tensor([KERNELS.index(change) for change in (brightness, contrast, saturation)])
        orders = kinds[torch.rand(count, 3, generator=draw).argsort(dim=1)]  # (N, 3)
        factors = 1 + augment.jitter * (2 * torch.rand(count, 3, generator=draw) - 1)
        for turn in range(3):
            values = F.pad(factors[:, turn, None], (0, 5))
            rounds.append(Round(orders[:, turn], values.to(device)))
    return rounds


def strengths(policy: str, size: int) -> Tensor:
    """The published strengths of each operation, float32 (14, 31), before a sign is drawn.

    Shears are slopes, translations pixels, rotations degrees; brightness to sharpness are distances of the factor
    from 1; posterize is a number of bits, solarize a threshold from 0 to 255; the others have none.

    Args:
        policy: "trivial" for the wide space of TrivialAugment (Müller & Hutter 2021, table 1), "rand" for RandAugment
            (Cubuk et al. 2020), as torchvision has both.
        size: side of the images in pixels. RandAugment's translations are in proportion to it.
    """
    is_wide = policy == "trivial"
    shear, shift, turn, colour, bits = (
        (0.99, 32.0, 135.0, 0.99, 6) if is_wide else (0.3, 150 / 331 * size, 30.0, 0.9, 4)
    )
    most = [0.0, shear, shear, shift, shift, turn, colour, colour, colour, colour, 0.0, 0.0, 0.0, 0.0]
    share = torch.linspace(0, 1, BINS)
    table = torch.tensor(most)[:, None] * share
    table[POSTERIZE] = (8 - bits * share).round()
    table[SOLARIZE] = 255 * (1 - share)
    return table


def values_of(operations: Tensor, strength: Tensor, is_negative: Tensor, size: int) -> Tensor:
    """What the kernels of operations take (N, 6); see `Round`.

    Args:
        operations: int64 (N,), indices into `OPERATIONS`.
        strength: float32 (N,), of `strengths`.
        is_negative: bool (N,). Ignored where a strength has no sign.
        size: side of the images in pixels.
    """
    signed = torch.where(is_negative, -strength, strength)
    shear_x, shear_y, right, down, angle = (
        torch.where(operations == number, signed, 0.0) for number in range(1, 1 + 5)
    )
    right, down = (2 / size * pixels.trunc() for pixels in (right, down))  # whole pixels, as in torchvision
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    # The inverse of each map, as an image is read at the places where its pixels come from. Shears leave the upper
    # left corner where it is: the place (-1, -1).
    matrix = torch.stack([cos, shear_x - sin, shear_x - right, sin + shear_y, cos, shear_y - down], dim=1)
    plain = torch.where((operations > 5) & (operations < POSTERIZE), 1 + signed, strength)
    is_warp = (KERNEL_OF[operations] == WARP)[:, None]
    return torch.where(is_warp, matrix, F.pad(plain[:, None], (0, 5)))


def apply_round(pixels: Tensor, kernels: Tensor, values: Tensor) -> Tensor:
    """Changed images uint8 (B, 3, S, S), channels last in memory.

    Args:
        pixels: uint8 (B, 3, S, S).
        kernels: int64 (B,), on the CPU.
        values: float32 (B, 6), on the device.
    """
    counts = kernels.bincount(minlength=len(KERNELS)).tolist()
    order = kernels.argsort()
    if pixels.is_cuda:  # from pinned memory, so that the copy does not wait for the device
        order = order.pin_memory()
    rows_of_all = order.to(pixels.device, non_blocking=True).split(counts)
    before = pixels.permute(0, 2, 3, 1)  # the layout in memory, which index_select keeps
    after = before.clone()
    for change, rows in zip(KERNELS, rows_of_all, strict=True):
        if change is None or not len(rows):
            continue
        own = values.index_select(0, rows)
        strength = own.view(-1, 2, 3) if change is warp else own[:, 0]
        changed = change(before.index_select(0, rows).permute(0, 3, 1, 2), strength)
        after.index_copy_(0, rows, changed.permute(0, 2, 3, 1))
    return after.permute(0, 3, 1, 2)

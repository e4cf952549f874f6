"""TrivialAugment, RandAugment and colour jitter: rounds of random changes, drawn separately for each image.

An operation is applied at once to all images of a batch that have drawn it. Draws are made on the CPU, so which images
these are is known there, without waiting for a GPU. torchvision's classes draw once per batch or have to be called for
each image (8 times slower at 32 pixels on a CPU), and take no generator; kornia's draw the operation once per batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.config.augment import AugmentSettings
from emoreg.data.images import colour
from emoreg.runtime.seeding import generator

BINS = 31  # number of strengths of an operation, from none to the greatest (both papers)


class Round(NamedTuple):
    """One change of each of N images, indexed by position in the epoch."""

    kernels: Tensor  # int64 (N,), on the CPU: indices into `KERNELS`
    values: Tensor  # float32 (N, 6), on the device: the strength in column 0, or the 2 x 3 matrix of a warp


def warp(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Warp each image by its own affine map, with nearest-neighbour interpolation and black outside.

    Args:
        pixels: uint8 (B, 3, S, S).
        matrices: float32 (B, 2, 3), from output to input coordinates, both in [-1, 1].
    """
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, mode="nearest", align_corners=False).round_().byte()


class Operation(NamedTuple):
    """An operation of both papers, with its greatest strength in each; see `strengths`."""

    name: str
    kernel: Callable[[Tensor, Tensor], Tensor] | None  # None for the identity
    is_signed: bool = False  # whether the strength gets a random sign
    trivial: float = 0.0  # in TrivialAugment's wide space (Müller & Hutter 2021, table 1), as in torchvision
    rand: float = 0.0  # in RandAugment (Cubuk et al. 2020), as in torchvision; translations as a share of the side


TABLE = (  # in the order of torchvision
    Operation("identity", None),
    Operation("shear_x", warp, True, 0.99, 0.3),
    Operation("shear_y", warp, True, 0.99, 0.3),
    Operation("translate_x", warp, True, 32.0, 150 / 331),
    Operation("translate_y", warp, True, 32.0, 150 / 331),
    Operation("rotate", warp, True, 135.0, 30.0),
    Operation("brightness", colour.brightness, True, 0.99, 0.9),
    Operation("saturation", colour.saturation, True, 0.99, 0.9),  # "Color" in torchvision
    Operation("contrast", colour.contrast, True, 0.99, 0.9),
    Operation("sharpness", colour.sharpness, True, 0.99, 0.9),
    Operation("posterize", colour.posterize, False, 6.0, 4.0),  # bits removed
    Operation("solarize", colour.solarize, False, 255.0, 255.0),
    Operation("autocontrast", colour.autocontrast),
    Operation("equalize", colour.equalize),
)
OPERATIONS = tuple(operation.name for operation in TABLE)
KERNELS = tuple(dict.fromkeys(operation.kernel for operation in TABLE))
# By index into `OPERATIONS`:
KERNEL_OF = torch.tensor([KERNELS.index(operation.kernel) for operation in TABLE])
IS_SIGNED = torch.tensor([operation.is_signed for operation in TABLE])


def draw_rounds(
    count: int, size: int, augment: AugmentSettings, seed: int, purpose: tuple[str | int, ...], device: torch.device
) -> list[Round]:
    """Draw the rounds of a policy and of colour jitter; empty if neither is enabled.

    The arguments are those of `mixing.draw_mixing`.
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
        changes = (colour.brightness, colour.contrast, colour.saturation)
        kernels = torch.tensor([KERNELS.index(change) for change in changes])
        orders = kernels[torch.rand(count, 3, generator=draw).argsort(dim=1)]  # (N, 3)
        factors = 1 + augment.jitter * (2 * torch.rand(count, 3, generator=draw) - 1)
        for turn in range(3):
            values = F.pad(factors[:, turn, None], (0, 5))
            rounds.append(Round(orders[:, turn], values.to(device)))
    return rounds


def strengths(policy: str, size: int) -> Tensor:
    """The published strengths of each operation, float32 (14, 31), without sign.

    Shears are slopes, translations pixels, rotations degrees. Brightness, saturation, contrast and sharpness are
    differences of the factor from 1. Posterize is a number of bits, solarize a threshold from 0 to 255. The other
    operations have no strength.
    """
    share = torch.linspace(0, 1, BINS)
    scale = {"translate_x": size, "translate_y": size}
    most = [each.trivial if policy == "trivial" else each.rand * scale.get(each.name, 1) for each in TABLE]
    table = torch.tensor(most)[:, None] * share
    bits, threshold = OPERATIONS.index("posterize"), OPERATIONS.index("solarize")  # lower values are stronger
    table[bits] = (8 - table[bits]).round()
    table[threshold] = most[threshold] * (1 - share)
    return table


def values_of(operations: Tensor, strength: Tensor, is_negative: Tensor, size: int) -> Tensor:
    """Arguments of the operations' kernels, float32 (N, 6); see `Round`.

    Args:
        operations: int64 (N,), indices into `OPERATIONS`.
        strength: float32 (N,), from `strengths`.
        is_negative: bool (N,). Ignored for operations without a sign.
        size: side of the images in pixels.
    """
    signed = torch.where(is_negative, -strength, strength)
    shear_x, shear_y, right, down, angle = (
        torch.where(operations == OPERATIONS.index(name), signed, 0.0)
        for name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
    )
    right, down = (2 / size * pixels.trunc() for pixels in (right, down))  # whole pixels, as in torchvision
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    # The inverse of each map, from output to input coordinates. Shears keep the upper left corner, (-1, -1), fixed.
    matrix = torch.stack([cos, shear_x - sin, shear_x - right, sin + shear_y, cos, shear_y - down], dim=1)
    scalar = torch.where(IS_SIGNED[operations], 1 + signed, strength)  # signed operations other than warps take factors
    is_warp = (KERNEL_OF[operations] == KERNELS.index(warp))[:, None]
    return torch.where(is_warp, matrix, F.pad(scalar[:, None], (0, 5)))


def apply_round(pixels: Tensor, kernels: Tensor, values: Tensor) -> Tensor:
    """Apply one change to each image: uint8 (B, 3, S, S), channels last in memory.

    Args:
        pixels: uint8 (B, 3, S, S).
        kernels: int64 (B,), on the CPU.
        values: float32 (B, 6), on the device.
    """
    counts = kernels.bincount(minlength=len(KERNELS)).tolist()
    order = kernels.argsort()
    if pixels.is_cuda:  # copied from pinned memory without waiting for the device
        order = order.pin_memory()
    rows_of_kernels = order.to(pixels.device, non_blocking=True).split(counts)
    before = pixels.permute(0, 2, 3, 1)  # the layout in memory, which index_select preserves
    after = before.clone()
    for change, rows in zip(KERNELS, rows_of_kernels, strict=True):
        if change is None or not len(rows):
            continue
        arguments = values.index_select(0, rows)
        strength = arguments.view(-1, 2, 3) if change is warp else arguments[:, 0]
        changed = change(before.index_select(0, rows).permute(0, 3, 1, 2), strength)
        after.index_copy_(0, rows, changed.permute(0, 2, 3, 1))
    return after.permute(0, 3, 1, 2)

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as reference

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.policies import (
    KERNEL_OF,
    OPERATIONS,
    apply_round,
    draw_rounds,
    strengths,
    values_of,
    warp,
)

SIZE = 24
CPU = torch.device("cpu")


@pytest.fixture
def pixels() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (10, SIZE, SIZE, 3), dtype=torch.uint8, generator=draw).permute(0, 3, 1, 2)


def changed(pixels: Tensor, operation: str, strength: float, is_negative: bool = False) -> Tensor:
    """Apply one operation of one strength to all images."""
    operations = torch.full((len(pixels),), OPERATIONS.index(operation))
    sign = torch.full((len(pixels),), is_negative)
    values = values_of(operations, torch.full((len(pixels),), strength), sign, SIZE)
    return apply_round(pixels, KERNEL_OF[operations], values)


@pytest.mark.parametrize(
    ("policy", "shear", "pixels_shifted", "degrees", "factor", "bits"),
    [("trivial", 0.99, 32, 135, 0.99, 2), ("rand", 0.3, 150 / 331 * SIZE, 30, 0.9, 4)],
)
def test_strengths_are_31_even_steps_to_the_published_maxima(
    policy: str, shear: float, pixels_shifted: float, degrees: float, factor: float, bits: int
) -> None:
    table = dict(zip(OPERATIONS, strengths(policy, SIZE), strict=True))
    most = {"shear_x": shear, "shear_y": shear, "translate_x": pixels_shifted, "translate_y": pixels_shifted}
    most |= {"rotate": degrees} | dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), factor)
    for name, end in most.items():
        assert_close(table[name], torch.linspace(0, end, 31))
    assert_close(table["solarize"], 255 * torch.linspace(1, 0, 31))
    assert table["posterize"].tolist() == [round(8 - step * (8 - bits) / 30) for step in range(31)]
    assert not any(table[name].any() for name in ("identity", "autocontrast", "equalize"))


def test_strength_zero_changes_nothing(pixels: Tensor) -> None:
    for policy in ("trivial", "rand"):
        for name, row in zip(OPERATIONS, strengths(policy, SIZE), strict=True):
            if name not in ("autocontrast", "equalize", "solarize"):
                assert torch.equal(changed(pixels, name, row[0].item()), pixels)
    most_white = changed(pixels, "solarize", 255)  # of the published space: white becomes black
    assert torch.equal(most_white, torch.where(pixels == 255, 0, pixels))


@pytest.mark.parametrize("is_negative", [False, True])
@pytest.mark.parametrize("strength", [0.11, 0.5, 0.99])
def test_shears_match_torchvision(pixels: Tensor, strength: float, is_negative: bool) -> None:
    degrees = math.degrees(math.atan(-strength if is_negative else strength))
    for name, shear in (("shear_x", [degrees, 0.0]), ("shear_y", [0.0, degrees])):
        expected = reference.affine(pixels, 0.0, [0, 0], 1.0, shear, center=[0, 0])
        assert is_almost(changed(pixels, name, strength, is_negative), expected)


@pytest.mark.parametrize("shift", [1.0, 4.9, 23.0, 32.0])
def test_translations_are_whole_pixels(pixels: Tensor, shift: float) -> None:
    for is_negative in (False, True):
        by = -int(shift) if is_negative else int(shift)
        for name, translate in (("translate_x", [by, 0]), ("translate_y", [0, by])):
            expected = reference.affine(pixels, 0.0, translate, 1.0, [0.0, 0.0])
            assert torch.equal(changed(pixels, name, shift, is_negative), expected)


@pytest.mark.parametrize("degrees", [4.5, 45.0, 90.0, 135.0])
def test_rotations_match_torchvision(pixels: Tensor, degrees: float) -> None:
    for is_negative in (False, True):
        expected = reference.rotate(pixels, -degrees if is_negative else degrees)
        assert is_almost(changed(pixels, "rotate", degrees, is_negative), expected)


def is_almost(got: Tensor, expected: Tensor) -> bool:
    """Whether images are equal except where rounding decides between two pixels."""
    return (got != expected).any(dim=1).float().mean().item() < 0.01


def test_images_with_different_operations_in_a_batch_each_get_their_own(pixels: Tensor) -> None:
    operations = torch.tensor([0, 13, 5, 5, 6, 10, 12, 3, 6, 0])
    strength, sign = torch.tensor([0, 0, 30, 60, 0.5, 4, 0, 7, 0.9, 0]), torch.arange(10) % 2 == 0
    together = apply_round(pixels, KERNEL_OF[operations], values_of(operations, strength, sign, SIZE))
    for row, got in enumerate(together):
        name = OPERATIONS[operations[row]]
        assert torch.equal(got, changed(pixels[row : row + 1], name, strength[row].item(), bool(sign[row]))[0])
    assert together.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", OPERATIONS)
def test_input_images_are_not_modified(pixels: Tensor, name: str) -> None:
    before = pixels.clone()
    changed(pixels, name, 0.7)
    assert torch.equal(pixels, before)


def test_operations_strengths_and_signs_are_drawn_uniformly() -> None:
    (drawn,) = draw_rounds(40_000, SIZE, AugmentSettings(policy="trivial"), 0, ("epoch", 0), CPU)
    shares = drawn.kernels.bincount() / 40_000
    assert_close(shares, torch.tensor([1, 5, *[1] * 8]) / 14, atol=0.005, rtol=0)
    brightness = drawn.values[drawn.kernels == 2, 0]
    counts = Counter(brightness.sub(1).mul(30 / 0.99).round().int().tolist())
    assert sorted(counts) == list(range(-30, 31))  # 31 strengths, and signs
    assert counts[0] == pytest.approx(2857 / 31, rel=0.35) and counts[7] == pytest.approx(2857 / 62, rel=0.5)


def test_randaugment_makes_a_number_of_changes_of_one_strength() -> None:
    settings = AugmentSettings(policy="rand", policy_ops=3, policy_magnitude=15)
    rounds = draw_rounds(500, SIZE, settings, 0, ("epoch", 0), CPU)
    assert len(rounds) == 3 and not torch.equal(rounds[0].kernels, rounds[1].kernels)
    for kernels, values in rounds:
        assert_close(values[kernels == 2, 0].sub(1).abs().unique(), torch.tensor([0.45]))
        assert values[kernels == 6, 0].unique().tolist() == [6]  # bits


def test_jitter_multiplies_brightness_contrast_and_saturation_once_each_in_any_order(pixels: Tensor) -> None:
    rounds = draw_rounds(600, SIZE, AugmentSettings(jitter=0.4), 0, ("epoch", 0), CPU)
    orders = torch.stack([kernels for kernels, _ in rounds], dim=1)
    assert torch.equal(orders.sort(dim=1).values, torch.tensor([[2, 3, 4]]).expand(600, 3))
    assert len(orders.unique(dim=0)) == 6
    factors = torch.cat([values[:, 0] for _, values in rounds])
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4
    functions = {2: reference.adjust_brightness, 3: reference.adjust_saturation, 4: reference.adjust_contrast}
    for row, image in enumerate(pixels):
        expected, got = image, image[None]
        for kernels, values in rounds:
            expected = functions[int(kernels[row])](expected, values[row, 0].item())
            got = apply_round(got, kernels[row : row + 1], values[row : row + 1])
        assert (expected.int() - got[0].int()).abs().max() <= 4  # three roundings


def test_draws_depend_only_on_seed_and_purpose() -> None:
    settings = AugmentSettings(policy="trivial", jitter=0.4)

    def drawn(seed: int, purpose: tuple[str, int], count: int = 50) -> Tensor:
        torch.rand(3)  # other draws must not matter
        return torch.cat([values for _, values in draw_rounds(count, SIZE, settings, seed, purpose, CPU)])

    assert torch.equal(drawn(0, ("epoch", 1)), drawn(0, ("epoch", 1)))
    for other in (drawn(1, ("epoch", 1)), drawn(0, ("epoch", 2)), drawn(0, ("view", 1))):
        assert not torch.equal(drawn(0, ("epoch", 1)), other)


def test_a_warp_by_the_identity_is_the_image(pixels: Tensor) -> None:
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(10, 2, 3)
    assert torch.equal(warp(pixels, identity), pixels)

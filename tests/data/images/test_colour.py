from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from emoreg.data.images import colour
from emoreg.data.images.policies import KERNELS, warp
from fake_gpu import GPU, Copies

Change = Callable[[Tensor, Tensor], Tensor]
CHANGES = [change for change in KERNELS if change not in (None, warp)]


@pytest.fixture
def pixels() -> Tensor:
    """Noise and some images with few values, channels last in memory as in image sets."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (12, 16, 16, 3), dtype=torch.uint8, generator=draw)
    noise[0], noise[1], noise[2] = 7, 0, 255
    noise[3] = noise[3] // 4 + 90
    return noise.permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("change", "torchvisions"),
    [
        (colour.brightness, reference.adjust_brightness),
        (colour.contrast, reference.adjust_contrast),
        (colour.saturation, reference.adjust_saturation),
        (colour.sharpness, reference.adjust_sharpness),
    ],
)
def test_a_factor_per_image_matches_torchvision(
    change: Change, torchvisions: Callable[[Tensor, float], Tensor], pixels: Tensor
) -> None:
    factors = torch.linspace(0.01, 1.99, len(pixels))
    for image, factor, got in zip(pixels, factors.tolist(), change(pixels, factors), strict=True):
        difference = (torchvisions(image, factor).int() - got.int()).abs()
        assert difference.max() <= 1  # it rounds in another order
        assert (difference > 0).float().mean() < 0.05


@pytest.mark.parametrize("change", [colour.brightness, colour.contrast, colour.saturation, colour.sharpness])
def test_a_factor_of_one_changes_nothing(change: Change, pixels: Tensor) -> None:
    assert torch.equal(change(pixels, torch.ones(len(pixels))), pixels)


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_the_smoothest_image_matches_torchvision(size: int, pixels: Tensor) -> None:
    small = pixels[:, :, :size, :]
    assert torch.equal(colour.sharpness(small, torch.zeros(len(pixels))), reference.adjust_sharpness(small, 0.0))


def test_float_pixels_are_not_modified(pixels: Tensor) -> None:
    given = pixels.float()
    colour.sharpness(given, torch.zeros(len(pixels)))
    assert torch.equal(given, pixels.float())


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_waits_for_a_gpu(change: Change, pixels: Tensor) -> None:
    strength = torch.ones(len(pixels))
    change(pixels, strength)  # torchvision is imported
    there = pixels.to(GPU), strength.to(GPU)
    with Copies() as copies:
        change(*there)
    assert not copies.found


def test_posterize_matches_torchvision_for_every_number_of_bits(pixels: Tensor) -> None:
    bits = torch.arange(len(pixels)) % 8 + 1
    for image, number, got in zip(pixels, bits.tolist(), colour.posterize(pixels, bits.float()), strict=True):
        assert torch.equal(got, reference.posterize(image, number))


def test_solarize_matches_torchvision_for_every_threshold(pixels: Tensor) -> None:
    thresholds = 255 * torch.linspace(0, 1, len(pixels))
    for image, threshold, got in zip(pixels, thresholds.tolist(), colour.solarize(pixels, thresholds), strict=True):
        assert torch.equal(got, reference.solarize(image, threshold))


@pytest.mark.parametrize(
    ("change", "torchvisions"),
    [(colour.autocontrast, reference.autocontrast), (colour.equalize, reference.equalize)],
)
def test_operations_without_strength_match_torchvision_for_each_image(
    change: Change, torchvisions: Callable[[Tensor], Tensor], pixels: Tensor
) -> None:
    for image, got in zip(pixels, change(pixels, torch.zeros(len(pixels))), strict=True):
        assert torch.equal(got, torchvisions(image))


def test_torchvision_is_not_imported_unless_colours_change() -> None:
    modules = "emoreg.inference.predict, emoreg.stages.classify, emoreg.study.run_study"
    code = f"import sys, {modules}; assert not {{'torchvision', 'timm'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)

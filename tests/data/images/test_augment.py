from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.transforms import functional as reference

from emoreg.config.normalisation import MEAN, STD
from emoreg.data.images.augment import crop_and_enlarge, crop_and_flip, normalise, resize
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.runtime.progress import Progress


@pytest.fixture
def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    return load_images(Table("noise", pixels, np.arange(50, dtype=np.int64)), 8, False, 1.0, Progress(quiet=True))


def pixels_of(images: ImageSet) -> Tensor:
    assert images.pixels is not None
    return images.pixels


def test_normalise_matches_torchvision(images: ImageSet) -> None:
    expected = reference.normalize(pixels_of(images).float() / 255, list(MEAN), list(STD))
    assert_close(normalise(pixels_of(images)), expected)
    assert normalise(pixels_of(images)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("padding", [0, 2])
def test_crop_and_flip_match_torchvision_for_each_image(images: ImageSet, padding: int) -> None:
    offsets = torch.randint(0, 2 * padding + 1, (50, 2), generator=torch.Generator().manual_seed(0))
    mirrored = torch.arange(50) % 3 == 0
    for layout in (torch.contiguous_format, torch.channels_last):
        pixels = pixels_of(images).contiguous(memory_format=layout)
        changed = crop_and_flip(pixels, padding, offsets, mirrored)
        for image, (down, right), flips, got in zip(pixels, offsets.tolist(), mirrored, changed, strict=True):
            expected = reference.crop(reference.pad(image, [padding]), down, right, 8, 8)
            assert torch.equal(got, reference.hflip(expected) if flips else expected)


def test_enlarging_a_box_matches_torchvision_except_at_its_edge() -> None:
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = crop_and_enlarge(pixels, torch.tensor([[0, 16, 0, 16], [2, 8, 5, 13]]))
    assert found.dtype == torch.uint8 and torch.equal(found[0], pixels[0])  # the whole image is unchanged
    expected = reference.resized_crop(pixels[1].float(), 2, 5, 6, 8, [16, 16], antialias=False)
    inner = slice(2, -2)  # at the edge of the box, ours interpolates with the pixels around it
    assert (found[1].float() - expected)[:, inner, inner].abs().max() <= 0.5 + 1e-3


def test_resizing_keeps_the_memory_layout_and_images_of_the_right_size(images: ImageSet) -> None:
    pixels = normalise(pixels_of(images))
    assert resize(pixels, 8) is pixels
    small = resize(pixels, 4)
    assert small.shape == (50, 3, 4, 4) and small.is_contiguous(memory_format=torch.channels_last)
    assert_close(small.mean(dim=(2, 3)), pixels.mean(dim=(2, 3)), atol=0.2, rtol=0)

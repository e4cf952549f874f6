from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.boxes import inside
from emoreg.data.images.mixing import Mixing, draw_mixing, mix, partners

SIZE = 16
CPU = torch.device("cpu")


def drawn(count: int = 4000, seed: int = 0, epoch: int = 0, **settings: Any) -> Mixing:
    mixing = draw_mixing(count, SIZE, AugmentSettings(**settings), seed, ("epoch", epoch), CPU)
    assert mixing is not None
    return mixing


@pytest.fixture
def images() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(6, SIZE, SIZE, 3, generator=draw).permute(0, 3, 1, 2)


def test_partners_are_neighbours_and_an_unpaired_last_image_has_none() -> None:
    assert partners(6, CPU).tolist() == [1, 0, 3, 2, 5, 4]
    assert partners(5, CPU).tolist() == [1, 0, 3, 2, 4]
    assert partners(1, CPU).tolist() == [0]


def test_a_mixture_is_the_formula_for_each_image(images: Tensor) -> None:
    mixing, other = drawn(6, mixup=1.0, cutmix=1.0, seed=3), images.flip(0)
    assert 0 < mixing.is_cut.sum() < 6
    mixed = mix(images, other, mixing)
    for row in range(6):
        if mixing.is_cut[row]:
            expected = torch.where(inside(mixing.boxes[row : row + 1], SIZE), other[row], images[row])
            assert torch.equal(mixed[row], expected)
        else:
            share = mixing.share[row]
            assert_close(mixed[row], share * images[row] + (1 - share) * other[row])
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_an_image_with_share_one_is_unchanged_bit_for_bit(images: Tensor) -> None:
    whole = Mixing(torch.ones(6), torch.arange(6) % 2 == 0, torch.zeros(6, 4, dtype=torch.long))
    assert torch.equal(mix(images, images.flip(0), whole), images)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_are_from_the_beta_distribution(alpha: float) -> None:
    share = drawn(mixup=alpha).share
    assert share.mean().item() == pytest.approx(0.5, abs=0.03)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert not drawn(mixup=alpha).is_cut.any()


def test_the_share_of_cutmix_is_the_area_outside_its_box() -> None:
    mixing = drawn(cutmix=1.0)
    assert mixing.is_cut.all()
    assert_close(mixing.share, 1 - inside(mixing.boxes, SIZE).float().mean(dim=(1, 2)))
    assert mixing.share.mean() > 0.55  # boxes are clipped at the border
    height = mixing.boxes[:, 1] - mixing.boxes[:, 0]
    assert mixing.boxes.min() >= 0 and mixing.boxes.max() == SIZE and height.max() == SIZE - 1


def test_mixup_and_cutmix_each_mix_half_of_the_images_if_both_are_enabled() -> None:
    mixing = drawn(mixup=0.8, cutmix=1.0)
    assert mixing.is_cut.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not inside(mixing.boxes, SIZE)[~mixing.is_cut].any()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_are_mixed_with_the_given_probability(kind: str) -> None:
    settings: dict[str, Any] = {kind: 1.0}
    share = drawn(**settings, mix_share=0.3).share
    assert (share < 1).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_each_image_has_its_own_draw_which_depends_only_on_seed_and_epoch() -> None:
    first = drawn(50, mixup=1.0).share
    torch.rand(3)  # other draws must not matter
    assert torch.equal(first, drawn(50, mixup=1.0).share) and len(first.unique()) == 50
    assert not torch.equal(first, drawn(50, mixup=1.0, seed=1).share)
    assert not torch.equal(first, drawn(50, mixup=1.0, epoch=1).share)
    assert draw_mixing(50, SIZE, AugmentSettings(), 0, ("epoch", 0), CPU) is None


def test_drawing_does_not_change_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    drawn(10, mixup=1.0)
    assert torch.equal(torch.rand(2), expected)

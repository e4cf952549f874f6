from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.boxes import centred_boxes, cropped_boxes, draw_erased, erase, inside, random_boxes

SIZE = 32
CPU = torch.device("cpu")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_inside_is_the_rectangle_of_rows_and_columns() -> None:
    boxes = torch.tensor([[0, 2, 1, 4], [3, 3, 0, 5], [0, 5, 0, 5]])
    for box, mask in zip(boxes.tolist(), inside(boxes, 5), strict=True):
        expected = torch.zeros(5, 5, dtype=torch.bool)
        expected[box[0] : box[1], box[2] : box[3]] = True
        assert torch.equal(mask, expected)


def test_erased_pixels_are_the_mean_colour_and_no_others_change() -> None:
    images = torch.randn(3, 5, 5, 3, generator=draw()).permute(0, 3, 1, 2)  # normalised: the mean is 0
    boxes = torch.tensor([[0, 2, 1, 4], [3, 3, 0, 5], [0, 5, 0, 5]])
    before, masks = images.clone(), inside(boxes, 5)[:, None].expand(-1, 3, -1, -1)
    erased = erase(images, boxes)
    assert (erased[masks] == 0).all() and torch.equal(erased[~masks], before[~masks])
    assert erased.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [8, 32, 224])
def test_random_rectangles_lie_inside_with_the_published_areas_and_shapes(size: int) -> None:
    top, bottom, left, right = random_boxes(4000, size, 1.0, draw()).unbind(dim=1)
    height, width = (bottom - top).double(), (right - left).double()
    assert min(top.min(), left.min()) >= 0 and max(bottom.max(), right.max()) <= size
    assert (height > 0).all() and (width > 0).all()
    rounding = 1 / size  # half a pixel of each side
    area = height * width / size**2
    assert 0.02 - rounding <= area.min() and area.max() <= 0.4 + rounding
    assert area.mean().item() == pytest.approx(0.21, abs=0.03)
    if size == 224:
        aspect = height / width
        assert 0.28 < aspect.min() < 0.35 and 2.9 < aspect.max() < 3.6
        assert aspect.log().mean().item() == pytest.approx(0, abs=0.05)  # as often wide as high


@pytest.mark.parametrize("smallest", [0.08, 0.5, 1.0])
def test_crops_lie_inside_with_areas_and_shapes_of_torchvisions_random_resized_crop(smallest: float) -> None:
    top, bottom, left, right = cropped_boxes(4000, 224, smallest, draw()).unbind(dim=1)
    height, width = (bottom - top).double(), (right - left).double()
    assert min(top.min(), left.min()) >= 0 and max(bottom.max(), right.max()) <= 224 and height.min() > 0
    area, aspect = height * width / 224**2, width / height
    assert area.min() >= smallest - 0.01 and aspect.min() > 0.73 and aspect.max() < 1.36
    if smallest == 0.08:
        torch.manual_seed(0)
        crop, image = RandomResizedCrop(224), torch.zeros(3, 224, 224)
        drawn = [crop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]
        expected = sum(h * w for _, _, h, w in drawn) / 2000 / 224**2
        assert area.mean().item() == pytest.approx(expected, abs=0.03)
        assert aspect.log().mean().item() == pytest.approx(0, abs=0.02)
    if smallest == 1:
        assert (area == 1).all()


def test_images_are_erased_with_the_given_probability() -> None:
    boxes = random_boxes(10_000, SIZE, 0.25, draw())
    is_erased = inside(boxes, SIZE).any(dim=(1, 2))
    assert is_erased.float().mean().item() == pytest.approx(0.25, abs=0.015)


def test_a_square_around_a_random_pixel_is_clipped_at_the_border() -> None:
    boxes = centred_boxes(torch.full((5000,), 16), SIZE, draw())
    top, bottom, left, right = boxes.unbind(dim=1)
    assert min(top.min(), left.min()) == 0 and max(bottom.max(), right.max()) == SIZE
    assert (bottom - top).max() == 16 and (bottom - top).min() == 8 and (right - left).min() == 8
    whole = (top > 0) & (bottom < SIZE)
    assert (bottom - top)[whole].unique().tolist() == [16]


@pytest.mark.parametrize("size", [32, 64])
def test_cutout_is_a_share_of_the_side(size: int) -> None:
    (boxes,) = draw_erased(500, size, AugmentSettings(cutout=0.5), 0, ("epoch", 0), CPU)
    assert (boxes[:, 1] - boxes[:, 0]).max() == size // 2


def test_each_image_has_its_own_draw_which_depends_only_on_seed_and_purpose() -> None:
    def drawn(seed: int, purpose: tuple[str, int], erase: float = 1.0, cutout: float = 0.0) -> list[Tensor]:
        return draw_erased(50, SIZE, AugmentSettings(erase=erase, cutout=cutout), seed, purpose, CPU)

    (first,) = drawn(0, ("epoch", 0))
    assert len(first.unique(dim=0)) > 45
    assert torch.equal(first, drawn(0, ("epoch", 0), cutout=0.5)[0])  # other changes must not matter
    for other in (drawn(1, ("epoch", 0)), drawn(0, ("epoch", 1)), drawn(0, ("view", 0))):
        assert not torch.equal(first, other[0])
    assert drawn(0, ("epoch", 0), erase=0.0) == []

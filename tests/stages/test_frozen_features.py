from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from emoreg.config.augment import AugmentSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch, evaluation_batches, training_batches, view_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.models.backbones import build_backbone
from emoreg.runtime.progress import Progress
from emoreg.stages.frozen_features import FrozenFeatures
from emoreg.training.fabric import make_fabric
from training_state import with_statistics

AUGMENT = AugmentSettings(crop_padding=2, flip=True)


@pytest.fixture
def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    return load_images(Table("noise", pixels, np.arange(24, dtype=np.int64)), 16, False, 1.0, Progress(quiet=True))


def test_features_of_a_batch_are_the_encoders(images: ImageSet) -> None:
    encoder = with_statistics(build_backbone("resnet8"))
    known = FrozenFeatures(encoder, images, None, AUGMENT, 0)
    for batch in training_batches(images, 8, AUGMENT, 0, 0):
        features = known(batch)
        assert not features.requires_grad
        assert_close(features, encoder(batch.images), rtol=1e-4, atol=1e-4)


def test_a_frozen_encoder_is_folded_in_bf16_too(images: ImageSet) -> None:
    fabric = make_fabric(TrainingSettings(device="cpu", precision="bf16-mixed"))
    network = nn.ModuleDict({"head": nn.Linear(3, 1)})
    known = FrozenFeatures(with_statistics(build_backbone("resnet8")), images, None, AUGMENT, 0)
    network.forward = known.__call__
    fabric.setup(network)(next(training_batches(images, 8, AUGMENT, 0, 0)))
    assert known.folded is not None and not any(isinstance(each, nn.BatchNorm2d) for each in known.folded.modules())


def test_features_of_images_as_they_are_are_computed_once(images: ImageSet) -> None:
    encoder = with_statistics(build_backbone("resnet8"))
    (expected,) = [encoder(pixels) for pixels, _ in evaluation_batches(images)]
    known = FrozenFeatures(encoder, images, 0, AUGMENT, 0)
    batches = list(training_batches(images, 8, AUGMENT, 0, 0))
    known(batches[0])
    count = _count_calls(nn.Conv2d, lambda: [known(batch) for batch in batches])
    assert count == 0
    for batch in batches:
        assert_close(known(batch), expected[batch.rows], rtol=1e-4, atol=1e-4)


def test_each_image_is_seen_in_one_of_its_fixed_views(images: ImageSet) -> None:
    encoder = with_statistics(build_backbone("resnet8"))
    views = torch.stack([encoder(next(view_batches(images, AUGMENT, 7, view)).images) for view in range(3)])
    known = FrozenFeatures(encoder, images, 3, AUGMENT, 7)
    batch = Batch(torch.zeros(24, 3, 16, 16), torch.zeros(24), torch.arange(24))
    torch.manual_seed(0)
    seen = set()
    for _ in range(8):
        distance = (known(batch) - views).abs().amax(dim=2)  # (views, images)
        assert (distance.amin(dim=0) < 1e-3).all()
        seen |= set(distance.argmin(dim=0).tolist())
    assert seen == {0, 1, 2}


def test_one_view_needs_no_draw(images: ImageSet) -> None:
    known = FrozenFeatures(with_statistics(build_backbone("resnet8")), images, 1, AUGMENT, 0)
    batch = next(training_batches(images, 8, AUGMENT, 0, 0))
    known(batch)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(known(batch), known(batch)) and torch.equal(torch.rand(4), expected)


def _count_calls(kind: type[nn.Module], work: Any) -> int:
    count = 0

    def counted(module: nn.Module, *_: Any) -> None:
        nonlocal count
        count += isinstance(module, kind)

    handle = nn.modules.module.register_module_forward_hook(counted)
    try:
        work()
    finally:
        handle.remove()
    return count

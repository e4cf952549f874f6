"""The fast path gives the same loss and gradients as plain PyTorch on the same batch.

Plain: torchvision's transforms on each image, channels first, batch norm as it is. In float64 they agree within
1e-6 of a parameter's largest gradient. In float32 both are rounded, and a ReLU near 0 may fall to either side: the
gradient as a whole, one vector, then agrees within 2 % of its length.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.transforms import functional as transforms

from emoreg.config.augment import AugmentSettings
from emoreg.config.normalisation import MEAN, STD
from emoreg.data.images.batches import training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier, regulation_loss
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from emoreg.stages.frozen_features import FrozenFeatures
from narrow import present

COUNT, SIZE, K = 8, 16, 10


@pytest.fixture(scope="module")
def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(COUNT, dtype=np.int64) % K
    return load_images(Table("noise", pixels, labels), SIZE, False, 1.0, Progress(quiet=True))


def plain_batch(images: ImageSet, augment: AugmentSettings) -> tuple[Tensor, Tensor]:
    """The first batch of epoch 0 of seed 0, image by image."""
    assert images.pixels is not None
    draw = generator(0, "epoch", 0)
    order = torch.randperm(COUNT, generator=draw).tolist()
    offsets = torch.randint(0, 2 * augment.crop_padding + 1, (COUNT, 2), generator=draw).tolist()
    mirrored = (torch.rand(COUNT, generator=draw) < 0.5).tolist()
    changed = []
    for row, (down, right), flips in zip(order, offsets, mirrored, strict=True):
        image = transforms.pad(images.pixels[row].contiguous(), [augment.crop_padding])
        image = transforms.crop(image, down, right, SIZE, SIZE)
        image = transforms.hflip(image) if flips else image
        changed.append(transforms.normalize(image.float() / 255, list(MEAN), list(STD)))
    return torch.stack(changed), images.labels[order]


def plain_loss(model: RegulatedClassifier, pixels: Tensor, labels: Tensor) -> Tensor:
    z_n = model.head(model.backbone(pixels))
    if model.encoder is None:
        return F.cross_entropy(z_n, labels)
    z_e = model.emotional_head(model.encoder(pixels))
    lam = model.get_parameter("regulation.rho").sigmoid()
    mixture = (1 - lam) * z_n.softmax(1) + lam * z_e.softmax(1)
    own = F.cross_entropy(z_n, labels) + F.cross_entropy(z_e, labels)
    return 0.5 * F.nll_loss(mixture.log(), labels) + 0.75 * own


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("arm", ["Backbone", "Learn-E-Reg", "frozen encoder"])
def test_loss_and_gradients_are_those_of_plain_pytorch(
    images: ImageSet, name: str, arm: str, dtype: torch.dtype
) -> None:
    augment, is_regulated = AugmentSettings(crop_padding=4, flip=True), arm != "Backbone"
    torch.manual_seed(0)
    model = (
        RegulatedClassifier(
            build_backbone(name),
            build_backbone(name) if is_regulated else None,
            K,
            mode="learned" if is_regulated else "none",
            lam=0.3,
            freeze_encoder=arm == "frozen encoder",
        )
        .train()
        .to(dtype)
    )
    plain = copy.deepcopy(model)
    model.to(memory_format=torch.channels_last)

    batch = next(training_batches(images, COUNT, augment, 0, 0))
    pixels, labels = plain_batch(images, augment)
    assert_close(batch.images, pixels)
    assert torch.equal(batch.labels, labels)
    batch = batch._replace(images=batch.images.to(dtype))
    known: FrozenFeatures | None = None
    if model.encoder is not None and model.freeze_encoder:
        known = FrozenFeatures(model.encoder, images, None, augment, 0)
    loss = regulation_loss(model.respond(batch.images, None if known is None else known(batch)), labels)
    loss.backward()
    expected = plain_loss(plain, batch.images.contiguous(), labels)
    expected.backward()

    assert abs(loss.item() - expected.item()) <= 1e-5 * abs(expected.item())
    pairs = list(zip(model.named_parameters(), plain.parameters(), strict=True))
    assert [key for (key, one), other in pairs if (one.grad is None) != (other.grad is None)] == []
    gradients = [(key, one.grad, present(other.grad)) for (key, one), other in pairs if one.grad is not None]
    if dtype == torch.float64:
        for key, of_one, of_other in gradients:
            assert (of_one - of_other).abs().max() <= 1e-6 * of_other.abs().max() + 1e-12, key
    one, other = (
        torch.cat(list(map(torch.flatten, side)))
        for side in zip(*((one, other) for _, one, other in gradients), strict=True)
    )
    assert (one - other).norm() <= 0.02 * other.norm()

"""speednet: its whitening, its trained parameters, and that it learns in a few steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from emoreg.config.schema import BackboneSettings
from emoreg.errors import SettingError
from emoreg.models.backbones import build_backbone
from emoreg.models.features import num_features
from emoreg.models.folding import folded
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.speednet import DEVIATIONS, EPSILON, SMALLEST, SpeedNet, whitening_filters


def test_filters_are_orthogonal_and_followed_by_their_negatives() -> None:
    filters = whitening_filters().flatten(1)
    assert filters.shape == (24, 12) and torch.equal(filters[:12], -filters[12:])
    products = filters[:12] @ filters[:12].T
    assert_close(products, products.diag().diag())


def test_patches_with_the_variances_that_were_measured_come_out_white() -> None:
    """Up to ε, which damps the rarest patterns."""
    filters = whitening_filters().flatten(1)[:12]
    variances = torch.tensor(DEVIATIONS).flatten().square()
    directions = F.normalize(filters)
    covariance = directions.T @ variances.diag() @ directions
    white = filters @ covariance @ filters.T
    assert_close(white, (variances / (variances + EPSILON)).diag(), rtol=0, atol=1e-3)
    assert (white.diag() > 0.5).all() and (white.diag() > 0.9).sum() == 10


@pytest.mark.parametrize("size", [SMALLEST, 16, 32, 33, 64])
def test_images_of_any_size_become_features(size: int) -> None:
    net = build_backbone(BackboneSettings("speednet", width=2), size)
    features = net(torch.randn(2, 3, size, size))
    assert features.shape == (2, num_features(net)) == (2, 8) and features.any()


def test_smaller_images_are_refused_with_the_smallest_size() -> None:
    with pytest.raises(SettingError, match=r"^backbone\.name: speednet does not take images of 8 pixels; set .* to 9 "):
        build_backbone("speednet", SMALLEST - 1)
    with pytest.raises(RuntimeError):
        SpeedNet(2)(torch.zeros(2, 3, SMALLEST - 1, SMALLEST - 1))


def test_every_encoder_has_the_same_first_layer_and_nothing_trains_it_or_gamma() -> None:
    classifier = RegulatedClassifier(SpeedNet(2), SpeedNet(2), 3, freeze_encoder=False).requires_grad_(True)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    fixed = [name for name in before if name.endswith(("whitening.weight", "norm1.weight", "norm2.weight"))]
    assert len(fixed) == 2 * (1 + 6) and not {*fixed} & {name for name, _ in classifier.named_parameters()}
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1.0)
    F.cross_entropy(classifier(torch.randn(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    after = classifier.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in fixed)
    assert torch.equal(after["backbone.whitening.weight"], after["encoder.whitening.weight"])
    assert not torch.equal(after["backbone.whitening.bias"], before["backbone.whitening.bias"])


def test_a_block_begins_as_the_identity_of_its_first_channels() -> None:
    net = SpeedNet(8)
    for name, weight in net.named_parameters():
        if weight.ndim == 4:
            kept = weight[: weight.shape[1]]
            identity = torch.zeros_like(kept)
            identity[range(len(kept)), range(len(kept)), 1, 1] = 1
            assert torch.equal(kept, identity), name
    assert not torch.equal(
        net.get_parameter("blocks.1.conv1.weight"), SpeedNet(8).get_parameter("blocks.1.conv1.weight")
    )


def test_folding_a_frozen_one_leaves_its_features() -> None:
    net = SpeedNet(2)
    net(torch.randn(8, 3, 16, 16))
    images = torch.randn(4, 3, 16, 16)
    fast = folded(net.eval(), images)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fast.modules()) == 3  # those behind a pooling
    assert_close(fast(images), net(images))


def test_it_learns_a_simple_task_in_a_few_steps() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 16, 16), torch.arange(16) % 4

    def loss(net: nn.Module, head: nn.Module) -> Tensor:
        return F.cross_entropy(head(net(images)), labels)

    net, head = SpeedNet(8), nn.Linear(32, 4)
    start = loss(copy.deepcopy(net), head).item()
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=1.0, momentum=0.85, nesterov=True)
    for _ in range(15):
        optimizer.zero_grad()
        loss(net, head).backward()
        optimizer.step()
    assert loss(net, head).item() < start / 4

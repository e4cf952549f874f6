from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from emoreg.models.backbones import build_backbone
from emoreg.models.folding import folded, with_folded
from emoreg.models.regulation import RegulatedClassifier
from tiny_backbone import TinyBackbone
from training_state import with_statistics


class Branching(nn.Module):
    """Cannot be traced, as its control flow depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images)).mean(dim=(2, 3))
        return features if features.sum() > 0 else -features


class Remembering(nn.Module):
    """Is traced wrongly: torch.fx treats the number of the call as a constant."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        Remembering.calls += 1
        return self.norm(self.conv(images)).mean(dim=(2, 3)) * Remembering.calls


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "mobilenetv3_small_100"])
def test_a_folded_encoder_gives_the_same_features_without_batch_norm(name: str) -> None:
    encoder = with_statistics(build_backbone(name, 32))
    before = copy.deepcopy(encoder.state_dict())
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    fast = folded(encoder, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    expected = encoder(images)
    assert_close(fast(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_rounding_as_of_a_gpus_convolutions_is_not_taken_for_a_wrong_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = nn.Conv2d._conv_forward
    moved: list[nn.Module] = []

    def cpu(network: nn.Module) -> nn.Module:
        moved.extend(network.modules())
        return network

    def rounded(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not any(module is layer for module in moved):  # bfloat16 rounds more than TF32, as if there were more layers
            images, weight = images.bfloat16().float(), weight.bfloat16().float()
        return compute(layer, images, weight, bias)

    monkeypatch.setattr(nn.Module, "cpu", cpu)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", rounded)
    encoder = with_statistics(build_backbone("resnet8", 32))
    assert folded(encoder, torch.rand(3, 3, 32, 32)) is not encoder


def test_settings_of_the_backends_are_those_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    backends: Any = torch.backends
    monkeypatch.setattr(backends.cudnn, "deterministic", True)
    before = backends.fp32_precision
    encoder = with_statistics(build_backbone("resnet8", 32))
    try:
        backends.fp32_precision = "tf32"
        folded(encoder, torch.rand(3, 3, 32, 32))
        assert backends.cudnn.conv.fp32_precision == "tf32" and backends.cudnn.deterministic
    finally:
        backends.fp32_precision = before


@pytest.mark.parametrize("encoder", [Branching(), Remembering(), nn.Flatten()], ids=lambda e: type(e).__name__)
def test_networks_that_cannot_be_folded_are_used_unchanged(encoder: nn.Module) -> None:
    assert folded(with_statistics(encoder), torch.rand(3, 3, 16, 16)) is encoder


def test_autocast_around_it_does_not_keep_it_from_folding() -> None:
    network = with_statistics(build_backbone("resnet20"))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        fast = folded(network, images)
        assert fast is not network
        rough, fine = network(images).float(), fast(images).float()
    exact = network(images)
    scale = float(exact.abs().max())
    assert_close(rough, exact, rtol=0, atol=0.02 * scale)
    assert_close(fine, exact, rtol=0, atol=0.02 * scale)


def test_networks_with_hooks_are_used_unchanged() -> None:
    network, seen = TinyBackbone().eval(), list[Tensor]()
    network.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert folded(network, torch.rand(2, 3, 8, 8)) is network and not seen


def test_a_model_is_copied_with_its_networks_folded_and_stays_as_it_is() -> None:
    torch.manual_seed(0)
    networks = with_statistics(build_backbone("resnet8")), with_statistics(Branching())
    model = RegulatedClassifier(*networks, 5, feature_dims=(64, 4)).eval()
    before, images = copy.deepcopy(model.state_dict()), torch.rand(3, 3, 32, 32)
    fast = with_folded(model, networks, images)
    assert fast is not model and fast.encoder is model.encoder  # it cannot be traced
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.backbone.modules())
    assert model.backbone is networks[0] and fast.head is not model.head
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for found, expected in zip(fast.respond(images), model.respond(images), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert with_folded(model, networks[1:], images) is model

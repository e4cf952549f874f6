from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from emoreg.config.schema import BackboneSettings
from emoreg.errors import UserError
from emoreg.models.backbones import ClassicResNet, build_backbone, num_features

VIT = BackboneSettings("vit_tiny_patch16_224", patch_size=4)


@pytest.mark.parametrize(
    "settings",
    [BackboneSettings("resnet20"), BackboneSettings("resnet18"), VIT, BackboneSettings("mobilenetv3_small_050")],
)
def test_features_are_pooled_and_as_wide_as_announced(settings: BackboneSettings) -> None:
    backbone = build_backbone(settings, 32).eval()
    with torch.no_grad():
        assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, num_features(backbone))


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_classic_resnets_have_the_published_size(depth: int, millions: float) -> None:
    """He et al. 2016, table 6, counts the 10-class head too."""
    parameters = sum(p.numel() for p in ClassicResNet(depth).parameters()) + 650
    assert parameters / 1e6 == pytest.approx(millions, abs=0.035)
    assert sum(isinstance(m, nn.Conv2d) for m in ClassicResNet(depth).modules()) == depth - 1


def test_classic_resnet_halves_the_map_twice() -> None:
    sizes: list[int] = []
    net = ClassicResNet(8)
    for block in net.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-1]))
    net(torch.randn(1, 3, 32, 32))
    assert sizes == [32, 16, 8]


@pytest.mark.parametrize("name", ["davit_tiny", "efficientvit_b0", "fastvit_t8", "tiny_vit_5m_224", "mixer_s16_224"])
def test_whether_an_architecture_is_built_for_a_size_is_asked_of_timm(name: str) -> None:
    backbone = build_backbone(name, 64).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, num_features(backbone))


def test_cifar_stem_keeps_a_map_where_the_imagenet_stem_loses_it() -> None:
    small: Any = build_backbone("resnet18")
    large: Any = build_backbone(BackboneSettings("resnet18", stem="imagenet"))
    image = torch.randn(1, 3, 32, 32)
    small.eval(), large.eval()
    assert small.forward_features(image).shape[-1] == 4
    assert large.forward_features(image).shape[-1] == 1
    assert small.conv1.kernel_size == (3, 3) and small.conv1.stride == (1, 1)


def test_vit_follows_image_and_patch_size() -> None:
    large, small = (build_backbone(VIT, size).get_parameter("pos_embed") for size in (32, 16))
    assert (large.shape[1], small.shape[1]) == (1 + 8 * 8, 1 + 4 * 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (BackboneSettings("resnet81"), "did you mean"),
        (BackboneSettings("resnet18.a1_in2k"), r"no weights 'resnet18.a1_in2k' \(did you mean 'resnet18.a\d_in1k'"),
        (BackboneSettings("resnet20", patch_size=4), "backbone.patch_size"),
        (BackboneSettings("resnet18", patch_size=4), "patch_size"),
        (BackboneSettings("resnet18d"), "stem: imagenet"),
        (BackboneSettings("vit_tiny_patch16_224", patch_size=5), "do not divide"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(settings: BackboneSettings, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_backbone(settings, 32)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_are_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_arguments: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UserError, match=r"backbone\.pretrained.*no route to host.*network"):
        build_backbone(BackboneSettings("resnet18", pretrained=True))

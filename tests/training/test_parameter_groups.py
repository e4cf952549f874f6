from __future__ import annotations

from typing import Any

import pytest
import timm
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.schema import BackboneSettings
from emoreg.errors import SettingError
from emoreg.models.backbones import build_backbone, timm_arguments
from emoreg.models.regulation import RegulatedClassifier
from emoreg.training.parameter_groups import parameter_groups
from tiny_backbone import TinyBackbone

K = 4
VIT = BackboneSettings("test_vit", patch_size=8)


def regulated(settings: BackboneSettings, size: int = 16) -> RegulatedClassifier:
    return RegulatedClassifier(build_backbone(settings, size), build_backbone(settings, size), K, mode="learned")


def by_name(model: nn.Module, settings: OptimizerSettings, **factors: float) -> dict[str, dict[str, Any]]:
    """The group of every parameter; fails if one is in two groups or in none."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    prefixes = {f"{prefix}.": factor for prefix, factor in factors.items()}
    groups = parameter_groups(model, settings, settings.lr, prefixes)
    found = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found)) == len(names)
    return dict(found)


def rates(model: nn.Module, settings: OptimizerSettings, **factors: float) -> dict[str, float]:
    return {name: group["lr"] for name, group in by_name(model, settings, **factors).items()}


# Depth


def test_layer_decay_is_that_of_timm_for_a_network_with_its_head() -> None:
    """Even if only timm's matcher knows that the last norm belongs to the last block."""
    for settings in (VIT, BackboneSettings("test_resnet", stem="imagenet")):
        whole = timm.create_model(settings.name, num_classes=K, **timm_arguments(settings, 16))
        names = {id(parameter): name for name, parameter in whole.named_parameters()}
        expected = {
            names[id(parameter)]: group["lr_scale"]
            for group in param_groups_layer_decay(whole, layer_decay=0.5)
            for parameter in group["params"]
        }
        found = rates(regulated(settings), OptimizerSettings(lr=1.0, layer_decay=0.5))
        heads = {name for name in found if name.startswith(("head.", "emotional_head.", "regulation."))}
        assert {found[name] for name in heads} == {1.0} and len(heads) == 5
        for branch in ("backbone.", "encoder."):
            trunk = {name.removeprefix(branch): lr for name, lr in found.items() if name.startswith(branch)}
            assert trunk == {name: lr for name, lr in expected.items() if name in trunk}
            assert min(trunk.values()) < 0.5 and max(trunk.values()) == 0.5


def test_a_classic_resnet_has_a_layer_per_block() -> None:
    found = rates(regulated(BackboneSettings("resnet8")), OptimizerSettings(lr=1.0, layer_decay=0.5))
    assert found["backbone.conv1.weight"] == found["encoder.bn1.bias"] == 0.5**4
    assert [found[f"encoder.blocks.{block}.conv2.weight"] for block in range(3)] == [0.5**3, 0.5**2, 0.5]


def test_the_factor_of_a_branch_and_that_of_a_layer_are_multiplied() -> None:
    plain = rates(regulated(VIT), OptimizerSettings(layer_decay=0.75))
    slower = rates(regulated(VIT), OptimizerSettings(layer_decay=0.75), encoder=0.1, regulation=10.0)
    for name, lr in plain.items():
        factor = {"encoder": 0.1, "regulation": 10.0}.get(name.partition(".")[0], 1.0)
        assert slower[name] == pytest.approx(lr * factor)


def test_groups_of_checkpoints_begin_with_the_full_rate() -> None:
    settings = OptimizerSettings(lr=0.3, layer_decay=0.75)
    groups = parameter_groups(regulated(VIT), settings, settings.lr, {"regulation.": 10.0})
    assert groups[0]["lr"] == 0.3


def test_an_architecture_without_layers_is_refused_in_one_line() -> None:
    model = RegulatedClassifier(TinyBackbone(), None, K, mode="none")
    with pytest.raises(SettingError, match=r"^optimizer\.layer_decay: TinyBackbone does not define its") as caught:
        by_name(model, OptimizerSettings(layer_decay=0.75))
    assert "\n" not in str(caught.value)


# Muon


def test_muon_takes_the_matrices_and_filters_within_a_network_and_nothing_else() -> None:
    for settings, first in ((VIT, "patch_embed.proj.weight"), (BackboneSettings("resnet8"), "conv1.weight")):
        model = regulated(settings)
        groups = by_name(model, OptimizerSettings("muon", weight_decay=0.01))
        taken = {name for name, group in groups.items() if group["use_muon"]}
        hidden = {
            f"{branch}.{name}"
            for branch in ("backbone", "encoder")
            for name, parameter in getattr(model, branch).named_parameters()
            if parameter.ndim in (2, 4) and name != first
        }
        assert taken == hidden and hidden
        assert {groups[name]["weight_decay"] for name in taken} == {0.01}


def test_muon_leaves_depthwise_filters_to_adamw() -> None:
    model = RegulatedClassifier(build_backbone("mobilenetv3_small_050", 32), None, K, mode="none")
    groups = by_name(model, OptimizerSettings("muon"))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and parameter.shape[1] == 1:
            assert not groups[name]["use_muon"], name


def test_groups_stay_in_their_order_without_the_settings_that_came_later() -> None:
    """An optimiser's checkpoint identifies parameters by their position only."""
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), K, mode="learned")
    groups = parameter_groups(model, OptimizerSettings(weight_decay=0.01), 0.1, {"encoder.": 0.5})
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        *[(0.1, 0.01), (0.1, 0.0)],
        *[(0.05, 0.01), (0.05, 0.0)],
    ]
    assert all(group.keys() == {"params", "lr", "weight_decay"} for group in groups)
    assert groups[0]["params"][0] is next(model.backbone.parameters())

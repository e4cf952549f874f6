from __future__ import annotations

from typing import Any

import pytest
import timm
import timm.optim
import torch
from torch import Tensor, nn

from emoreg.errors import SettingError
from emoreg.models.features import require_features
from emoreg.models.regulation import RegulatedClassifier
from tiny_backbone import TinyBackbone

optimisers: Any = timm.optim  # untyped exports


class Gives(nn.Module):
    """A network that declares a width of 6 and returns a fixed value."""

    num_features = 6

    def __init__(self, given: Any, num_classes: int | None = None) -> None:
        super().__init__()
        self.given, self.num_classes = given, num_classes

    def forward(self, images: Tensor) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Gives(torch.zeros(2, 6, 4, 4)), r"Gives gives \(B, 6, 4, 4\) instead of pooled features \(B, 6\); pool them"),
        (Gives(torch.zeros(2, 7)), "features of width 7, where num_features or feature_dims says 6; set that"),
        (Gives(torch.zeros(2, 1000), 1000), "the logits of 1000 classes .* num_classes=0 in timm.create_model"),
        (Gives((torch.zeros(2, 6),)), r"gives a tuple instead of features \(B, 6\); wrap it"),
    ],
)
def test_features_of_another_shape_than_declared_are_refused_with_a_remedy(given: nn.Module, message: str) -> None:
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(SettingError, match=f"backbone: .*{message}"):
        RegulatedClassifier(given, TinyBackbone(), 4)(images)
    with pytest.raises(SettingError, match=f"encoder: .*{message}"):
        RegulatedClassifier(TinyBackbone(), given, 4)(images)


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("resnet8", {}, r"backbone: must be a network .*emoreg.build_backbone\('resnet8'\) builds one"),
        (nn.Identity, {}, r"backbone: .* not the class Identity; give an instance of it"),
        (nn.Flatten(), {}, "feature_dims: Flatten has no num_features"),
        (nn.Flatten(), {"feature_dims": 192}, r"feature_dims: must be the widths \(D, De\)"),
        (TinyBackbone(), {"num_classes": "4"}, "num_classes: must be a whole number"),
        (TinyBackbone(), {"num_classes": 0}, "num_classes: must be at least 2, not 0$"),
        (
            TinyBackbone(),
            {"num_classes": 1},
            "num_classes: must be at least 2, not 1; for one label that an image may have give task=",
        ),
        (TinyBackbone(), {"mix": "probs"}, r"mix: .*did you mean 'probabilities'"),
        (TinyBackbone(), {"granularity": "per-class"}, r"granularity: .*did you mean 'per_class'"),
        (TinyBackbone(), {"freeze_encoder": "no"}, "freeze_encoder: must be true or false"),
    ],
)
def test_arguments_of_wrong_types_or_values_are_refused(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        RegulatedClassifier(backbone, TinyBackbone(), **{"num_classes": 4, **options})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"pixels of 8 bits; emoreg.normalise\(images\)"),
        (torch.zeros(3, 8, 8), "not a single image"),
        (torch.zeros(2, 8, 8, 3), r"with the colours last; give images.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 3, 8, 8).numpy(), "must be a float tensor .* not a ndarray"),
        (
            torch.zeros(2, 3, 8, 8).double(),
            r"are float64, .* weights of the backbone are float32; give images.to\(torch.float32",
        ),
        (
            torch.zeros(2, 3, 8, 8).half(),
            r"are float16, .* weights of the backbone are float32; give images.to\(torch.float32",
        ),
        (
            torch.zeros(2, 1, 8, 8),
            r"\(B, 3, H, W\) for the backbone, not \(2, 1, 8, 8\); .* images.expand\(-1, 3, -1, -1",
        ),
        (torch.zeros(2, 4, 8, 8), r"must be \(B, 3, H, W\) for the backbone, not \(2, 4, 8, 8\)"),
        (torch.zeros(8, 8), r"must be \(B, 3, H, W\) for the backbone, not \(8, 8\)"),
    ],
)
def test_images_that_a_network_does_not_accept_are_refused(images: Any, message: str) -> None:
    with pytest.raises(SettingError, match=f"images: .*{message}"):
        RegulatedClassifier(TinyBackbone(), TinyBackbone(), 4)(images)


def test_a_network_may_take_other_images_and_its_errors_are_passed_on() -> None:
    class Grey(TinyBackbone):
        def forward(self, images: Tensor) -> Any:
            if len(images) > 2:
                raise RuntimeError("too many")
            return super().forward(images.float().expand(-1, 3, -1, -1))

    model = RegulatedClassifier(Grey(), Grey(), 4)
    assert model(torch.zeros(2, 1, 8, 8).double()).shape == (2, 4)
    with pytest.raises(RuntimeError, match="too many"):
        RegulatedClassifier(Grey(), Grey(), 4)(torch.zeros(3, 3, 8, 8))


class GatedLater(nn.Module):
    """Its first registered layer, the gate, does not get the images; the linear layer may have a wrong width."""

    num_features = 6

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.gate, self.stem, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(3, 6, 3), nn.Linear(width, 6)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.last(self.gate(self.stem(images)).mean((2, 3)))
        return features


def test_errors_of_other_layers_are_passed_on_whichever_layer_is_registered_first() -> None:
    def answer(backbone: nn.Module, images: Tensor) -> Tensor:
        return RegulatedClassifier(backbone, None, 3, mode="none")(images)

    assert answer(GatedLater(), torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        answer(GatedLater(width=5), torch.zeros(2, 3, 8, 8))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        answer(GatedLater(), torch.zeros(2, 3, 2, 2))
    with pytest.raises(SettingError, match=r"images: must be \(B, 3, H, W\) for the backbone, not \(2, 6, 8, 8\)"):
        answer(GatedLater(), torch.zeros(2, 6, 8, 8))
    misfit = TinyBackbone()
    misfit.register_module("norm", nn.Conv2d(5, 6, 1))  # not given the images
    with pytest.raises(RuntimeError, match="to have 5 channels, but got 6 channels"):
        answer(misfit, torch.zeros(2, 3, 8, 8))


def undecayed_by(optimizer: torch.optim.Optimizer, model: nn.Module) -> set[str]:
    groups = [group["params"] for group in optimizer.param_groups if group["weight_decay"] == 0]
    free = {id(parameter) for group in groups for parameter in group}
    return {name for name, parameter in model.named_parameters() if id(parameter) in free and parameter.ndim > 1}


def test_no_optimiser_decays_lambda() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=8, patch_size=4, depth=1)
    model = RegulatedClassifier(TinyBackbone(), vit, 4, granularity="per_sample")
    exempt = {"regulation.rho", "regulation.gate.weight", "encoder.pos_embed", "encoder.cls_token"}
    assert exempt <= model.no_weight_decay()
    by_timm = optimisers.create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    assert undecayed_by(by_timm, model) == exempt
    groups = optimisers.param_groups_weight_decay(model, 0.05, no_weight_decay_list=sorted(model.no_weight_decay()))
    assert undecayed_by(torch.optim.AdamW(groups), model) == exempt
    plain = RegulatedClassifier(TinyBackbone(), None, 4, mode="none")
    assert plain.no_weight_decay() == set()


class Words(nn.Module):
    """Map tokens (B, T) to features (B, 6)."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(10, 6)

    def forward(self, tokens: Tensor) -> Any:
        return self.embedding(tokens)


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (3, 3)])
def test_networks_without_convolutions_take_any_input(shape: tuple[int, int]) -> None:
    logits = RegulatedClassifier(Words(), Words(), 4)(torch.zeros(shape, dtype=torch.int64))
    assert logits.shape == (shape[0], 4)


def test_sequences_are_not_mistaken_for_a_single_image() -> None:
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(15, 6)) for _ in range(2)]
    assert RegulatedClassifier(networks[0], networks[1], 4, feature_dims=(6, 6))(torch.zeros(2, 5, 3)).shape == (2, 4)


def test_a_head_that_was_not_removed_is_named_with_a_remedy() -> None:
    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.fc = nn.Flatten(), nn.Linear(192, 5)

        def forward(self, images: Tensor) -> Any:
            return self.fc(self.pool(images))

    classifier = RegulatedClassifier(Headed(), TinyBackbone(), 4, feature_dims=(192, TinyBackbone().num_features))
    with pytest.raises(
        SettingError, match=r"backbone: .*5 outputs of its head, fc, .*module\.fc = torch\.nn\.Identity"
    ):
        classifier(torch.zeros(2, 3, 8, 8))


def test_trying_a_network_does_not_change_it() -> None:
    network = TinyBackbone().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    require_features(network, 8, "encoder")
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(SettingError, match="encoder: Gives gives features of width 7"):
        require_features(Gives(torch.zeros(2, 7)), 8, "encoder")

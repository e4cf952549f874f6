from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from emoreg.config.loss import LossSettings
from emoreg.config.schema import BackboneSettings
from emoreg.config.training import TrainingSettings
from emoreg.errors import SettingError, UserError
from emoreg.models import backbones
from emoreg.models.backbones import build_backbone, channels_last, matching_width, stem_note
from emoreg.models.classic_resnet import ClassicResNet
from emoreg.models.features import num_features
from emoreg.models.gradient_budget import matched_scale
from emoreg.models.regulation import RegulatedClassifier, regulation_loss
from emoreg.stages.metrics import count_flops
from emoreg.training.fabric import make_fabric

VIT = BackboneSettings("vit_tiny_patch16_224", patch_size=4)


@pytest.mark.parametrize(
    "settings",
    [*map(BackboneSettings, ("resnet20", "speednet", "resnet18", "mobilenetv3_small_050")), VIT],
)
def test_features_are_pooled_and_as_wide_as_announced(settings: BackboneSettings) -> None:
    backbone = build_backbone(settings, 32).eval()
    with torch.no_grad():
        assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, num_features(backbone))


@pytest.mark.parametrize("class_token", [None, False])
def test_a_vit_that_averages_gives_the_mean_of_its_patches_after_the_last_norm(class_token: bool | None) -> None:
    settings = BackboneSettings("test_vit", patch_size=8, pool="average", class_token=class_token)
    vit: Any = build_backbone(settings, 32).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = vit.forward_features(images)
        assert tokens.shape[1] == 16 + (class_token is None) and isinstance(vit.norm, nn.LayerNorm)
        assert torch.equal(vit(images), tokens[:, -16:].mean(dim=1))


def test_weights_fit_a_vit_whichever_way_it_pools() -> None:
    token, average = (build_backbone(replace(VIT, name="test_vit", pool=pool), 32) for pool in ("token", "average"))
    average.load_state_dict(token.state_dict())


@pytest.mark.parametrize("name", ["resnet8", "speednet", "test_resnet", "mobilenetv3_small_050"])
@pytest.mark.parametrize("setting", [{"pool": "average"}, {"class_token": True}])
def test_only_vits_have_other_pooling(name: str, setting: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=rf"^backbone\.{next(iter(setting))}: {name} .*leave it out$") as caught:
        build_backbone(BackboneSettings(name, stem="imagenet", **setting))
    assert "\n" not in str(caught.value)


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
def test_timm_decides_whether_an_architecture_is_built_for_a_size(name: str) -> None:
    backbone = build_backbone(name, 64).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, num_features(backbone))


# One of each kind: for a fixed size or any, with windows, distilled, with convolutions, attention, or both.
KINDS = (
    "speednet",
    "deit_tiny_distilled_patch16_224", "edgenext_xx_small", "lcnet_035", "levit_128s", "mobilevit_xxs", "pit_ti_224",
    "regnetx_002", "test_convnext", "test_efficientnet", "test_nfnet", "xcit_nano_12_p8_224",
    pytest.param("test_coatnet", marks=pytest.mark.skipif(not timm.is_model("test_coatnet"), reason="timm lacks it")),
)  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_architectures_of_every_kind_train_in_both_branches_with_a_matched_budget(name: str) -> None:
    assert_trains(name, 32)


def assert_trains(name: str, size: int) -> None:
    classifier = channels_last(RegulatedClassifier(build_backbone(name, size), build_backbone(name, size), 3))
    weights = LossSettings().weights(has_two=True)
    response = classifier.respond(torch.randn(2, 3, size, size), scale=matched_scale(weights, 0.5))
    regulation_loss(response, torch.tensor([0, 2]), weights).backward()
    for trunk in (classifier.backbone, classifier.encoder):
        assert trunk is not None and any(p.grad is not None and p.grad.any() for p in trunk.parameters())
    assert count_flops(classifier, size, make_fabric(TrainingSettings(device="cpu", precision="32-true"))) > 0
    with torch.no_grad():
        assert classifier.eval()(torch.zeros(1, 3, size, size)).shape == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_every_timm_family_trains_or_is_refused_in_one_line_with_sizes_that_work(module: str) -> None:
    """A family's smallest architecture at 32 pixels; if that is refused, at each size that the message suggests."""
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
            for name in timm.list_models(module=module)
        }
    name = min(sizes, key=lambda each: sizes[each])
    try:
        assert_trains(name, 32)
    except SettingError as error:
        told = str(error)
        assert error.key == "backbone.name" and "\n" not in told and name in told
        if "32 pixels" not in told:
            assert "cannot be built as a backbone: it gives" in told
        for size in re.findall(r"\d+", told.partition("; set image_size to ")[2]):
            assert_trains(name, int(size))


def test_a_size_that_an_architecture_does_not_take_is_refused_with_sizes_that_it_does() -> None:
    with pytest.raises(SettingError) as caught:
        build_backbone("inception_v3", 32, "encoder.backbone")
    told = str(caught.value)
    assert caught.value.key == "encoder.backbone.name" and "\n" not in told
    assert "inception_v3 does not take images of 32 pixels (" in told and "set image_size to 84 or 299, or" in told


def test_what_does_not_pool_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def unpooled(name: str, **options: Any) -> nn.Module:
        return create(name, **options | {"global_pool": ""})

    monkeypatch.setattr(timm, "create_model", unpooled)
    backbones._size_argument.cache_clear()  # another test may have built this architecture
    with pytest.raises(
        SettingError, match=r"resnet18 cannot be built as a backbone: it gives features of shape \(512, "
    ):
        build_backbone("resnet18", 32)


def test_weights_of_five_dimensions_are_left_as_they_are() -> None:
    both = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv3d(3, 4, 2)])
    theirs = nn.Conv2d(3, 4, 1).to(memory_format=torch.channels_last)
    channels_last(both)
    assert both.get_parameter("0.weight").stride() == theirs.weight.stride()
    assert both.get_parameter("1.weight").is_contiguous()


def test_trying_an_architecture_changes_neither_its_weights_nor_what_is_drawn_next() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv3_small_050", num_classes=0)
    drawn = torch.rand(())
    ours = seeded(BackboneSettings("mobilenetv3_small_050"))
    assert all(torch.equal(ours[key], value) for key, value in theirs.state_dict().items())
    assert torch.equal(ours["the next random number"], drawn)
    assert build_backbone("mobilenetv3_small_050").training


def test_trying_a_usual_architecture_takes_little_time() -> None:
    def seconds(work: Callable[[], object]) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    settings = BackboneSettings("resnet18", stem="cifar")
    trying = min(seconds(lambda: backbones._fault(settings, 32, {})) for _ in range(5))
    assert trying < 1  # a tenth of that, with room for a busy machine


def test_cifar_stem_keeps_a_map_where_the_imagenet_stem_loses_it() -> None:
    small: Any = build_backbone("resnet18")
    large: Any = build_backbone(BackboneSettings("resnet18", stem="imagenet"))
    image = torch.randn(1, 3, 32, 32)
    small.eval(), large.eval()
    assert small.forward_features(image).shape[-1] == 4
    assert large.forward_features(image).shape[-1] == 1
    assert small.conv1.kernel_size == (3, 3) and small.conv1.stride == (1, 1)


def test_the_stem_follows_the_images_unless_it_is_named() -> None:
    cifar = BackboneSettings("resnet18", stem="cifar")
    with torch.device("meta"):
        built: list[Any] = [build_backbone("resnet18", 64), build_backbone("resnet18", 96), build_backbone(cifar, 96)]
    assert [module.conv1.stride for module in built] == [(1, 1), (2, 2), (1, 1)]
    assert BackboneSettings("resnet18").for_images(32) == cifar == cifar.for_images(96)


def test_the_cost_of_the_stem_on_photographs_is_reported() -> None:
    assert stem_note(BackboneSettings("resnet18", stem="imagenet"), 32) is None
    assert stem_note(BackboneSettings("resnet20"), 224) is stem_note(VIT, 224) is None
    assert stem_note(BackboneSettings("speednet"), 224) is None
    assert "fifteen times" in (stem_note(BackboneSettings("resnet18", stem="cifar"), 224) or "")
    assert "(stem: imagenet) for images of 224" in (stem_note(BackboneSettings("resnet18"), 224) or "")


def test_vit_follows_image_and_patch_size() -> None:
    large, small = (build_backbone(VIT, size).get_parameter("pos_embed") for size in (32, 16))
    assert (large.shape[1], small.shape[1]) == (1 + 8 * 8, 1 + 4 * 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (BackboneSettings("resnet81"), "did you mean"),
        (BackboneSettings("resnet18.a1_in2k"), r"no weights 'resnet18.a1_in2k' \(did you mean 'resnet18.a\d_in1k'"),
        (BackboneSettings("resnet20", patch_size=4), "backbone.patch_size"),
        (BackboneSettings("speednt"), "there is no architecture 'speednt' \\(did you mean 'speednet'"),
        (BackboneSettings("speednet", patch_size=4), "backbone.patch_size: speednet does not have it"),
        (BackboneSettings("speednet", drop_path=0.1), "backbone.drop_path: speednet does not have it"),
        (BackboneSettings("speednet", pretrained=True), "backbone.pretrained: speednet does not have it"),
        (BackboneSettings("resnet18", patch_size=4), "patch_size"),
        (BackboneSettings("resnet18d"), "stem: imagenet"),
        (BackboneSettings("vit_tiny_patch16_224", patch_size=5), "do not divide"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(settings: BackboneSettings, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_backbone(settings, 32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.Linear(1, 1), "not a Linear; a network of your own needs no building"),
        ({"name": "resnet20"}, "not a dict"),
        (None, "not a NoneType"),
    ],
)
def test_what_is_no_architecture_is_refused_with_what_to_give(given: Any, message: str) -> None:
    with pytest.raises(SettingError, match=f"^settings: must be the name of an architecture, such as .*, {message}$"):
        build_backbone(given)


def test_weights_that_cannot_be_downloaded_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UserError, match=r"backbone\.pretrained.*no route to host.*network"):
        build_backbone(BackboneSettings("resnet18", pretrained=True))


# γ and width


def seeded(settings: BackboneSettings, size: int = 32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = build_backbone(settings, size).state_dict()
    return state | {"the next random number": torch.rand(())}


@pytest.mark.parametrize(
    ("default", "written_out"),
    [
        (BackboneSettings("resnet20"), BackboneSettings("resnet20", zero_gamma=False, width=16)),
        (BackboneSettings("speednet"), BackboneSettings("speednet", width=64)),
        (BackboneSettings("resnet18"), BackboneSettings("resnet18", zero_gamma=True, width=64)),
        (BackboneSettings("resnet26d", stem="imagenet"), BackboneSettings("resnet26d", "imagenet", width=64)),
        (VIT, BackboneSettings("vit_tiny_patch16_224", patch_size=4, width=192)),
    ],
)
def test_the_architectures_own_settings_draw_the_same_weights_to_the_bit(
    default: BackboneSettings, written_out: BackboneSettings
) -> None:
    one, other = seeded(default), seeded(written_out)
    assert one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_without_settings_of_ours_the_weights_are_those_of_timm() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=0).state_dict()
    ours = seeded(BackboneSettings("resnet18", stem="imagenet"))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50"])
def test_the_last_gamma_of_each_block_starts_as_told_and_nothing_else_changes(name: str) -> None:
    off, on = (seeded(BackboneSettings(name, zero_gamma=zero)) for zero in (True, False))
    last = {"resnet20": "bn2", "resnet18": "bn2", "resnet50": "bn3"}[name]
    gated = {key for key in on if key.startswith(("blocks", "layer")) and key.endswith(f"{last}.weight")}
    assert len(gated) == {"resnet20": 9, "resnet18": 8, "resnet50": 16}[name]
    for key, value in on.items():
        assert torch.equal(off[key], torch.zeros_like(value) if key in gated else value), key
        assert key not in gated or (value == 1).all()


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        (BackboneSettings("resnet8", width=24), 96),
        (BackboneSettings("speednet", width=5), 20),
        (BackboneSettings("resnet18", width=33), 264),
        (BackboneSettings("resnet50", width=32), 1024),
        (BackboneSettings("vit_tiny_patch16_224", patch_size=8, width=48), 48),
    ],
)
def test_width_is_that_of_the_first_stage_or_of_the_embedding(settings: BackboneSettings, features: int) -> None:
    backbone = build_backbone(settings, 32).eval()
    assert num_features(backbone) == features and backbone(torch.zeros(2, 3, 32, 32)).shape == (2, features)


@pytest.mark.parametrize(
    ("settings", "key", "reason"),
    [
        (VIT, "zero_gamma", "only ResNets"),
        (BackboneSettings("speednet"), "zero_gamma", "only ResNets"),
        (BackboneSettings("mobilenetv3_small_050"), "zero_gamma", "only ResNets"),
        (BackboneSettings("resnet18", pretrained=True), "zero_gamma", "pretrained"),
        (BackboneSettings("mobilenetv3_small_050"), "width", "only ResNets, ViTs and speednet"),
        (VIT, "width", "multiple of 3"),
        (BackboneSettings("resnet18", pretrained=True), "width", "pretrained"),
    ],
)
def test_what_an_architecture_does_not_have_is_refused(settings: BackboneSettings, key: str, reason: str) -> None:
    changed = {"zero_gamma": False} if key == "zero_gamma" else {"width": 64}
    with pytest.raises(SettingError, match=reason) as caught:
        build_backbone(replace(settings, **changed), 32)
    assert caught.value.key == f"backbone.{key}"


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("settings", [*map(BackboneSettings, ("resnet8", "speednet", "resnet18", "resnet50")), VIT])
def test_a_matching_width_costs_the_factor_within_five_percent(settings: BackboneSettings, factor: float) -> None:
    state = torch.get_rng_state()
    wide = matching_width(settings, 32, 100, factor)
    assert torch.equal(state, torch.get_rng_state())
    assert wide is not None and wide == replace(settings, width=wide.width)
    fabric = make_fabric(TrainingSettings(device="cpu", precision="32-true"))
    one, other = (
        count_flops(RegulatedClassifier(build_backbone(own), None, 100, mode="none"), 32, fabric)
        for own in (settings, wide)
    )
    assert other / one == pytest.approx(factor, rel=0.05)


def test_no_width_matches_what_has_none() -> None:
    assert matching_width(BackboneSettings("mobilenetv3_small_050"), 32, 10) is None
    assert matching_width(BackboneSettings("resnet18", pretrained=True), 32, 10) is None
    narrow = BackboneSettings("vit_tiny_patch16_224", patch_size=8, width=3)  # steps of 3 are too coarse there
    assert matching_width(narrow, 32, 10, factor=1.4) is None


@pytest.mark.parametrize("settings", [BackboneSettings("resnet18"), VIT])
def test_a_matching_width_is_found_quickly(settings: BackboneSettings) -> None:
    matching_width.cache_clear()
    begun = time.process_time()
    matching_width(settings, 32, 10)
    assert time.process_time() - begun < 8  # a second or two, with room for a busy machine

"""Takeovers: what changes, what does not, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from emoreg.config.schema import BackboneSettings
from emoreg.errors import SettingError
from emoreg.models.backbones import build_backbone
from emoreg.models.features import num_features
from emoreg.models.takeover import NormMatch, estimate_statistics, keep_moments, match_norms, shrink_and_perturb
from narrow import present

SIZE = 32
# Stem, blocks, downsample paths; grouped convolutions; batch norms with an activation inside; depthwise convolutions;
# gates that have no batch norm; pooling in between.
BATCH_NORM_NETS = ["resnet8", "resnet20", "speednet", "resnet18", "resnext26ts", "regnety_002", "mobilenetv3_small_050"]


def drawn(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_backbone(BackboneSettings(name), SIZE)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def trained(name: str, steps: int = 8) -> nn.Module:
    """A network after a few steps, so that weights and statistics differ from any draw."""
    encoder = drawn(name, seed=1).train()
    head = nn.Linear(num_features(encoder), 4)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(encoder(images(16, step))), torch.arange(16) % 4).backward()
        optimizer.step()
    return encoder.eval()


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def filters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Norms of each convolution's filters."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            yield name, layer.weight.detach().flatten(1).norm(dim=1)


# Norm-matched


@pytest.mark.parametrize("name", BATCH_NORM_NETS)
def test_matching_norms_leaves_the_function_in_evaluation_the_same(name: str) -> None:
    encoder, fresh = trained(name).double(), drawn(name, seed=2)
    before, of_draw = encoder(images(4).double()), state(fresh)
    report = match_norms(encoder, fresh)
    assert report.scaled > 0
    assert_close(encoder(images(4).double()), before, rtol=1e-9, atol=1e-9)
    assert unchanged(fresh, of_draw)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18"])
def test_norms_are_then_those_of_the_fresh_draw_layer_by_layer(name: str) -> None:
    encoder, fresh = trained(name), drawn(name, seed=2)
    report = match_norms(encoder, fresh)
    layers = dict(filters(fresh))
    assert report == NormMatch(sum(map(len, layers.values())), 0, 0)  # all of them: stem and downsample too
    for layer, norms in filters(encoder):
        assert_close(norms, layers[layer].square().mean().sqrt().expand_as(norms))


def test_all_filters_of_speednet_that_are_trained_are_scaled() -> None:
    encoder, fresh = trained("speednet", steps=2), drawn("speednet", seed=2)
    before = state(encoder)
    report = match_norms(encoder, fresh)
    layers = dict(filters(fresh))
    assert report.scaled == sum(map(len, layers.values())) and report.quiet == report.elsewhere == 0
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {*(f"{layer}.weight" for layer in layers)} | {
        name for name in before if name.endswith(("running_mean", "running_var"))
    }


def test_gamma_and_beta_stay() -> None:
    encoder, fresh = trained("resnet18"), drawn("resnet18", seed=2)
    before = state(encoder)
    match_norms(encoder, fresh)
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter.ndim == 1), name


class Pieces(nn.Module):
    """One layer of each relevant kind: grouped with a bias, used twice, not before a batch norm, and quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, groups=3)
        self.grouped_norm = nn.BatchNorm2d(6)
        self.read_twice = nn.Conv2d(6, 6, 1)
        self.read_twice_norm = nn.BatchNorm2d(6)
        self.used_twice = nn.Conv2d(6, 6, 1)
        self.used_twice_norm = nn.BatchNorm2d(6)
        self.without_statistics = nn.Conv2d(6, 6, 1)
        self.no_statistics = nn.BatchNorm2d(6, track_running_stats=False)
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped_norm(self.grouped(x)).relu()
        y = self.read_twice(x)
        x = self.read_twice_norm(y) + y
        x = self.used_twice_norm(self.used_twice(x))
        x = self.used_twice_norm(self.used_twice(x))
        x = self.no_statistics(self.without_statistics(x))
        return self.last(x.mean(dim=(2, 3)))


def test_only_filters_that_feed_a_batch_norm_alone_are_scaled_by_group() -> None:
    torch.manual_seed(0)
    encoder, fresh = Pieces(), Pieces()
    for _ in range(3):
        encoder(images(8))
    encoder.eval()
    before, answer = state(encoder), encoder(images(4))
    assert match_norms(encoder, fresh) == NormMatch(scaled=6, quiet=0, elsewhere=3 * 6 + 5)
    assert_close(encoder(images(4)), answer)
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        "grouped.weight", "grouped.bias", "grouped_norm.running_mean", "grouped_norm.running_var"
    }  # fmt: skip
    assert_close(encoder.grouped.weight.flatten(1).norm(dim=1), rms(fresh.grouped.weight).expand(6))


def rms(weight: Tensor) -> Tensor:
    return weight.flatten(1).norm(dim=1).square().mean().sqrt()


def test_filters_whose_variance_is_near_epsilon_are_left_and_counted() -> None:
    torch.manual_seed(0)
    encoder, fresh = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    layer, norm = encoder[0], encoder[1]
    assert isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        layer.weight[0] = 0  # no norm to scale
        layer.weight[1] *= 1e3  # c² · v is too small
        norm.running_var = torch.tensor([0.0, 0.5, 0.009, 0.5])  # the third: v is, with ε 1e-5
    encoder.eval()
    before, answer = state(encoder), encoder(images(2))
    assert match_norms(encoder, fresh) == NormMatch(scaled=1, quiet=3, elsewhere=0)
    assert_close(encoder(images(2)), answer)
    for name, value in encoder.state_dict().items():
        if value.ndim:
            assert torch.equal(value[:3], before[name][:3]), name
    assert not torch.equal(layer.weight[3], before["0.weight"][3])


@pytest.mark.parametrize("name", ["test_vit", "convnext_atto"])
def test_networks_without_batch_norm_are_refused_with_the_reason(name: str) -> None:
    settings = BackboneSettings(name, patch_size=8 if "vit" in name else None)
    encoder = build_backbone(settings, SIZE)
    before = state(encoder)
    with pytest.raises(SettingError, match=r"no batch norms.*products of weights.*as_is or shrunk") as caught:
        match_norms(encoder, encoder)
    assert caught.value.key == "encoder.takeover" and unchanged(encoder, before)


def test_a_network_that_cannot_be_traced_is_refused_with_the_reason() -> None:
    class Undecided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)) if x.mean() > 0 else x

    with pytest.raises(SettingError, match=r"Undecided: torch\.fx cannot trace it"):
        match_norms(Undecided(), Undecided())


def test_batch_norms_that_follow_no_filter_are_no_reason_to_scale() -> None:
    before_everything = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    with pytest.raises(SettingError, match="none of its filters feeds a batch norm alone"):
        match_norms(before_everything, before_everything)


# Shrunk and perturbed


@pytest.mark.parametrize("name", ["resnet8", "test_vit"])
def test_every_parameter_is_the_share_between_the_draw_and_what_was_learned(name: str) -> None:
    encoder, fresh = drawn(name, seed=1), drawn(name, seed=2)
    nn.init.constant_(next(p for p in encoder.parameters() if p.ndim == 1), 3.0)
    start, of_draw = state(encoder), state(fresh)
    for share in (0.0, 0.25, 1.0):
        moved = copy.deepcopy(encoder)
        shrink_and_perturb(moved, fresh, share)
        for key, parameter in moved.named_parameters():
            assert_close(parameter, (1 - share) * of_draw[key] + share * start[key])
        if share in (0, 1):
            assert all(torch.equal(p, (start if share else of_draw)[key]) for key, p in moved.named_parameters())
    assert unchanged(fresh, of_draw)


def test_statistics_are_estimated_anew_as_the_mean_over_batches() -> None:
    encoder = trained("resnet8")
    weights = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    batches = [images(16, seed) for seed in range(3)]
    stem = encoder.get_submodule("conv1")
    estimate_statistics(encoder, batches)
    outputs = [stem(batch) for batch in batches]
    assert_close(encoder.get_buffer("bn1.running_mean"), torch.stack([o.mean(dim=(0, 2, 3)) for o in outputs]).mean(0))
    assert_close(encoder.get_buffer("bn1.running_var"), torch.stack([o.var(dim=(0, 2, 3)) for o in outputs]).mean(0))
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in encoder.named_parameters())


def test_networks_without_statistics_need_no_estimate() -> None:
    def never() -> Iterator[Tensor]:
        raise AssertionError("no image is needed")
        yield

    encoder = build_backbone(BackboneSettings("test_vit", patch_size=8), SIZE)
    before = state(encoder)
    estimate_statistics(encoder, never())
    assert unchanged(encoder, before)


# Moments


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "test_vit"])
def test_the_twin_has_the_moments_of_each_layer_and_otherwise_the_draw(name: str) -> None:
    encoder, fresh = drawn(name, seed=1), drawn(name, seed=2)
    with torch.no_grad():
        for number, parameter in enumerate(encoder.parameters()):
            parameter.mul_(1 + number / 10).add_(0.01 * number)
    start, of_draw = state(encoder), state(fresh)
    keep_moments(encoder, fresh)
    for key, own in encoder.named_parameters():
        if own.ndim < 2:
            assert torch.equal(own, start[key]), key  # biases, γ, β, LayerScale
            continue
        assert_close(own.mean(), start[key].mean(), rtol=1e-4, atol=1e-6)
        assert_close(own.std(correction=0), start[key].std(correction=0), rtol=1e-4, atol=1e-7)
        if own.numel() > 1000:
            both = torch.stack([own.detach().flatten(), of_draw[key].flatten()])
            assert torch.corrcoef(both)[0, 1] > 0.999, key
    for key, buffer in encoder.named_buffers():
        assert torch.equal(buffer, of_draw[key]), key
    assert unchanged(fresh, of_draw)


def test_a_constant_draw_has_only_a_mean_to_keep() -> None:
    encoder, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    nn.init.zeros_(fresh.weight)
    mean = encoder.weight.mean().item()
    keep_moments(encoder, fresh)
    assert_close(encoder.weight.detach(), torch.full((2, 3), mean))
    assert present(encoder.bias).isfinite().all()

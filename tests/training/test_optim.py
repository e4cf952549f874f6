from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.schema import BackboneSettings
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from emoreg.training.optim import make_average, make_optimizer, make_schedule
from fake_gpu import GPU, Copies
from narrow import present
from tiny_backbone import TinyBackbone

K = 4
PATCHES = "backbone.patch_embed.proj.weight"


# Optimiser


def grouped(model: nn.Module, settings: OptimizerSettings, factors: dict[str, float]) -> dict[str, tuple[float, float]]:
    """(learning rate, decay) by parameter name; fails if a parameter is in two groups, or missing by mistake."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, settings, factors, 128).param_groups
    found = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_only_weights_of_layers_decay(name: Any) -> None:
    vit = build_backbone(BackboneSettings("test_vit", patch_size=8), 16)
    model = RegulatedClassifier(vit, TinyBackbone(), K, mode="learned", granularity="per_sample")
    found = grouped(model, OptimizerSettings(name=name, lr=0.1, weight_decay=0.01), {})
    assert set(found) == {parameter for parameter, _ in model.named_parameters()}
    assert {lr for lr, _ in found.values()} == {0.1}
    decaying = {parameter for parameter, (_, decay) in found.items() if decay == 0.01}
    exempt = {parameter for parameter, (_, decay) in found.items() if decay == 0.0}
    assert decaying | exempt == set(found)
    assert {"regulation.rho", "regulation.gate.weight", "backbone.cls_token", "backbone.pos_embed"} <= exempt
    assert {"encoder.conv.bias", "encoder.norm.weight", "encoder.norm.bias", "head.bias"} <= exempt
    assert {"head.weight", "emotional_head.weight", "encoder.conv.weight"} <= decaying
    assert {"backbone.patch_embed.proj.weight", "backbone.blocks.0.mlp.fc1.weight"} <= decaying
    assert not any(parameter.endswith("bias") or ".norm" in parameter for parameter in decaying)


def test_what_a_module_lists_itself_is_exempt_where_the_module_stands() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.weight = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))

        def no_weight_decay(self) -> set[str]:
            return {"scale"}

    settings = OptimizerSettings(weight_decay=0.01)
    assert grouped(Scale(), settings, {})["scale"][1] == 0.0
    nested = grouped(nn.ModuleDict({"inner": Scale(), "scale": nn.Linear(2, 2)}), settings, {})
    assert nested["inner.scale"][1] == 0.0
    assert nested["inner.weight"][1] == nested["scale.weight"][1] == 0.01


def test_learning_rates_follow_the_prefix_of_the_name() -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), K, mode="learned")
    found = grouped(model, OptimizerSettings(lr=0.1), {"encoder.": 0.5, "regulation.": 10.0})
    for name, (lr, _) in found.items():
        factor = 0.5 if name.startswith("encoder.") else 10.0 if name.startswith("regulation.") else 1.0
        assert lr == pytest.approx(0.1 * factor), name


def test_frozen_parameters_are_left_out() -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), K, freeze_encoder=True)
    found = grouped(model, OptimizerSettings(), {"encoder.": 0.5})
    assert set(found) == {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}


@pytest.mark.parametrize(("name", "times"), [("sgd", 4.0), ("adamw", 2.0), ("muon", 2.0)])
def test_the_learning_rate_scales_with_the_batch_if_the_recipe_specifies_its_batch(name: Any, times: float) -> None:
    model = RegulatedClassifier(TinyBackbone(), None, K, mode="none")
    given, scaled = OptimizerSettings(name, lr=0.1), OptimizerSettings(name, lr=0.1, lr_per_batch=512)
    for settings, lr in ((given, 0.1), (scaled, 0.1 * times)):
        assert settings.peak_lr(2048) == pytest.approx(lr)
        optimizer = make_optimizer(model, settings, {"head.": 0.5}, 2048)
        assert {group["lr"] for group in optimizer.param_groups} == {settings.peak_lr(2048), settings.peak_lr(2048) / 2}
    ratio = "2048 / 512" if name == "sgd" else "√(2048 / 512)"
    assert scaled.describe_lr(2048) == f"learning rate {0.1 * times:g} = 0.1 · {ratio} images per step"


def test_fused_kernels_are_used_on_cuda_only() -> None:
    for settings in (OptimizerSettings("sgd"), OptimizerSettings("adamw")):
        for device, fused in (("cuda", True), ("cpu", None)):
            optimizer = make_optimizer(nn.Linear(2, 2), settings, {}, 8, torch.device(device))
            assert {group["fused"] for group in optimizer.param_groups} == {fused}
    for device in ("cuda", "cpu"):
        muon = make_optimizer(nn.Linear(2, 2), OptimizerSettings("muon"), {}, 8, torch.device(device))
        assert {group["capturable"] for group in muon.param_groups} == {device == "cuda"}


def test_a_step_of_muon_on_a_matrix_is_that_of_torch_and_the_rest_gets_adamw() -> None:
    torch.manual_seed(0)
    settings = OptimizerSettings("muon", lr=0.01, momentum=0.95, weight_decay=0.1)
    model = RegulatedClassifier(build_backbone(BackboneSettings("test_vit", patch_size=8), 16), None, K, mode="none")
    twin = copy.deepcopy(model)
    optimizer = make_optimizer(model, settings, {}, 8)
    hidden = {id(p) for group in optimizer.param_groups if group["use_muon"] for p in group["params"]}
    pairs = [
        (id(own) in hidden, name, other)
        for (name, own), other in zip(model.named_parameters(), twin.parameters(), strict=True)
    ]
    expected: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            [other for is_hidden, _, other in pairs if is_hidden],
            lr=0.01,
            momentum=0.95,
            weight_decay=0.1,
            adjust_lr_fn="match_rms_adamw",
        ),
        *(
            torch.optim.AdamW([other], lr=0.01, weight_decay=0.1 if name in ("head.weight", PATCHES) else 0.0)
            for is_hidden, name, other in pairs
            if not is_hidden
        ),
    ]
    for _ in range(3):
        for own, other in zip(model.parameters(), twin.parameters(), strict=True):
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        for each in (optimizer, *expected):
            each.step()
    for (name, own), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        # Products in bfloat16, in another order.
        assert_close(own, other, rtol=0, atol=1e-4, msg=name)
    assert len(hidden) == sum(parameter.ndim == 2 for parameter in model.backbone.parameters()) > 0


# Schedule


def rates(settings: OptimizerSettings, steps: int, factors: tuple[float, ...] = (1.0,)) -> list[list[float]]:
    """The learning rates of each group at every step, and after the last one."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": settings.lr * factor} for factor in factors]
    optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = make_schedule(optimizer, settings, steps)
        seen = [[group["lr"] for group in optimizer.param_groups]]
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            seen.append([group["lr"] for group in optimizer.param_groups])
    assert all(group["momentum"] == settings.momentum for group in optimizer.param_groups)
    return seen


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warmup_rises_linearly_to_the_learning_rate(schedule: Any) -> None:
    lrs = np.array(rates(OptimizerSettings(lr=0.4, schedule=schedule, warmup=0.2), 50))[:, 0]
    assert lrs[0] == pytest.approx(0.4 / 10)
    assert lrs[10] == pytest.approx(0.4) and lrs.max() == pytest.approx(0.4)
    np.testing.assert_allclose(np.diff(lrs[:11]), (lrs[10] - lrs[0]) / 10, rtol=1e-6)


def test_cosine_is_the_cosine_and_ends_at_zero() -> None:
    lrs = rates(OptimizerSettings(lr=0.4, schedule="cosine", warmup=0.2), 50)
    for step in range(10, 51):
        assert lrs[step][0] == pytest.approx(0.2 * (1 + math.cos(math.pi * (step - 10) / 40)), abs=1e-9)
    assert rates(OptimizerSettings(lr=0.4, schedule="cosine", warmup=0.0), 50)[0] == [0.4]
    assert lrs[50][0] == pytest.approx(0, abs=1e-9)


def test_constant_stays() -> None:
    assert {lr for (lr,) in rates(OptimizerSettings(lr=0.4, schedule="constant", warmup=0.0), 20)} == {0.4}
    after = [lr for (lr,) in rates(OptimizerSettings(lr=0.4, schedule="constant", warmup=0.1), 20)][2:]
    assert after == pytest.approx([0.4] * len(after))


def test_one_cycle_rises_to_the_learning_rate_and_falls_to_almost_nothing() -> None:
    lrs = [lr for (lr,) in rates(OptimizerSettings(lr=0.4, schedule="one_cycle", warmup=0.5), 39)]
    peak = lrs.index(max(lrs))
    assert peak == 19 and lrs[peak] == pytest.approx(0.4)
    assert lrs[: peak + 1] == sorted(lrs[: peak + 1]) and lrs[peak:] == sorted(lrs[peak:], reverse=True)
    assert lrs[0] < 0.4 / 20 and lrs[-1] < 0.4 / 1000


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
def test_groups_keep_their_proportion_at_every_step(schedule: Any) -> None:
    for full, half, none in rates(OptimizerSettings(lr=0.4, schedule=schedule, warmup=0.2), 20, (1.0, 0.5, 0.0)):
        assert half == pytest.approx(full / 2) and none == 0


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
def test_the_shortest_trainings_have_a_schedule_too(schedule: Any) -> None:
    for steps in (1, 2, 3, 4, 9, 19):
        for warmup in (0.0, 0.05, 0.1, 0.2, 0.5, 0.95):
            if schedule != "one_cycle" or warmup:
                lrs = rates(OptimizerSettings(lr=0.4, schedule=schedule, warmup=warmup), steps)
                assert all(0 <= lr <= 0.4 + 1e-9 for (lr,) in lrs), (steps, warmup)


# Average


def test_no_average_is_made_unless_requested() -> None:
    assert make_average(nn.Linear(2, 2), None) is None


def test_an_average_of_weights_and_statistics_is_pytorchs() -> None:
    torch.manual_seed(0)
    model = TinyBackbone().train()
    average = present(make_average(model, 0.9))
    expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(4):
        model(torch.randn(4, 3, 8, 8))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        for each in (average, expected):
            each.update_parameters(model)
    assert average.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(average.state_dict()[name], tensor), name


class WithConstants(TinyBackbone):
    """A network with buffers that training never changes, as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(200), persistent=False)
        self.register_buffer("mask", torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf))
        self.register_buffer("is_seen", torch.tensor([True, False]))


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.9995])
def test_indices_masks_and_counters_are_copied_into_an_average(decay: float) -> None:
    model = WithConstants().train()
    average = present(make_average(model, decay))
    for _ in range(5):
        model(torch.randn(4, 3, 8, 8))
        average.update_parameters(model)
    own = dict(average.module.named_buffers())
    for name, tensor in model.named_buffers():
        if name in ("index", "mask", "is_seen") or name.endswith("num_batches_tracked"):
            assert torch.equal(own[name], tensor), name


def test_no_average_waits_for_a_gpu() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = present(make_average(model, 0.9))
    for each in (model, average.module):  # the count stays on the CPU, as it does for a model made on a GPU
        each.to(GPU)
    with Copies() as copies:
        for _ in range(3):
            average.update_parameters(model)
    assert not copies.found

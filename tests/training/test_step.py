from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings, Relative
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.training.fabric import make_fabric
from emoreg.training.optim import make_average, make_optimizer, make_schedule
from emoreg.training.step import Objective, compile_mode, make_loss_module, make_state, train_step
from narrow import present
from tiny_backbone import TinyBackbone


def test_compiled_code_is_replayed_as_cuda_graphs_on_a_gpu() -> None:
    gpu, asked = torch.device("cuda"), TrainingSettings(compile=True)
    assert compile_mode(asked, gpu, True) == "reduce-overhead"
    assert compile_mode(asked, torch.device("cpu"), False) == "default"
    assert compile_mode(TrainingSettings(), gpu, True) is None
    in_parts = TrainingSettings(compile=True, accumulate=2)
    assert compile_mode(in_parts, gpu, True) == "default"  # gradients would be overwritten
    whole = TrainingSettings(compile=True, cuda_graphs=True)
    assert compile_mode(whole, gpu, True) == "default"  # the step is a graph already
    assert compile_mode(whole, gpu, False) == "reduce-overhead"


def test_training_uses_the_attention_that_is_fast_on_the_device() -> None:
    vit = build_backbone(BackboneSettings("vit_tiny_patch16_224", patch_size=8), image_size=16)
    recipe = TrainRecipe(training=TrainingSettings(device="cpu", precision="bf16-mixed"))
    make_state(make_fabric(recipe.training), Objective(vit, squared), recipe, batch_size=2, steps=1)
    assert not any(vars(module).get("fused_attn", False) for module in vit.modules())


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Records an entry whenever code is compiled, without generating any."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compile_(module, backend=backend))
    found: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
        found.append(True)
        return graph.forward

    return found


def test_every_run_of_a_process_is_compiled_however_many_came_before(compilations: list[bool]) -> None:
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))
    for width in range(1, 40):  # PyTorch's default limit is 8
        objective = Objective(nn.Sequential(nn.Flatten(), nn.Linear(192, width)), squared)
        make_loss_module(objective, "default", False)(batch)
    assert len(compilations) == 39


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch.images).square().mean()


def test_compiled_code_is_reused_by_the_next_run(compilations: list[bool]) -> None:
    """Models with other weights and loss functions of the same kind, each with its own result and gradients."""
    batch = Batch(torch.randn(4, 3, 8, 8), torch.arange(4) % 3, torch.arange(4))
    counts: list[int] = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), num_classes=3, mode="learned").eval()
        loss = RegulationLoss(model)

        def loss_of(model: nn.Module, batch: Batch, loss: RegulationLoss = loss) -> Tensor:
            return loss(cast(RegulatedClassifier, model).respond(batch.images), batch.labels)

        compiled = make_loss_module(Objective(model, loss_of), "default", False)(batch)
        gradients = torch.autograd.grad(compiled, list(model.parameters()))
        plain = loss_of(model, batch)
        assert_close(compiled, plain)
        assert_close(gradients, torch.autograd.grad(plain, list(model.parameters())))
        counts.append(len(compilations))
    assert counts[0] > 0 and len(set(counts)) == 1  # one, or with an older PyTorch some parts


def test_a_step_is_that_of_plain_pytorch() -> None:
    """Loss, clipped gradient, optimiser, schedule and average are bit-identical over a few steps."""
    settings = OptimizerSettings(lr=0.1, schedule="cosine", warmup=0.25, clip_norm=0.5, ema=0.9)
    recipe = TrainRecipe(optimizer=settings, training=TrainingSettings(device="cpu", precision="32-true"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    plain = copy.deepcopy(model)
    batches = [Batch(torch.randn(8, 3, 8, 8), torch.arange(8) % 4, torch.arange(8)) for _ in range(5)]

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch.images), batch.labels)

    state = make_state(make_fabric(recipe.training), Objective(model, loss_of), recipe, batch_size=8, steps=5)
    assert state.parts.keys() == {"model", "optimizer", "schedule", "average"} and state.kept is not model
    optimizer = make_optimizer(plain, settings, {}, 8)
    schedule, average = make_schedule(optimizer, settings, 5), present(make_average(plain, 0.9))
    norms: list[Tensor] = []

    def observe() -> None:
        norms.append(nn.utils.get_total_norm([present(parameter.grad) for parameter in model.parameters()]))

    for batch in batches:
        loss = train_step(state, batch, observe)
        expected = loss_of(plain, batch)
        optimizer.zero_grad()
        expected.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        assert norm > 0.5 and torch.equal(norms[-1], norm)  # observed before it is clipped
        optimizer.step()
        schedule.step()
        average.update_parameters(plain)
        assert torch.equal(loss, expected.detach()) and not loss.requires_grad
        assert state.schedule.get_last_lr() == schedule.get_last_lr()
    for ours, theirs in ((model, plain), (state.kept, average.module)):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("parts", [2, 3, 8])  # of 8 images: also in parts of different sizes, and one by one
def test_a_step_in_parts_is_that_of_the_whole_batch(parts: int) -> None:
    """Loss, observed gradient, optimiser and schedule, up to rounding, without batch statistics."""
    settings = OptimizerSettings(lr=0.1, schedule="cosine", warmup=0.25, clip_norm=0.5)
    batches = [Batch(torch.randn(8, 3, 8, 8), torch.arange(8) % 4, torch.arange(8)) for _ in range(3)]
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.LayerNorm(4))
    models = [whole, copy.deepcopy(whole)]
    losses: list[list[Tensor]] = [[], []]
    for model, accumulate, found in zip(models, (1, parts), losses, strict=True):
        training = TrainingSettings(device="cpu", precision="32-true", batch_size=8, accumulate=accumulate)
        recipe, sizes = TrainRecipe(optimizer=settings, training=training), list[int]()

        def loss_of(model: nn.Module, batch: Batch, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(batch.rows))
            return F.cross_entropy(model(batch.images), batch.labels)

        state = make_state(make_fabric(training), Objective(model, loss_of), recipe, batch_size=8, steps=3)
        found += [train_step(state, batch) for batch in batches]
        assert len(sizes) == 3 * accumulate and sum(sizes) == 24 and max(sizes) - min(sizes) <= 1
        assert state.schedule.last_epoch == 3  # steps of the optimiser
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_alone", [False, True])
def test_each_group_of_parameters_is_clipped_separately(is_alone: bool) -> None:
    """A large gradient elsewhere must not shorten the step of a branch; without groups it does."""
    settings = OptimizerSettings(lr=1.0, momentum=0, weight_decay=0, schedule="constant", warmup=0, clip_norm=0.5)
    recipe = TrainRecipe(optimizer=settings, training=TrainingSettings(device="cpu", precision="32-true"))
    loud, quiet, outside = (nn.Linear(3, 2) for _ in range(3))
    model = nn.ModuleList([loud, quiet, outside])
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss_of(_model: nn.Module, _batch: Batch) -> Tensor:
        return 100 * loud.weight.sum() + 0.1 * quiet.weight.sum() + 7 * outside.bias.sum()

    groups = [list(branch.parameters()) for branch in (loud, quiet)] if is_alone else []
    objective = Objective(model, loss_of, clip_groups=groups)
    state = make_state(make_fabric(recipe.training), objective, recipe, 1, steps=1)
    train_step(state, Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.arange(1)))
    loud_step, quiet_step, outside_step = (
        (model.get_parameter(f"{place}") - before[place]).norm().item() for place in ("0.weight", "1.weight", "2.bias")
    )
    if is_alone:
        # ‖g‖ of the quiet branch is 0.1 · √6, under the limit; what is in no group is not clipped.
        assert (loud_step, quiet_step, outside_step) == pytest.approx((0.5, 0.1 * 6**0.5, 7 * 2**0.5), rel=1e-4)
    else:
        assert loud_step == pytest.approx(0.5, rel=1e-2) and quiet_step < 1e-3 and outside_step < 0.05


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("mode", ["bel", "embp"])
def test_an_own_rule_has_the_schedules_share_with_layer_decay_too(
    mode: Relative, schedule: Literal["cosine", "one_cycle"]
) -> None:
    """No parameter of bel has the full learning rate: its head has its own rule, and layers have their factors."""
    shares: dict[float | None, list[float]] = {}
    for decay in (None, 0.5):
        settings = OptimizerSettings(lr=0.3, schedule=schedule, warmup=0.25, layer_decay=decay)
        recipe = TrainRecipe(optimizer=settings, training=TrainingSettings(device="cpu", precision="32-true"))
        model = RegulatedClassifier(build_backbone(BackboneSettings("resnet8"), 8), None, 3, mode=mode)
        own = shares[decay] = list[float]()
        objective = Objective(model, lambda model, batch: model(batch.images).square().mean(), own_rule=own.append)
        state = make_state(make_fabric(recipe.training), objective, recipe, batch_size=2, steps=4)
        for _ in range(4):
            lr = state.lr
            train_step(state, Batch(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2)))
            assert lr == pytest.approx(0.3 * own[-1])
    assert shares[0.5] == pytest.approx(shares[None]) and max(shares[None]) == pytest.approx(1)


def test_the_learning_rate_is_0_if_every_factor_is_0() -> None:
    recipe = TrainRecipe(training=TrainingSettings(device="cpu", precision="32-true"))
    objective = Objective(TinyBackbone(), squared, lr_factors={"": 0.0})
    state = make_state(make_fabric(recipe.training), objective, recipe, batch_size=2, steps=4)
    assert state.lr == 0

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from emoreg.config.schema import AugmentSettings, BackboneSettings, OptimizerSettings, TrainingSettings, TrainRecipe
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.errors import UserError
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run, start_run
from emoreg.runtime.progress import Advance, Progress
from emoreg.training.loop import (
    compile_mode,
    fit,
    make_average,
    make_fabric,
    make_objective,
    make_optimizer,
    make_schedule,
    progressive_size,
)
from tiny_backbone import TinyBackbone

K = 4
PLAIN = OptimizerSettings(lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0)


def image_set(count: int = 32, size: int = 8) -> ImageSet:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % K
    return ImageSet(
        Table("noise", pixels, labels), size, torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels)
    )


def recipe(optimizer: OptimizerSettings = PLAIN, **training: Any) -> TrainRecipe:
    settings = dict[str, Any](epochs=2, batch_size=8, device="cpu", precision="32-true") | training
    return TrainRecipe(
        augment=AugmentSettings(0, flip=False), optimizer=optimizer, training=TrainingSettings(**settings)
    )


def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(TinyBackbone(), nn.Linear(6, K))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.images), batch.labels)


def nothing(_model: nn.Module) -> dict[str, float]:
    return {}


def fit_in(folder: Path, model: nn.Module, asked: TrainRecipe, **changes: Any) -> tuple[nn.Module, Run]:
    run = start_run(folder, asked)
    given: dict[str, Any] = {
        "loss_of": cross_entropy,
        "images": image_set(),
        "score": nothing,
        "lr_factors": {},
        "fabric": make_fabric(asked.training),
        "progress": Progress(quiet=True),
    }
    kept, _ = fit(model, recipe=asked, run=run, **(given | changes))
    return kept, run


class AfterEachStep(Progress):
    """Calls a function after every training step."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(quiet=True)
        self.call = call

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        yield lambda more: self.call() if more else None


# Optimiser


def grouped(model: nn.Module, settings: OptimizerSettings, factors: dict[str, float]) -> dict[str, tuple[float, float]]:
    """(learning rate, decay) by parameter name; a parameter in two groups, or in none by mistake, fails."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, settings, factors).param_groups
    found = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
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


def test_frozen_parameters_are_left_to_themselves() -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), K, freeze_encoder=True)
    found = grouped(model, OptimizerSettings(), {"encoder.": 0.5})
    assert set(found) == {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}


# Schedule


def rates(settings: OptimizerSettings, steps: int, factors: tuple[float, ...] = (1.0,)) -> list[list[float]]:
    """The learning rates of each group at every step, and, last, what is left after them."""
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


def test_the_loop_steps_the_schedule_once_a_batch_and_in_order(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asked = recipe(OptimizerSettings(lr=0.4, schedule="cosine", warmup=0.25), epochs=2)
        _, run = fit_in(tmp_path / "run", tiny_model(), asked)
    assert not [warning for warning in caught if "lr_scheduler" in str(warning.message)]
    assert run.metrics["lr"].tolist() == pytest.approx([0.2 * (1 + math.cos(math.pi * 2 / 6)), 0], abs=1e-7)


# Average, clipping, precision, compilation


def test_average_is_the_exponential_mean_of_weights_and_statistics(tmp_path: Path) -> None:
    model, decay = tiny_model(), 0.7
    states: list[dict[str, Tensor]] = []

    def remember() -> None:
        states.append({name: value.clone() for name, value in model.state_dict().items()})

    scored: list[nn.Module] = []

    def remember_candidate(candidate: nn.Module) -> dict[str, float]:
        scored.append(candidate)
        return {}

    asked = recipe(OptimizerSettings(lr=0.1, ema=decay), epochs=2)
    kept, _ = fit_in(
        tmp_path / "run",
        model,
        asked,
        progress=AfterEachStep(remember),
        score=remember_candidate,
    )
    assert len(states) == 8
    expected = states[0]
    for state in states[1:]:
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in state.items()}
    for name, value in kept.state_dict().items():
        if value.is_floating_point():  # the count of batches means nothing here
            assert_close(value, expected[name], msg=name)
        assert_close(model.state_dict()[name], states[-1][name], rtol=0, atol=0)
    assert kept is not model and scored == [kept, kept]
    assert not torch.equal(kept.state_dict()["0.norm.running_mean"], model.state_dict()["0.norm.running_mean"])


def test_average_lives_where_fabric_put_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of type stands in for the move to a GPU: both happen in place, in `Fabric.setup`."""
    asked = recipe(OptimizerSettings(lr=0.1, ema=0.9), epochs=1)
    fabric = make_fabric(asked.training)
    setup = fabric.setup
    monkeypatch.setattr(fabric, "setup", lambda module, optimizer: setup(module.double(), optimizer))
    kept, _ = fit_in(
        tmp_path / "run",
        tiny_model(),
        asked,
        fabric=fabric,
        loss_of=lambda model, batch: F.cross_entropy(model(batch.images.double()), batch.labels),
    )
    assert all(parameter.dtype == torch.float64 for parameter in kept.parameters())


def test_without_an_average_the_model_itself_is_kept(tmp_path: Path) -> None:
    model = tiny_model()
    assert fit_in(tmp_path / "run", model, recipe())[0] is model
    assert make_average(model, None) is None


def test_clip_norm_bounds_the_gradient_and_leaves_its_direction(tmp_path: Path) -> None:
    changes = {}
    for clip in (None, 1e-3):
        model = tiny_model()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        asked = recipe(OptimizerSettings(**{**vars(PLAIN), "lr": 1.0, "clip_norm": clip}), epochs=1, batch_size=32)
        fit_in(tmp_path / f"clip-{clip}", model, asked)
        changes[clip] = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert changes[None].norm() > 1e-2
    assert changes[1e-3].norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert F.cosine_similarity(changes[None], changes[1e-3], dim=0).item() == pytest.approx(1, abs=1e-3)


def test_bf16_mixed_computes_low_and_keeps_weights_full(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.images)
        seen.append(logits.dtype)
        return F.cross_entropy(logits, batch.labels)

    model = tiny_model()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    asked = recipe(epochs=1, batch_size=32, precision="bf16-mixed")
    _, run = fit_in(tmp_path / "run", model, asked, loss_of=loss_of)
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert seen == [torch.bfloat16]
    assert after.dtype == torch.float32 and torch.isfinite(after).all() and not torch.equal(before, after)
    assert math.isfinite(run.metrics["train_loss"][0])


def test_compile_covers_model_and_loss_and_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_(module: nn.Module, mode: str) -> nn.Module:
        assert mode == "default"
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    fit_in(tmp_path / "plain", tiny_model(), recipe(epochs=1))
    assert compiled == []
    model = tiny_model()
    fit_in(tmp_path / "compiled", model, recipe(epochs=1, compile=True))
    assert len(compiled) == 1 and model in list(compiled[0].modules())
    assert (
        compiled[0](Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))).ndim == 0
    )  # the loss, not the logits


def test_what_is_compiled_on_a_gpu_is_replayed_as_cuda_graphs() -> None:
    gpu, asked = torch.device("cuda"), TrainingSettings(compile=True)
    assert compile_mode(asked, gpu) == "reduce-overhead"
    assert compile_mode(asked, torch.device("cpu")) == "default"
    assert compile_mode(TrainingSettings(), gpu) is None


def test_every_run_of_a_process_is_compiled_however_many_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, mode: compile_(module, backend="eager"))  # no code is made
    are_compiled: list[bool] = []

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        are_compiled.append(torch.compiler.is_compiling())
        return model(batch.images).square().mean()

    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))
    for width in range(1, 11):  # PyTorch's own limit is 8
        make_objective(nn.Sequential(nn.Flatten(), nn.Linear(192, width)), loss_of, "default")(batch)
    assert are_compiled == [True] * 10


# Device


@pytest.mark.parametrize("device", ["cuda", "mps", "abacus"])
def test_a_device_that_is_not_there_is_refused_in_one_line(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"training\.device is {device}.*cpu") as caught:
        make_fabric(TrainingSettings(device=device))
    assert "\n" not in str(caught.value)


def test_auto_takes_the_processor_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    fabric = make_fabric(TrainingSettings())
    assert fabric.device == torch.device("cpu") and fabric._precision.precision == "32-true"


# The loop


def test_it_learns_one_batch_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(192, K)), image_set(8)
    asked = recipe(OptimizerSettings(lr=0.05, weight_decay=0.0), epochs=30)
    _, run = fit_in(tmp_path / "run", model, asked, images=images)
    loss = run.metrics["train_loss"]
    assert loss.iloc[0] > 1 and loss.iloc[-1] < 0.01


def test_every_epoch_has_a_row_with_all_its_columns(tmp_path: Path) -> None:
    _, run = fit_in(tmp_path / "run", tiny_model(), recipe(epochs=3), score=lambda _: {"val_loss": 1.5, "lambda": 0.25})
    rows = run.metrics
    columns = ["epoch", "train_loss", "lr", "seconds", "images_per_second", "val_loss", "lambda"]
    assert rows.columns.tolist() == columns
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert rows["lr"].tolist() == [0.1] * 3 and rows["val_loss"].tolist() == [1.5] * 3
    assert np.isfinite(rows.to_numpy()).all() and (rows["images_per_second"] > 0).all()


def test_train_loss_is_the_mean_over_the_steps(tmp_path: Path) -> None:
    losses: list[float] = []

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        loss = cross_entropy(model, batch)
        losses.append(loss.item())
        return loss

    _, run = fit_in(tmp_path / "run", tiny_model(), recipe(epochs=2), loss_of=loss_of)
    assert len(losses) == 8
    expected = [sum(losses[:4]) / 4, sum(losses[4:]) / 4]
    assert run.metrics["train_loss"].tolist() == pytest.approx(expected, rel=1e-6)


def test_each_epoch_trains_in_training_mode_after_a_score_in_evaluation(tmp_path: Path) -> None:
    modes: list[bool] = []

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        modes.append(model.training)
        return cross_entropy(model, batch)

    fit_in(tmp_path / "run", tiny_model(), recipe(epochs=2), loss_of=loss_of, score=lambda model: model.eval() and {})
    assert modes == [True] * 8


def test_each_epoch_draws_anew_and_the_seed_decides_what(tmp_path: Path) -> None:
    def draws(folder: str, seed: int) -> list[float]:
        drawn: list[float] = []

        def loss_of(model: nn.Module, batch: Batch) -> Tensor:
            drawn.append(torch.rand(()).item())  # as dropout and a drawn λ do
            return cross_entropy(model, batch)

        fit_in(tmp_path / folder, tiny_model(), dataclasses.replace(recipe(), seed=seed), loss_of=loss_of)
        return drawn

    first = draws("first", 0)
    assert len(set(first)) == 8
    assert draws("again", 0) == first and set(draws("other", 1)).isdisjoint(first)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_epoch(tmp_path: Path, bad: float) -> None:
    steps = 0

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal steps
        steps += 1
        return cross_entropy(model, batch) * (bad if steps == 8 else 1.0)  # the last of epoch 2

    with pytest.raises(UserError, match=r"run.*epoch 2.*optimizer\.lr") as caught:
        fit_in(tmp_path / "run", tiny_model(), recipe(epochs=3), loss_of=loss_of)
    assert "\n" not in str(caught.value) and str(tmp_path / "run") in str(caught.value)
    saved = Run(tmp_path / "run").load_checkpoint()
    assert saved is not None and len(saved["rows"]) == 1
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    _, run = fit_in(tmp_path / "run", tiny_model(), recipe(epochs=3))
    assert run.metrics["epoch"].tolist() == [1, 2, 3]


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    fit_in(tmp_path / "run", tiny_model(), recipe())
    wider = nn.Sequential(TinyBackbone(7), nn.Linear(7, K))
    with pytest.raises(UserError, match=r"checkpoint.*another model") as caught:
        fit_in(tmp_path / "run", wider, recipe())
    assert "\n" not in str(caught.value)


# Progressive resizing


def test_images_grow_to_their_size_and_keep_it() -> None:
    asked = TrainingSettings(epochs=10, initial_scale=0.5)
    sizes = [progressive_size(32, asked, done) for done in np.linspace(0, 10, 101)]
    assert sizes[0] == 16 and sizes == sorted(sizes) and set(sizes) == {16, 20, 24, 28, 32}
    assert set(sizes[80:]) == {32}
    assert {progressive_size(30, TrainingSettings(epochs=10), done) for done in (0.0, 5.0)} == {30}


def test_a_training_that_grows_sees_each_size_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    sizes: list[int] = []

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        sizes.append(batch.images.shape[-1])
        return cross_entropy(model, batch)

    asked = recipe(epochs=4, initial_scale=0.5)
    kept, _ = fit_in(tmp_path / "run", tiny_model(), asked, loss_of=loss_of)
    assert sizes == [4] * 7 + [8] * 9

    class Halted(Exception):
        pass

    def halt() -> None:
        if len(sizes) == 22:
            raise Halted

    with pytest.raises(Halted):
        fit_in(tmp_path / "again", tiny_model(), asked, loss_of=loss_of, progress=AfterEachStep(halt))
    again, _ = fit_in(tmp_path / "again", tiny_model(), asked, loss_of=loss_of)
    assert sizes[16:22] == [4] * 6 and sizes[22:] == sizes[4:16]
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_network_of_one_size_refuses_to_begin_smaller(tmp_path: Path) -> None:
    vit = build_backbone(BackboneSettings("vit_tiny_patch16_224", patch_size=4), 8)
    model = nn.Sequential(vit, nn.Linear(192, K))
    with pytest.raises(UserError, match=r"training\.initial_scale is 0\.5.* 8 pixels.*set it to 1") as caught:
        fit_in(tmp_path / "run", model, recipe(initial_scale=0.5))
    assert "\n" not in str(caught.value)

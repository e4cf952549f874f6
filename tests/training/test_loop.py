from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from emoreg.config.augment import AugmentSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.errors import Diverged, UserError
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run, start_run
from emoreg.runtime.process_group import ProcessGroup
from emoreg.runtime.progress import Advance, Progress
from emoreg.runtime.signals import Stopped
from emoreg.training.checkpoint import EpochProgress, History, restore
from emoreg.training.fabric import make_fabric
from emoreg.training.launch import RunContext
from emoreg.training.loop import fit
from emoreg.training.step import LossOf, Objective, make_state
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


def fit_in(
    folder: Path,
    model: nn.Module,
    asked: TrainRecipe,
    loss_of: LossOf = cross_entropy,
    lr_factors: Mapping[str, float] | None = None,
    **changes: Any,
) -> tuple[nn.Module, Run]:
    run = start_run(folder, asked)
    fabric = changes.pop("fabric", None) or make_fabric(asked.training)
    context = RunContext(fabric, run, asked, lambda rows: None, changes.pop("progress", Progress(quiet=True)))
    given: dict[str, Any] = {"images": image_set(), "score": nothing}
    kept, _ = fit(context, Objective(model, loss_of, lr_factors or {}), **(given | changes))
    return kept, run


class AfterEachStep(Progress):
    """Calls a function after every training step."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(quiet=True)
        self.call = call

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        yield lambda more: self.call() if more else None


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
        if value.is_floating_point():  # ignore the counter of batches
            assert_close(value, expected[name], msg=name)
        assert_close(model.state_dict()[name], states[-1][name], rtol=0, atol=0)
    assert kept is not model and scored == [kept, kept]
    assert not torch.equal(kept.state_dict()["0.norm.running_mean"], model.state_dict()["0.norm.running_mean"])


def test_the_average_is_on_the_models_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of dtype represents the move to a GPU: both happen in place, in `Fabric.setup`."""
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

    def compile_(what: object, mode: str = "default", dynamic: bool | None = None) -> object:
        assert mode == "default"
        compiled.extend([what] if isinstance(what, nn.Module) else [])  # a small function is compiled first
        return what

    monkeypatch.setattr(torch, "compile", compile_)
    fit_in(tmp_path / "plain", tiny_model(), recipe(epochs=1))
    assert compiled == []
    model = tiny_model()
    fit_in(tmp_path / "compiled", model, recipe(epochs=1, compile=True))
    assert len(compiled) == 1 and model in list(compiled[0].modules())
    assert (
        compiled[0](Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))).ndim == 0
    )  # the loss, not the logits


# The loop


def test_the_loop_steps_the_schedule_once_a_batch_and_in_order(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asked = recipe(OptimizerSettings(lr=0.4, schedule="cosine", warmup=0.25), epochs=2)
        _, run = fit_in(tmp_path / "run", tiny_model(), asked)
    assert not [warning for warning in caught if "lr_scheduler" in str(warning.message)]
    assert run.metrics["lr"].tolist() == pytest.approx([0.2 * (1 + math.cos(math.pi * 2 / 6)), 0], abs=1e-7)


def test_it_memorises_one_batch(tmp_path: Path) -> None:
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


def test_each_epoch_has_new_draws_that_depend_on_the_seed(tmp_path: Path) -> None:
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

    with pytest.raises(Diverged, match=r"became (nan|inf) in step 4 of epoch 2, at the images row .* of noise$"):
        fit_in(tmp_path / "run", tiny_model(), recipe(epochs=3), loss_of=loss_of)
    saved = Run(tmp_path / "run").load_checkpoint()
    assert saved is not None and len(saved["rows"]) == 1
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    _, run = fit_in(tmp_path / "run", tiny_model(), recipe(epochs=3))
    assert run.metrics["epoch"].tolist() == [1, 2, 3]


def test_a_training_that_is_stopped_after_it_diverged_keeps_the_last_good_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step says nothing about the weights after it."""
    model, steps = tiny_model(), iter(range(99))

    def ask(*_: bool) -> bool:
        is_last = next(steps) == 6  # the second step of epoch 2, since an epoch of four steps checks five times
        if is_last:
            nn.init.constant_(model.get_parameter("1.weight"), math.nan)
        return is_last

    monkeypatch.setattr(ProcessGroup, "any", ask)
    with pytest.raises(Diverged, match=r"^1\.weight is not finite after step 2 of epoch 2$"):
        fit_in(tmp_path / "run", model, recipe())
    saved = Run(tmp_path / "run").load_checkpoint()
    assert saved is not None and len(saved["rows"]) == 1 and saved["begun"] is None


def test_only_a_step_that_runs_out_of_memory_is_answered_with_a_smaller_batch(tmp_path: Path) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="out of memory on cpu in a training step: set training"):
        fit_in(tmp_path / "step", tiny_model(), recipe(), loss_of=fail)
    with pytest.raises(torch.OutOfMemoryError):
        fit_in(tmp_path / "score", tiny_model(), recipe(), score=fail)


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    fit_in(tmp_path / "run", tiny_model(), recipe())
    wider = nn.Sequential(TinyBackbone(7), nn.Linear(7, K))
    with pytest.raises(UserError, match=r"checkpoint.*another model") as caught:
        fit_in(tmp_path / "run", wider, recipe())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "accumulate"), [("adamw", 2), ("muon", 1)])
def test_a_training_that_was_stopped_ends_with_the_same_bits_whatever_its_optimiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, accumulate: int
) -> None:
    asked = recipe(
        OptimizerSettings(
            name, lr=1e-2, lr_per_batch=32, schedule="one_cycle", layer_decay=0.8, clip_norm=1.0, ema=0.5
        ),
        accumulate=accumulate,
    )

    def model() -> nn.Module:
        torch.manual_seed(0)
        return RegulatedClassifier(build_backbone("resnet8"), build_backbone("resnet8"), K, mode="learned")

    def fit_again(folder: str) -> dict[str, Tensor]:
        kept, _ = fit_in(tmp_path / folder, model(), asked, lr_factors={"encoder.": 0.5})
        return kept.state_dict()

    whole, steps = fit_again("whole"), iter(range(99))
    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "any", lambda *_: next(steps) == 2)
        with pytest.raises(Stopped):
            fit_again("stopped")
    saved = Run(tmp_path / "stopped").load_checkpoint()
    assert saved is not None and saved["begun"]["steps"] == 3
    assert_close(fit_again("stopped"), whole, rtol=0, atol=0)


def test_a_run_stopped_on_a_gpu_resumes_its_draws_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of a GPU's generators have no use there, and no GPU may exist."""
    restored: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: restored.append("cuda"))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda *_: restored.append("mps"))
    torch.manual_seed(7)
    states = {"cpu": torch.get_rng_state(), "cuda": torch.zeros(16, dtype=torch.uint8), "mps": torch.zeros(44)}
    expected = torch.rand(())
    for rank, device in ((0, "cpu"), (1, "cuda"), (0, "mps")):
        stopped = EpochProgress(2, 1.0, torch.zeros(4), [states, states])
        History(interrupted=stopped).begin_epoch(0, 4, torch.device(device), rank)
        assert torch.equal(torch.rand(()), expected) and restored == ([] if device == "cpu" else [device])
        restored.clear()


@pytest.mark.parametrize(("name", "setting", "own"), [("sgd", "fused", None), ("muon", "capturable", False)])
def test_the_choice_of_kernels_is_not_restored_from_a_checkpoint(
    name: Any, setting: str, own: bool | None, tmp_path: Path
) -> None:
    """It depends on the device; earlier versions stored that they had chosen none."""
    asked = recipe(OptimizerSettings(name, lr=0.1), epochs=1)
    fit_in(tmp_path / "run", tiny_model(), asked)
    run = Run(tmp_path / "run")
    saved = run.load_checkpoint()
    assert saved is not None
    for group in saved["optimizer"]["param_groups"]:
        assert group[setting] is own
        group[setting] = True
    run.save_checkpoint(saved)
    state = make_state(make_fabric(asked.training), Objective(tiny_model(), cross_entropy), asked, 8, 4)
    restore(run, state, 4)
    assert all(group[setting] is own for group in state.optimizer.optimizer.param_groups)


def test_a_learning_rate_that_depends_on_the_batch_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress, lines = Progress(quiet=True), list[str]()
    monkeypatch.setattr(progress, "detail", lines.append)
    _, run = fit_in(
        tmp_path / "run", tiny_model(), recipe(dataclasses.replace(PLAIN, lr_per_batch=32)), progress=progress
    )
    assert lines[0] == "run: learning rate 0.025 = 0.1 · 8 / 32 images per step" and len(lines) == 3
    assert run.metrics["lr"].tolist() == [0.025, 0.025]


def test_a_step_may_have_two_thousand_images(tmp_path: Path) -> None:
    asked = recipe(OptimizerSettings(lr=0.1, lr_per_batch=256, warmup=0.0), epochs=1, batch_size=2048)
    _, run = fit_in(tmp_path / "run", tiny_model(), asked, images=image_set(4096))
    saved = run.load_checkpoint()
    assert saved is not None and saved["schedule"]["last_epoch"] == 2 and saved["schedule"]["base_lrs"] == [0.8, 0.8]


# Progressive resizing


def test_progressive_resizing_sees_each_size_and_resumes_where_it_stopped(tmp_path: Path) -> None:
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


def test_a_network_with_a_fixed_size_refuses_smaller_images(tmp_path: Path) -> None:
    vit = build_backbone(BackboneSettings("vit_tiny_patch16_224", patch_size=4), 8)
    model = nn.Sequential(vit, nn.Linear(192, K))
    with pytest.raises(UserError, match=r"training\.initial_scale is 0\.5.* 8 pixels.*set it to 1") as caught:
        fit_in(tmp_path / "run", model, recipe(initial_scale=0.5))
    assert "\n" not in str(caught.value)

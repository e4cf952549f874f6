"""Captured steps on a GPU: CUDA graphs with deterministic kernels, so that bits can be compared.

Run them in a process of their own: cuBLAS asks once how it may compute.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from all_augmentation import EVERYTHING
from captured_states import ADAMW, MUON, SGD, STEPS, batches, require_equal, state_of
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import Mode
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch, training_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.errors import SettingError
from emoreg.runs.run import start_run
from emoreg.runtime.progress import Progress
from emoreg.training.captured_step import WARM_UP, CapturedStep, make_step
from emoreg.training.fabric import make_fabric
from emoreg.training.launch import RunContext
from emoreg.training.loop import fit
from emoreg.training.step import Objective, TrainState, train_step
from stopped_runs import stopped
from tiny_backbone import TinyBackbone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

FLOAT = TrainingSettings(device="cuda", precision="32-true", cuda_graphs=True, deterministic=True)
BF16 = dataclasses.replace(FLOAT, precision="bf16-mixed")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


def losses(state: TrainState, step: Callable[..., Tensor], is_replayed: bool, mixed: bool) -> list[float]:
    """Results of a training with two image sizes, an observed step, an evaluation, and another seed half-way."""
    small, large = batches(WARM_UP + 5, 8, mixed, "cuda"), batches(WARM_UP + 1, 12, mixed, "cuda")
    found = []
    for number, batch in enumerate([*small[:-3], *large, *small[-3:]]):
        if number % (STEPS // 2) == 0:
            torch.manual_seed(number)  # of dropout and a random λ, as at the beginning of an epoch
            with torch.inference_mode():
                state.kept.eval()(batch.images)
            state.loss_module.train()
        found.append(step(batch, (lambda: None) if number == STEPS - 2 or not is_replayed else None))
    return [loss.item() for loss in found]


@pytest.mark.parametrize(
    ("optimizer", "training", "mode", "mixed"),
    [
        (SGD, FLOAT, "learned", False),
        (SGD, BF16, "random", False),
        (ADAMW, BF16, "fixed", True),
        (ADAMW, dataclasses.replace(FLOAT, accumulate=2), "none", True),
        (MUON, FLOAT, "learned", False),
        (MUON, BF16, "random", True),
    ],
)
def test_replayed_steps_have_the_bits_of_steps_that_are_not(
    optimizer: OptimizerSettings, training: TrainingSettings, mode: Mode, mixed: bool
) -> None:
    captured, uncaptured, plain = (state_of(optimizer, training, mode) for _ in range(3))
    steps = make_step(captured), CapturedStep(uncaptured)
    assert all(isinstance(step, CapturedStep) for step in steps)
    found = losses(captured, steps[0], True, mixed)
    assert found == losses(uncaptured, steps[1], False, mixed)
    assert len(set(found)) == STEPS
    require_equal(captured, uncaptured)
    expected = losses(plain, lambda batch, observe: train_step(plain, batch, observe), False, mixed)
    assert found == pytest.approx(expected, rel=1e-2 if training is BF16 or optimizer is MUON else 1e-4)


def test_what_is_drawn_differs_from_replay_to_replay() -> None:
    state = state_of(dataclasses.replace(SGD, lr=1e-9, clip_norm=None), FLOAT, "random")
    step, (batch,) = CapturedStep(state), batches(1, device="cuda")
    assert len({step(batch).item() for _ in range(WARM_UP + 5)}) == WARM_UP + 5


def test_a_step_that_waits_for_the_gpu_is_refused_and_leaves_it_usable() -> None:
    waiting = state_of(ADAMW, FLOAT, "random", then=lambda loss: loss * float(loss.detach().isfinite()))
    step, given = CapturedStep(waiting), batches(WARM_UP + 4, device="cuda")
    for batch in given[:WARM_UP]:
        step(batch)
    with pytest.raises(SettingError, match="no step can be captured") as refused:
        step(given[WARM_UP])
    print(refused.value)  # contains the first error, not the last
    assert "previous error" not in str(refused.value)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert not torch.cuda.is_current_stream_capturing()
    assert torch.isfinite(train_step(waiting, given[0]))
    state = state_of(ADAMW, FLOAT, "random")
    other = CapturedStep(state)
    assert all(torch.isfinite(other(batch)) for batch in given)


def test_no_batch_and_no_replay_waits_for_the_gpu_or_takes_more_memory() -> None:
    images = image_set(400)
    endless = dataclasses.replace(SGD, schedule="constant", warmup=0.0)
    state = state_of(endless, dataclasses.replace(FLOAT, deterministic=False))
    step = CapturedStep(state)
    given = training_batches(images, 8, EVERYTHING, 0, 0)
    for _ in range(12):  # all kinds of changes have occurred; pinned memory is reserved
        step(next(given))
    before, peak = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.set_sync_debug_mode("error")
    loss = step(next(given))
    for batch in given:
        loss = step(batch)
    torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)
    del batch, loss
    assert torch.cuda.memory_allocated() <= before + 2**20 and torch.cuda.memory_reserved() <= peak + 2**25


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW, MUON])
def test_a_captured_training_that_was_stopped_ends_with_the_same_bits(
    optimizer: OptimizerSettings, compiles: bool, tmp_path: Path
) -> None:
    """With all augmentation, growing images, and a weight average."""
    scale = 1.0 if compiles else 0.5  # compiled code for a size depends on earlier sizes
    training = dataclasses.replace(FLOAT, epochs=3, batch_size=8, initial_scale=scale, compile=compiles, trackers=())
    asked = TrainRecipe(augment=EVERYTHING, optimizer=dataclasses.replace(optimizer, ema=0.9), training=training)

    def fit_in(name: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(TinyBackbone(), nn.Linear(6, 3))
        context = RunContext(
            make_fabric(training), start_run(tmp_path / name, asked), asked, lambda rows: None, Progress(quiet=True)
        )
        kept, _ = fit(context, Objective(model, cross_entropy), image_set(128), lambda model: {})
        return kept.state_dict()

    whole = fit_in("whole")
    for at in (9, 33):
        with stopped(at=at):
            fit_in("stopped")
    again = fit_in("stopped")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def image_set(count: int, size: int = 16) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % 3
    held = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return ImageSet(Table("noise", pixels, labels), size, held, torch.from_numpy(labels)).to(torch.device("cuda"))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.images), batch.targets(3))

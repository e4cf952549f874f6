from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings
from emoreg.data.images.batches import Batch
from emoreg.errors import SettingError
from emoreg.study import calibrate
from emoreg.study.calibrate import CPU_BATCH, seconds_per_image
from emoreg.study.kinds_of_run import kind_of
from emoreg.training.step import TrainState, train_step


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainState, Batch]]:
    """The steps that are taken; the timing is cut to a few."""
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    steps: list[tuple[TrainState, Batch]] = []

    def step(state: TrainState, batch: Batch, observe: Callable[[], None] | None) -> torch.Tensor:
        steps.append((state, batch))
        return train_step(state, batch, observe)

    monkeypatch.setattr(calibrate, "make_step", lambda state: partial(step, state))
    return steps


def test_the_timed_step_is_the_one_that_trains(stage2: TrainRecipe, steps: list[tuple[TrainState, Batch]]) -> None:
    """Augmented batches of every size, with clipping and averaging, for one or two networks."""
    training = dataclasses.replace(stage2.training, initial_scale=0.5, epochs=1)
    optimizer = dataclasses.replace(stage2.optimizer, clip_norm=1.0, ema=0.9)
    regulation = RegulationSettings(mode="learned")
    recipe = dataclasses.replace(stage2, training=training, optimizer=optimizer, regulation=regulation)
    assert seconds_per_image(kind_of(recipe)) > 0
    assert {batch.images.shape[-1] for _, batch in steps} == {4, 8}
    assert {len(batch.images) for _, batch in steps} == {training.batch_size}
    state = steps[0][0]
    assert all(other is state for other, _ in steps)
    assert state.recipe.optimizer.clip_norm == 1.0 and state.average is not None
    parameters = state.objective.model.parameters()
    assert all(parameter.grad is not None for parameter in parameters if parameter.requires_grad)


def test_a_rehearsal_is_timed_too(stage2: TrainRecipe, steps: list[tuple[TrainState, Batch]]) -> None:
    encoder, regulation = EncoderSettings(rehearsal=0.5), RegulationSettings(mode="learned")
    seconds_per_image(kind_of(dataclasses.replace(stage2, encoder=encoder, regulation=regulation)))
    model, loss = steps[0][0].objective.model, steps[0][0].objective.loss_of
    assert isinstance(loss, nn.Module)
    rehearsed = loss.get_buffer("rehearsal.seen")
    assert rehearsed == sum(len(batch.images) for _, batch in steps) and model.training


def test_large_networks_on_a_cpu_are_timed_with_few_images_and_the_optimiser_counts_once_per_batch(
    stage2: TrainRecipe, steps: list[tuple[TrainState, Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses a clock that only the work advances."""
    monkeypatch.setattr(calibrate, "is_large", lambda kind: True)
    now = [0.0]

    def step(state: TrainState, batch: Batch, observe: Callable[[], None]) -> None:
        now[0] += 0.32  # forward and backward pass of 32 images
        observe()
        now[0] += 0.1  # the optimiser
        steps.append((state, batch))

    monkeypatch.setattr(calibrate, "make_step", lambda state: partial(step, state))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    training = dataclasses.replace(stage2.training, batch_size=100)
    kind = kind_of(dataclasses.replace(stage2, training=training))
    assert seconds_per_image(kind) == pytest.approx(0.01 + 0.1 / 100)
    assert {len(batch.images) for _, batch in steps} == {CPU_BATCH} and len(steps) == 2  # the first one warms up


def test_what_training_refuses_is_not_timed_either(stage2: TrainRecipe) -> None:
    of_one = dataclasses.replace(
        stage2,
        backbone=BackboneSettings("mobilenetv3_small_050"),
        target=dataclasses.replace(stage2.target, image_size=32),
        training=dataclasses.replace(stage2.training, batch_size=1),
    )
    with pytest.raises(SettingError, match="must be at least 2, not 1"):
        seconds_per_image(kind_of(of_one))

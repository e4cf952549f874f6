from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, Pretext, RegulationSettings
from emoreg.data.images.batches import Batch
from emoreg.errors import SettingError
from emoreg.runtime.progress import Progress
from emoreg.study import calibrate
from emoreg.study.calibrate import estimate_seconds
from emoreg.study.definition import Study
from emoreg.study.plan import plan_runs
from emoreg.training.step import TrainState, train_step
from study_arms import BACKBONE, LEARNED


def test_an_estimate_grows_with_epochs_and_every_kind_of_run_is_timed_once(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def per_image(recipe: object) -> tuple[float, float]:
        timed.append(recipe)
        return 0.01 * len(timed), 0.001

    monkeypatch.setattr(calibrate, "_seconds_per_image", per_image)
    cell = tiny_study.grid[0]
    longer = dataclasses.replace(cell.recipe, training=dataclasses.replace(cell.recipe.training, epochs=10))
    study = dataclasses.replace(tiny_study, grid=(cell, dataclasses.replace(cell, target="longer", recipe=longer)))
    planned = plan_runs(study, tmp_path)
    seconds = estimate_seconds(planned, quiet)
    assert set(seconds) == {run.id for run in planned}
    assert len(timed) == 3  # an encoder, a plain and a regulated network
    by_name = {run.name: seconds[run.id] for run in planned}
    short, long = by_name["digits-resnet8-backbone-seed0"], by_name["longer-resnet8-backbone-seed0"]
    an_epoch = 0.01 * 64  # images that are trained on, and a few of validation
    assert (long - short) / 9 == pytest.approx(an_epoch, rel=0.05)
    assert short > an_epoch


def test_a_real_estimate_is_positive_and_leaves_the_threads_as_they_were(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    threads = torch.get_num_threads()
    planned = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE, LEARNED), seeds=1), tmp_path)
    assert all(value > 0 for value in estimate_seconds(planned, quiet, jobs=2).values())
    assert torch.get_num_threads() == threads and not list(tmp_path.iterdir())


def test_what_is_timed_is_the_step_that_trains(stage2: TrainRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmented batches of every size, the loss of the recipe, clipping and average; no more than one network."""
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    batches, states = list[Batch](), list[TrainState]()

    def step(state: TrainState, batch: Batch) -> torch.Tensor:
        batches.append(batch)
        states.append(state)
        return train_step(state, batch)

    monkeypatch.setattr(calibrate, "train_step", step)
    training = dataclasses.replace(stage2.training, initial_scale=0.5, epochs=1)
    optimizer = dataclasses.replace(stage2.optimizer, clip_norm=1.0, ema=0.9)
    regulation = RegulationSettings(mode="learned")
    recipe = dataclasses.replace(stage2, training=training, optimizer=optimizer, regulation=regulation)
    assert all(value > 0 for value in calibrate._seconds_per_image(recipe))
    assert {batch.images.shape[-1] for batch in batches} == {4, 8}
    assert {len(batch.images) for batch in batches} == {training.batch_size}
    state = states[0]
    assert all(other is state for other in states) and state.clip_norm == 1.0 and state.average is not None
    assert all(parameter.grad is not None for parameter in state.model.parameters() if parameter.requires_grad)


def test_what_training_refuses_is_refused_before_it_is_timed(stage2: TrainRecipe) -> None:
    of_one = dataclasses.replace(
        stage2,
        backbone=BackboneSettings("mobilenetv3_small_050"),
        target=dataclasses.replace(stage2.target, image_size=32),
        training=dataclasses.replace(stage2.training, batch_size=1),
    )
    with pytest.raises(SettingError, match="must be at least 2, not 1"):
        calibrate._seconds_per_image(calibrate._kind(of_one))


@pytest.mark.parametrize("pretext", ["affect", "shuffled", "rotation"])
def test_every_pretext_can_be_timed(pretext: Pretext, stage1: PretrainRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    kind = calibrate._kind(dataclasses.replace(stage1, pretext=pretext))
    assert all(value > 0 for value in calibrate._seconds_per_image(kind))

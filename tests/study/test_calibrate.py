from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from emoreg.runtime.progress import Progress
from emoreg.study import calibrate
from emoreg.study.calibrate import estimate_seconds
from emoreg.study.definition import Study
from emoreg.study.plan import plan_runs


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
    planned = plan_runs(dataclasses.replace(tiny_study, arms=("backbone", "learned"), seeds=1), tmp_path)
    assert all(value > 0 for value in estimate_seconds(planned, quiet, jobs=2).values())
    assert torch.get_num_threads() == threads and not list(tmp_path.iterdir())

"""Outcomes of one run of a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.runtime.progress import Progress
from emoreg.study.columns import RunStatus
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import perform


@pytest.mark.parametrize(("lr", "status"), [(0.01, RunStatus.FINISHED), (1e38, RunStatus.DIVERGED)])
def test_a_run_finishes_or_diverges(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress, lr: float, status: RunStatus
) -> None:
    optimizer = OptimizerSettings(lr=lr, momentum=0.0, weight_decay=1e-3, schedule="constant", warmup=0.0)
    recipe = dataclasses.replace(
        stage2,
        optimizer=optimizer,
        target=dataclasses.replace(stage2.target, limit=16, validation=0.0),
        training=dataclasses.replace(stage2.training, epochs=2),
    )
    run = PlannedRun("0", "run", tmp_path / "run", recipe, None, "none", None, None, None, "digits", "resnet8", 0)
    outcome = perform(run, quiet)
    assert (outcome.status, run.run.is_finished) == (status, status is RunStatus.FINISHED)
    assert (outcome.error is None) == run.run.is_finished

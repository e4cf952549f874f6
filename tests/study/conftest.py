"""Tiny studies, trained and made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoreg.config.read_recipe import recipe_yaml
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.study.columns import RunStatus
from emoreg.study.definition import GridPoint, StimuliRecipe, Study
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.results import results_of
from emoreg.study.results_table import write_results
from emoreg.study.run_one import RunOutcome
from study_arms import BACKBONE, LEARNED, SHUFFLED


@pytest.fixture
def tiny_study(stage1: PretrainRecipe, stage2: TrainRecipe) -> Study:
    """Three arms, two seeds, one epoch over few small images."""
    training = dataclasses.replace(stage1.training, epochs=1)
    stimuli = dataclasses.replace(stage1.stimuli, count=20, image_size=8)
    target = dataclasses.replace(stage2.target, image_size=8)
    one = dataclasses.replace(stage1, stimuli=stimuli, training=training)
    two = dataclasses.replace(stage2, target=target, training=training)
    cell = GridPoint("digits", "resnet8", two, (StimuliRecipe("procedural", one),))
    return Study("tiny", (cell,), (BACKBONE, LEARNED, SHUFFLED), seeds=2)


@pytest.fixture
def finish() -> Callable[..., None]:
    """Return a function that makes a planned run look trained."""

    def finished(planned: PlannedRun, accuracy: float = 0.5) -> None:
        planned.folder.mkdir(parents=True)
        (planned.folder / "recipe.yaml").write_text(recipe_yaml(planned.recipe), encoding="utf-8")
        (planned.folder / "metrics.csv").write_text("epoch,train_loss,val_accuracy\n1,2.0,0.1\n2,1.0,0.2\n")
        final: dict[str, Any] = {
            "validation": {"ccc": 0.1},
            "test": None,
            "images": 18,
            "seconds": 1.0,
            "parameters": 3,
        }
        if planned.mode is not None:
            reliability = {"confidence": [None, 0.5], "accuracy": [None, 0.4], "count": [0, 9]}
            scores: dict[str, Any] = {
                "accuracy": accuracy,
                "loss": 1.0,
                "per_class": [0.5, None],
                "reliability": reliability,
            }
            final |= {
                "test": {**scores, "images": 9, "correct": "qgA=", "checksum": "0a" * 16},
                "validation": scores,
                "images": {"train": 18, "validation": 2, "test": 9},
            }
            final |= {"lambda": None if planned.mode == "none" else [0.25, 0.75], "classes": ["a", "b"]}
        (planned.folder / "final.json").write_text(json.dumps(final))

    return finished


@pytest.fixture
def written(tiny_study: Study, tmp_path: Path, finish: Callable[..., None]) -> Path:
    """The results of a study, with a finished run of each stage and a failed one."""
    planned = plan_runs(tiny_study, tmp_path / "runs")
    for run in planned[:6]:
        finish(run)
    path = tmp_path / "results.parquet"
    failure = RunOutcome(planned[7], RunStatus.FAILED, "the disk is full")
    write_results(path, results_of(tiny_study, planned, {planned[7].id: failure}))
    return path

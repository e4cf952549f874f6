"""Stage 2 with the head of an earlier emotional network, and uses of its run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import RELATIVES, RegulationSettings, Relative
from emoreg.inference.export.hub import RegulatedModel
from emoreg.inference.load import load_run
from emoreg.inference.predict import predict
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from stopped_runs import stopped
from trained_runs import CLASSIFIER


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[Relative, Run]:
    torch.set_num_threads(1)
    root, quiet = tmp_path_factory.mktemp("relatives"), Progress(quiet=True)
    return {mode: train(of(mode), root / mode, progress=quiet) for mode in RELATIVES}


def of(mode: Relative) -> TrainRecipe:
    return dataclasses.replace(CLASSIFIER, regulation=RegulationSettings(mode=mode))


@pytest.mark.parametrize("mode", RELATIVES)
def test_a_run_says_what_it_is_and_its_head_has_learned(trained: dict[Relative, Run], mode: Relative) -> None:
    run = trained[mode]
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe) and recipe.regulation.mode == mode
    weights, _ = run.weights()
    learned = {"embp": "head.emotional", "bel": "head.w", "liaenn": "head.v"}[mode]
    assert weights[learned].abs().sum() > 0
    if mode != "bel":
        assert weights["head.mood.anxiety"] > 0 and not weights["head.mood.sensed"].any()
    assert run.final["lambda"] is None and run.final["train"] is None


@pytest.mark.parametrize("mode", RELATIVES)
def test_a_loaded_run_gives_the_same_outputs(
    trained: dict[Relative, Run], mode: Relative, photos: Path, tmp_path: Path, quiet: Progress
) -> None:
    loaded = load_run(trained[mode].folder)
    answers = list(predict(loaded, photos, device="cpu"))
    assert len(answers) == 5
    model = RegulatedModel.of(loaded)
    model.save_pretrained(tmp_path / "hub")
    again = RegulatedModel.from_pretrained(str(tmp_path / "hub"))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(images), loaded.model(images))


def test_a_run_is_scored_again_as_it_was_at_its_end(trained: dict[Relative, Run], quiet: Progress) -> None:
    run = trained["liaenn"]
    assert evaluate(run.folder, progress=quiet)["accuracy"] == run.final["test"]["accuracy"]


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, quiet: Progress) -> None:
    recipe = dataclasses.replace(of("liaenn"), training=dataclasses.replace(CLASSIFIER.training, epochs=2))
    whole = train(recipe, tmp_path / "whole", progress=quiet)
    with stopped(at=3):  # in the second epoch
        train(recipe, tmp_path / "stopped", progress=quiet)
    again = train(recipe, tmp_path / "stopped", progress=quiet)
    for name, value in whole.weights()[0].items():
        assert torch.equal(value, again.weights()[0][name]), name

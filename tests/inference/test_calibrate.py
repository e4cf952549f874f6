from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import TrainRecipe
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError
from emoreg.inference import calibrate as module
from emoreg.inference.calibrate import calibrate
from emoreg.inference.predict import predict
from emoreg.inference.temperature import read_calibration
from emoreg.runs.delete import check_deletable
from emoreg.runs.inputs import weights_checksum
from emoreg.runs.run import CALIBRATION, SEEN, WEIGHTS, Run
from emoreg.runtime.lock import holder
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import train
from emoreg.stages.target_images import parts_of
from emoreg.suites.score import score_suites
from emoreg.suites.subject import Outputs
from refusing import refusal
from trained_runs import CLASSIFIER


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A finished run with two branches, on digits of 8 pixels."""
    return Path(shutil.copytree(runs / "learned", tmp_path / "learned"))


def nll(run: Path, table: Table, temperature: float | str | None) -> float:
    """The mean cross-entropy of the predictions for images."""
    assert isinstance(table.images, np.ndarray)
    predictions = predict(run, list(table.images), temperature=temperature, device="cpu")
    losses = [-np.log(p.regulated.probabilities[label]) for p, label in zip(predictions, table.labels, strict=True)]
    return float(np.mean(losses))


def test_predictions_at_the_temperature_have_the_nll_that_the_record_and_the_suite_state(
    run: Path, quiet: Progress
) -> None:
    found = calibrate(run, device="cpu", progress=quiet)
    recipe = Run(run).recipe
    assert isinstance(recipe, TrainRecipe)
    _, validation, test = parts_of(read_target(recipe.target), recipe)
    assert validation is not None and test is not None
    assert (found.fitted_on, found.images) == ("validation images", len(validation))
    assert found.nll == pytest.approx(nll(run, validation, None), abs=1e-5)
    assert found.nll_scaled == pytest.approx(nll(run, validation, "calibrated"), abs=1e-5)
    assert found.nll_scaled < found.nll

    (suite,) = score_suites(run, ["calibration"], "cpu", progress=quiet)
    assert found.temperature == suite.figures["temperature"]
    assert suite.figures["nll"] == pytest.approx(nll(run, test, None), abs=1e-5)
    assert suite.figures["nll_scaled"] == pytest.approx(nll(run, test, "calibrated"), abs=1e-5)


def test_the_record_has_weights_images_and_versions_and_belongs_to_the_run(run: Path, quiet: Progress) -> None:
    found = calibrate(run, device="cpu", progress=quiet)
    written = json.loads((run / CALIBRATION).read_text())
    assert written.items() >= dataclasses.asdict(found).items()
    assert written["weights"] == weights_checksum(run / WEIGHTS)
    assert {"torch", "scipy", "emoreg"} <= written["environment"]["packages"].keys()
    assert written["environment"]["device"] == "cpu" and written["environment"]["precision"] == "32-true"
    assert calibrate(run, device="cpu", progress=quiet) == found
    assert check_deletable([run]) == [Run(run)]


def test_without_validation_images_other_labelled_images_are_asked_for(
    tmp_path: Path, quiet: Progress, write_image: Callable[..., Path]
) -> None:
    recipe = dataclasses.replace(CLASSIFIER, target=dataclasses.replace(CLASSIFIER.target, validation=0.0))
    run = train(recipe, tmp_path / "run", progress=quiet)
    message = refusal(lambda: calibrate(run, device="cpu", progress=quiet))
    assert "has no validation images" in message and "(--data)" in message and "target.validation above 0" in message
    for name in run.final["classes"]:
        for number in range(2):
            write_image(tmp_path / "mine" / name / f"{number}.png")
    found = calibrate(run, tmp_path / "mine", "cpu", progress=quiet)
    assert (found.fitted_on, found.images) == ("images of mine", 20)


def test_an_exploration_is_calibrated_on_all_of_its_validation_images(tmp_path: Path, quiet: Progress) -> None:
    target = dataclasses.replace(CLASSIFIER.target, validation=0.5, test=False)
    run = train(dataclasses.replace(CLASSIFIER, target=target), tmp_path / "run", progress=quiet)
    found = calibrate(run, device="cpu", progress=quiet)
    assert found.images == run.final["images"]["validation"]
    assert found.nll == pytest.approx(run.final["validation"]["loss"], abs=1e-5)


def test_images_that_the_run_was_trained_or_tested_on_are_refused(run: Path, tmp_path: Path, quiet: Progress) -> None:
    assert "digits holds the test images of" in refusal(lambda: calibrate(run, "digits", "cpu", progress=quiet))
    recipe = Run(run).recipe
    assert isinstance(recipe, TrainRecipe)
    trained, _, _ = parts_of(read_target(recipe.target), recipe)
    for row, name in enumerate(Run(run).final["classes"]):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.fromarray(np.asarray(trained.images[row])).save(tmp_path / "mine" / name / "0.png")
    message = refusal(lambda: calibrate(run, tmp_path / "mine", "cpu", progress=quiet))
    assert "10 of the 10 images of mine are among those that" in message
    assert not (run / CALIBRATION).exists()


def test_a_run_of_given_images_is_calibrated_on_their_validation_images(tmp_path: Path, quiet: Progress) -> None:
    draw, labels = np.random.default_rng(0), np.arange(48) % 2
    table = Table("mine", draw.integers(0, 256, (48, 8, 8, 3), np.uint8), labels)
    data = Target(table.take(np.arange(40)), table.take(np.arange(40, 48)), ("cat", "dog"))
    settings = {"training.epochs": 1, "training.device": "cpu", "target.image_size": 8, "backbone.name": "resnet8"}
    recipe = read_recipe(TrainRecipe, None, settings | {"target.validation": 0.5})
    run = train(recipe, tmp_path / "run", progress=quiet, data=data)
    assert "pass them again in Python (data=)" in refusal(lambda: calibrate(run, device="cpu", progress=quiet))
    relabelled = dataclasses.replace(data, train=Table("mine", data.train.images, 1 - data.train.labels))
    with pytest.raises(SettingError, match=r"data: must be what .*run was trained on"):
        calibrate(run, relabelled, "cpu", progress=quiet)
    assert calibrate(run, data, "cpu", progress=quiet).images == 20
    no_target: Any = table
    assert "data: must be" in refusal(lambda: calibrate(run, no_target, "cpu", progress=quiet))


def test_changed_images_are_refused(image_folder: Path, tmp_path: Path, quiet: Progress) -> None:
    target = dataclasses.replace(CLASSIFIER.target, name="folder", root=str(image_folder), validation=0.5, limit=None)
    run = train(dataclasses.replace(CLASSIFIER, target=target), tmp_path / "run", progress=quiet)
    (image_folder / "train" / "red" / "0000.png").rename(image_folder / "train" / "red" / "renamed.png")
    message = refusal(lambda: calibrate(run, device="cpu", progress=quiet))
    assert "its images have changed since it was trained" in message and "restore the original ones" in message


def test_the_run_is_locked_from_reading_its_weights_to_recording_their_checksum(
    run: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: Any) -> Any:
        assert holder(run) is not None
        return load_classifier(*given)

    monkeypatch.setattr(module, "load_classifier", load)
    calibrate(run, device="cpu", progress=quiet)
    assert holder(run) is None


def test_a_run_without_a_record_of_its_training_images_is_calibrated_with_a_remark(
    run: Path, tmp_path: Path, write_image: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / SEEN).unlink()
    for name in Run(run).final["classes"]:
        write_image(tmp_path / "mine" / name / "0.png")
    calibrate(run, tmp_path / "mine", "cpu")
    assert "no record of its training images" in capsys.readouterr().err


def test_images_with_an_unprintable_name_give_a_record_that_can_be_read(
    run: Path, tmp_path: Path, quiet: Progress, write_image: Callable[..., Path]
) -> None:
    for name in Run(run).final["classes"]:
        write_image(tmp_path / "a\x1b[2Jb" / name / "0.png")
    found = calibrate(run, tmp_path / "a\x1b[2Jb", "cpu", progress=quiet)
    assert found.fitted_on == r"images of a\x1b[2Jb"
    assert read_calibration(Run(run)) == found


def test_predictions_no_better_than_chance_give_the_highest_temperature_and_a_warning(
    run: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Outputs(torch.eye(10)[:6], torch.zeros(6), torch.arange(1, 7))
    monkeypatch.setattr(module, "outputs_of", lambda *_: wrong)
    assert calibrate(run, device="cpu", progress=quiet).temperature == pytest.approx(100, rel=1e-3)
    assert "no better than chance; are the labels right?" in capsys.readouterr().err


def test_no_temperature_is_fitted_to_images_that_are_all_classified_correctly(
    run: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.arange(6)
    monkeypatch.setattr(module, "outputs_of", lambda *_: Outputs(torch.eye(10)[:6], torch.zeros(6), labels))
    assert "correctly, so that the NLL only falls" in refusal(lambda: calibrate(run, device="cpu", progress=quiet))
    assert not (run / CALIBRATION).exists()


def test_what_is_no_finished_classifier_is_refused(runs: Path, tmp_path: Path, quiet: Progress) -> None:
    assert "stage 1; a temperature" in refusal(lambda: calibrate(runs / "experience", progress=quiet))
    assert "not a run folder" in refusal(lambda: calibrate(tmp_path / "nowhere", progress=quiet))

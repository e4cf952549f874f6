from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import TrainRecipe
from emoreg.data.images.table import Table
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError, UserError
from emoreg.runs.delete import check_deletable
from emoreg.runs.run import FINAL, WEIGHTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import train
from emoreg.suites import score as module
from emoreg.suites.options import parse_suites
from emoreg.suites.results import SuiteResult, file_of, read_result, write_result
from emoreg.suites.score import require_scorable, score_suites
from emoreg.suites.subject import open_subject

(CALIBRATION,) = parse_suites(["calibration"])
DAMAGES: tuple[Callable[[str], str], ...] = (
    lambda text: text[:40],
    lambda text: text.replace('"seed": 0', '"seed": 7'),
    lambda text: text.replace('"figures"', '"figues"'),
    lambda text: json.dumps(json.loads(text) | {"figures": {"ece": "low"}}),
    lambda text: json.dumps(json.loads(text) | {"figures": {}}),
    lambda text: json.dumps(json.loads(text) | {"contents": {"textures": 1}}),
    lambda text: "[" * 100_000,
)


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A finished run with two branches, on digits of 8 pixels."""
    return Path(shutil.copytree(runs / "learned", tmp_path / "learned"))


def test_a_suite_is_scored_once_and_kept_with_its_provenance(run: Path, quiet: Progress) -> None:
    (found,) = score_suites(run, ["calibration"], "cpu", progress=quiet)
    written = json.loads(found.file.read_text())
    assert found.file == run / "suites" / f"calibration-{CALIBRATION.id}.json"
    assert written["options"] == {"seed": 0} and written["figures"] == found.figures
    assert written["environment"]["packages"]["torch"] and written["environment"]["device"] == "cpu"
    assert written["checksums"]["test images"] == Run(run).final["test"]["checksum"]
    at = found.file.stat().st_mtime_ns
    assert score_suites(run, ["calibration"], "cpu", progress=quiet) == (found,)
    assert found.file.stat().st_mtime_ns == at
    score_suites(run, [{"calibration": {"seed": 1}}], "cpu", progress=quiet)
    assert len(list((run / "suites").iterdir())) == 2  # other options give another result
    assert check_deletable([run]) == [Run(run)]


def test_the_temperature_is_fitted_on_validation_images_if_the_run_has_any(run: Path, quiet: Progress) -> None:
    (found,) = score_suites(run, ["calibration"], "cpu", progress=quiet)
    assert found.images.endswith("validation images") and "test images; temperature" in found.images
    (run / WEIGHTS).unlink()
    assert read_result(Run(run), CALIBRATION) == found  # reports need no weights


def test_a_run_of_given_images_is_scored_only_on_these(tmp_path: Path, quiet: Progress) -> None:
    draw, labels = np.random.default_rng(0), np.arange(48) % 2
    table = Table("mine", draw.integers(0, 256, (48, 8, 8, 3), np.uint8), labels)
    data = Target(table.take(np.arange(24)), table.take(np.arange(24, 48)), ("cat", "dog"))
    settings = {"training.epochs": 1, "training.device": "cpu", "target.image_size": 8, "backbone.name": "resnet8"}
    run = train(read_recipe(TrainRecipe, None, settings), tmp_path / "run", progress=quiet, data=data)
    relabelled = dataclasses.replace(data, test=Table("mine", data.test.images, 1 - data.test.labels))
    others = (relabelled, dataclasses.replace(data, classes=("dog", "cat")))

    def refuse_others() -> None:
        for other in others:
            with pytest.raises(SettingError, match=r"data: must be what .*run was trained on.*: give the same"):
                score_suites(run, ["calibration"], "cpu", data=other, progress=quiet)

    refuse_others()
    with pytest.raises(UserError, match=r"run was trained on images .* in Python .*: pass them again .*\(data=\)"):
        score_suites(run, ["calibration"], "cpu", progress=quiet)
    (found,) = score_suites(run, ["calibration"], "cpu", data=data, progress=quiet)
    refuse_others()
    assert score_suites(run, ["calibration"], "cpu", data=data, progress=quiet) == (found,)
    assert score_suites(run, ["calibration"], "cpu", progress=quiet) == (found,)


def test_a_model_that_is_given_is_not_changed(run: Path, quiet: Progress) -> None:
    model, _ = load_classifier(Run(run))
    model.train()
    recipe = require_scorable(Run(run))
    subject = open_subject(Run(run), recipe, "cpu", model, None, quiet)
    subject.classifier.requires_grad_(False)  # as attacks do
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_a_folder_of_the_same_name_with_other_images_is_scored_anew(
    run: Path, image_folder: Path, tmp_path: Path, quiet: Progress
) -> None:
    other = Path(shutil.copytree(image_folder, tmp_path / "other" / image_folder.name))
    next(other.glob("test/red/*.png")).unlink()

    def scored(root: Path) -> SuiteResult:
        sets = [{"name": "folder", "root": str(root)}]
        (found,) = score_suites(run, [{"out_of_distribution": {"sets": sets}}], "cpu", progress=quiet)
        return found

    one, two = scored(image_folder), scored(other)
    assert one.file == two.file and (one.images, one.contents) != (two.images, two.contents)
    at = two.file.stat().st_mtime_ns
    assert scored(other) == two and two.file.stat().st_mtime_ns == at
    shutil.rmtree(other)
    assert scored(other) == two


def test_figures_of_an_earlier_training_in_the_same_folder_do_not_count(run: Path, quiet: Progress) -> None:
    score_suites(run, ["calibration"], "cpu", progress=quiet)
    final = json.loads((run / FINAL).read_text())
    (run / FINAL).write_text(json.dumps(final | {"seconds": 1.0}))
    assert read_result(Run(run), CALIBRATION) is None


def test_a_result_is_not_written_for_a_run_whose_metrics_cannot_be_read(run: Path) -> None:
    (run / FINAL).unlink()
    with pytest.raises(UserError, match=rf"{FINAL} cannot be read: "):
        write_result(Run(run), CALIBRATION, {"figures": {"ece": 0.1}, "images": "12 images"})
    assert not file_of(Run(run), CALIBRATION).exists()


def test_a_damaged_result_is_refused_with_what_to_do(run: Path, quiet: Progress) -> None:
    (found,) = score_suites(run, ["calibration"], "cpu", progress=quiet)
    good = found.file.read_text()
    for damage in DAMAGES:
        found.file.write_text(damage(good))
        with pytest.raises(
            UserError, match=r"calibration-\w+\.json is damaged .*; delete it, and score the suite again"
        ):
            score_suites(run, ["calibration"], "cpu", progress=quiet)


def test_what_cannot_be_scored_is_refused_by_name(
    run: Path, runs: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="stage 1"):
        score_suites(runs / "experience", ["calibration"], progress=quiet)
    with pytest.raises(UserError, match="not a run folder"):
        score_suites(run / "nowhere", ["calibration"], progress=quiet)
    with pytest.raises(SettingError, match="did you mean 'calibration'"):
        score_suites(run, ["calibrations"], progress=quiet)
    monkeypatch.setattr(module, "is_installed", lambda package: True)
    with pytest.raises(UserError, match="at least 32 pixels a side, not 8"):
        score_suites(run, ["corruptions"], progress=quiet)
    monkeypatch.setattr(module, "is_installed", lambda package: False)
    with pytest.raises(UserError, match=r"adversarial needs adversarial-robustness-toolbox: .* 'emoreg\[suites\]'"):
        score_suites(run, ["adversarial"], progress=quiet)
    (run / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        score_suites(run, ["calibration"], progress=quiet)


def test_changed_images_are_refused(run: Path, quiet: Progress) -> None:
    final = json.loads((run / FINAL).read_text())
    final["test"]["checksum"] = "0" * 32
    (run / FINAL).write_text(json.dumps(final))
    with pytest.raises(UserError, match="test images are not those that the run was scored on"):
        score_suites(run, ["calibration"], "cpu", progress=quiet)
    assert not file_of(Run(run), CALIBRATION).exists()


def test_a_set_with_other_training_images_is_refused_by_the_suite_that_uses_validation_images(
    image_folder: Path, tmp_path: Path, quiet: Progress
) -> None:
    """Validation images are drawn from these, and may now be some that the run was trained on."""
    settings = {"target.name": "folder", "target.root": str(image_folder), "target.validation": 0.5}
    settings |= {"target.image_size": 8, "backbone.name": "resnet8", "training.epochs": 1, "training.device": "cpu"}
    run = train(read_recipe(TrainRecipe, None, settings), tmp_path / "run", progress=quiet)
    (image_folder / "train" / "red" / "0000.png").rename(image_folder / "train" / "red" / "renamed.png")
    with pytest.raises(UserError, match=r"have changed since it was trained .*, so its validation images are not"):
        score_suites(run, ["calibration"], "cpu", progress=quiet)
    other = {"transfer": {"sets": [{"name": "digits"}], "images": 20}}  # uses no validation images
    assert score_suites(run, [other], "cpu", progress=quiet)

"""Runs resume after they, their images or their stage-1 weights were moved; changed inputs are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoreg.config.contents import Contents
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, RegulationSettings, StimuliSettings, TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.stimuli import read_stimuli
from emoreg.data.targets.target import Target
from emoreg.runs.inputs import Inputs, from_record, weights_checksum
from emoreg.runs.run import CHECKPOINT, INPUTS, RECIPE, WEIGHTS, Run, start_run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from emoreg.stages.pretrain import pretrain
from refusing import refusal
from stopped_runs import CutOff

ONE, OTHER = "1" * 64, "2" * 64


def stopped(recipe: Recipe, folder: Path) -> Path:
    """Train a run and stop it after its first epoch."""
    start: Any = pretrain if isinstance(recipe, PretrainRecipe) else train
    with pytest.raises(InterruptedError):
        start(recipe, folder, progress=CutOff())
    assert (folder / CHECKPOINT).exists()
    return folder


@pytest.fixture
def recipe_for(stage2: TrainRecipe) -> Callable[[Path | str], TrainRecipe]:
    def made(root: Path | str) -> TrainRecipe:
        target = TargetSettings("folder", str(root), image_size=8)
        return dataclasses.replace(stage2, target=target)

    return made


def test_a_run_resumes_with_its_images_under_another_path(
    image_folder: Path,
    image_zip: Path,
    recipe_for: Callable[[Path | str], TrainRecipe],
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = stopped(recipe_for(image_folder), tmp_path / "run")
    image_folder.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to("moved")
    monkeypatch.chdir(tmp_path)
    roots: tuple[Path | str, ...] = ("moved", tmp_path / "link", image_zip)
    for number, root in enumerate(roots):
        copy = tmp_path / f"renamed{number}"
        shutil.copytree(folder, copy)
        run = train(recipe_for(root), copy, progress=quiet)
        assert len(run.environment) == 2 and len(run.metrics) == 3
        assert train(recipe_for("moved"), copy, progress=quiet).is_finished


def test_another_look_at_a_runs_test_split_is_reported_for_any_path_even_if_quiet(
    image_folder: Path,
    recipe_for: Callable[[Path | str], TrainRecipe],
    tmp_path: Path,
    quiet: Progress,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recipe = recipe_for(image_folder)
    run = train(recipe, tmp_path / "run", progress=quiet)
    image_folder.rename(tmp_path / "moved")
    again = evaluate(run, str(tmp_path / "moved"), progress=quiet)
    assert run.final["test"]["accuracy"] == again["accuracy"] and "another look" in capfd.readouterr().err
    target = dataclasses.replace(recipe.target, root=str(tmp_path / "moved"), test=False)
    other = train(dataclasses.replace(recipe, target=target), tmp_path / "other", progress=quiet)
    (tmp_path / "moved").rename(tmp_path / "again")
    assert "target.test is false" in refusal(lambda: evaluate(other, str(tmp_path / "again")))


def test_a_run_whose_images_have_changed_is_refused_with_what_changed(
    image_folder: Path, recipe_for: Callable[[Path | str], TrainRecipe], tmp_path: Path, quiet: Progress
) -> None:
    recipe = recipe_for(image_folder)
    folder = stopped(recipe, tmp_path / "run")
    size = sum(path.stat().st_size for path in image_folder.rglob("*.png"))
    (image_folder / "train" / "red" / "more.png").write_bytes(b"12345")
    told = refusal(lambda: train(recipe, folder, progress=quiet))
    assert f"target.root: 32 files of {size:,} bytes then, 33 files of {size + 5:,} bytes now in {image_folder}" in told
    (image_folder / "train" / "red" / "more.png").unlink()
    (image_folder / "train" / "red" / "0000.png").rename(image_folder / "train" / "red" / "other.png")
    assert "but other names or labels" in refusal(lambda: train(recipe, folder, progress=quiet))


def test_the_same_relative_path_to_other_images_is_refused(
    image_folder: Path,
    recipe_for: Callable[[Path | str], TrainRecipe],
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in ("here", "there"):
        shutil.copytree(image_folder, tmp_path / place / "images")
    (tmp_path / "there" / "images" / "train" / "red" / "0000.png").unlink()
    monkeypatch.chdir(tmp_path / "here")
    train(recipe_for("images"), tmp_path / "run", progress=quiet)
    monkeypatch.chdir(tmp_path / "there")
    assert "32 files" in refusal(lambda: train(recipe_for("images"), tmp_path / "run", progress=quiet))


@pytest.fixture
def regulated(stage2: TrainRecipe) -> Callable[[Path | str], TrainRecipe]:
    def made(experience: Path | str) -> TrainRecipe:
        mode = RegulationSettings(mode="learned")
        return dataclasses.replace(stage2, regulation=mode, encoder=EncoderSettings(str(experience)))

    return made


def test_a_run_resumes_with_the_same_stage_1_weights_under_another_path_and_with_no_others(
    stage1: PretrainRecipe,
    regulated: Callable[[Path | str], TrainRecipe],
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage1 = dataclasses.replace(stage1, stimuli=dataclasses.replace(stage1.stimuli, image_size=8))
    pretrain(stage1, tmp_path / "experience", progress=quiet)
    pretrain(dataclasses.replace(stage1, seed=5), tmp_path / "other", progress=quiet)
    folder = stopped(regulated(tmp_path / "experience"), tmp_path / "run")
    earlier = tmp_path / "of an earlier emoreg"  # which recorded only the weights
    shutil.copytree(folder, earlier)
    (earlier / INPUTS).unlink()
    (tmp_path / "experience").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    checksum = weights_checksum(tmp_path / "moved" / WEIGHTS)
    assert checksum is not None
    for place in (folder, earlier):
        told = refusal(partial(train, regulated("other"), place, progress=quiet))
        assert f"{tmp_path / 'experience'} (weights {checksum[:8]}) -> other (weights " in told
        assert train(regulated("moved"), place, progress=quiet).is_finished
        assert Run(place).inputs.experience == checksum


def test_a_run_of_an_earlier_emoreg_is_compared_by_its_paths_and_checked_from_then_on(
    image_folder: Path, recipe_for: Callable[[Path | str], TrainRecipe], tmp_path: Path, quiet: Progress
) -> None:
    folder = stopped(recipe_for(image_folder), tmp_path / "run")
    (folder / INPUTS).unlink()
    shutil.copytree(image_folder, tmp_path / "copy")
    told = refusal(lambda: train(recipe_for(tmp_path / "copy"), folder, progress=quiet))
    assert f"target.root: {image_folder} -> {tmp_path / 'copy'}" in told
    stopped_again = start_run(folder, recipe_for(image_folder), Inputs({"target": Contents(ONE, 1, 1)}))
    assert stopped_again.inputs == Inputs({"target": Contents(ONE, 1, 1)})


def test_images_supplied_by_the_caller_are_not_read_from_the_recipes_path(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    own = read_stimuli(stage1.stimuli, 0)
    recipe = dataclasses.replace(stage1, stimuli=StimuliSettings("manifest", "nowhere.csv", image_size=16))
    run = pretrain(
        recipe, tmp_path / "run", (Table("own", own.images, own.labels[0].values), own.labels[0].space), quiet
    )
    assert run.inputs.data["stimuli"].files == len(own.images)


def given(shift: int = 0, classes: tuple[str, ...] = ("cat", "dog"), swapped: bool = False) -> Target:
    """A target in memory, optionally with other pixels, names or labels."""
    images = (np.random.default_rng(0).integers(0, 200, (32, 8, 8, 3)) + shift).astype(np.uint8)
    labels = np.arange(32) % 2
    table = Table("mine", images, 1 - labels if swapped else labels)
    return Target(table.take(np.arange(24)), table.take(np.arange(24, 32)), classes)


OTHERS = [given(shift=1), given(swapped=True), given(classes=("dog", "cat"))]


@pytest.fixture
def recipe_of_given(stage2: TrainRecipe) -> TrainRecipe:
    return dataclasses.replace(stage2, target=TargetSettings(image_size=8))


def test_a_run_of_given_images_resumes_with_the_same_and_refuses_others(
    recipe_of_given: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    with pytest.raises(InterruptedError):
        train(recipe_of_given, tmp_path, progress=CutOff(), data=given())

    def refuses(data: Target) -> str:
        told = refusal(lambda: train(recipe_of_given, tmp_path, progress=quiet, data=data))
        assert "holds a run of other images" in told and "restore what it was started with" in told
        return told

    for other in OTHERS:
        same_size = "32 images of 6,144 bytes then, 32 images of 6,144 bytes now, but other pixels, labels or classes"
        assert f"target, given in Python: {same_size}" in refuses(other)
    run = train(recipe_of_given, tmp_path, progress=quiet, data=given())
    assert len(run.environment) == 2 and run.is_finished
    for other in OTHERS:
        refuses(other)
    fewer = dataclasses.replace(given(), train=given().train.take(np.arange(16)))
    assert "target, given in Python: 32 images of 6,144 bytes then, 24 images of 4,608 bytes now)" in refuses(fewer)
    assert train(recipe_of_given, tmp_path, progress=quiet, data=given()).final == run.final


def test_a_run_of_given_images_that_an_earlier_emoreg_started_resumes(
    recipe_of_given: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    with pytest.raises(InterruptedError):
        train(recipe_of_given, tmp_path, progress=CutOff(), data=given())
    (tmp_path / INPUTS).write_text(json.dumps(Inputs().record()))
    assert train(recipe_of_given, tmp_path, progress=quiet, data=given(shift=1)).is_finished


def test_a_run_of_given_stimuli_refuses_others_and_those_of_its_recipe(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    own = read_stimuli(stage1.stimuli, 0)
    space, values, pixels = own.labels[0].space, own.labels[0].values, np.asarray(own.images)
    run = pretrain(stage1, tmp_path, (Table("own", pixels, values), space), quiet)
    for images, labels in ((255 - pixels, values), (pixels, values[::-1].copy())):
        told = refusal(partial(pretrain, stage1, tmp_path, (Table("own", images, labels), space), quiet))
        assert "stimuli, given in Python" in told and "but other pixels, labels or classes" in told
    assert "the published set now" in refusal(lambda: pretrain(stage1, tmp_path, progress=quiet))
    assert pretrain(stage1, tmp_path, (Table("own", pixels, values), space), quiet).final == run.final


def test_a_run_that_has_saved_nothing_uses_the_current_inputs(tmp_path: Path, stage2: TrainRecipe) -> None:
    start_run(tmp_path, stage2, Inputs({"target": Contents(ONE, 1, 1)}))
    assert start_run(tmp_path, stage2, Inputs({"target": Contents(OTHER, 2, 2)})).inputs.data["target"].files == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [INPUTS, RECIPE]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"data": [], "experience": None},
        {"data": {"target": {"sha256": "x", "files": 1, "bytes": 1}}, "experience": None},
        {"data": {"target": {"sha256": ONE, "files": "1", "bytes": 1}}, "experience": None},
        {"data": {}, "experience": "short"},
        {"data": {}, "learning": "short"},
    ],
)
def test_a_damaged_record_is_refused_with_its_name(record: dict[str, Any], tmp_path: Path, stage2: TrainRecipe) -> None:
    start_run(tmp_path, stage2)
    (tmp_path / CHECKPOINT).write_bytes(b"")
    (tmp_path / INPUTS).write_text(json.dumps(record))
    assert str(tmp_path / INPUTS) in refusal(lambda: start_run(tmp_path, stage2))


def test_a_record_can_be_read_back() -> None:
    inputs = Inputs({"stimuli": Contents(ONE, 3, 4), "also[0]": Contents()}, OTHER)
    assert from_record(json.loads(json.dumps(inputs.record()))) == inputs


def test_a_record_says_that_a_model_was_given_but_not_where_its_weights_came_from() -> None:
    record = json.loads(json.dumps(Inputs(has_model=True, origin="12345678 (somewhere)").record()))
    assert "somewhere" not in str(record) and from_record(record) == Inputs(has_model=True)

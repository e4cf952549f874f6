"""Run folders are found with their settings and scores."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import OWN, BackboneSettings
from emoreg.runs.catalogue import FACTS, catalogue, damage, differing_settings, find_runs, size_of
from emoreg.runs.inputs import Inputs
from emoreg.runs.run import DIVERGED, FINAL, METRICS, RECIPE, Run, start_run
from emoreg.runtime.lock import hold
from emoreg.runtime.safe_io import write_json
from emoreg.study.arms import ArmMode, PlannedArm, recipe_of
from refusing import refusal


def made(folder: Path, recipe: Recipe | None = None, accuracy: float | None = None) -> Run:
    """Create a run folder without training; it is finished if an accuracy is given."""
    run = start_run(folder, recipe or TrainRecipe())
    if accuracy is not None:
        (folder / METRICS).write_text("epoch,train_loss\n1,2.0\n2,1.5\n")
        write_json(folder / FINAL, {"test": {"accuracy": accuracy - 0.1}, "validation": {"accuracy": accuracy}})
    return Run(run.folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made(tmp_path / "one", accuracy=0.75)
    made(tmp_path / "study" / "runs" / "two", dataclasses.replace(TrainRecipe(), seed=1))
    made(tmp_path / "stage1", PretrainRecipe())
    made(tmp_path / "one" / "experience", PretrainRecipe())
    made(tmp_path / ".hidden")
    return tmp_path


def test_runs_are_found_in_order_but_not_inside_runs_or_hidden_folders(folder: Path) -> None:
    names = ["one", "stage1", "study/runs/two"]
    assert [str(run.folder.relative_to(folder)) for run in find_runs([folder, folder / "one"])] == names
    assert "is not a folder" in refusal(lambda: find_runs([folder / "nothing"]))
    (folder / "empty").mkdir()
    assert "none has a recipe.yaml" in refusal(lambda: find_runs([folder / "empty"]))


def test_a_row_has_settings_status_and_scores_of_a_run(folder: Path) -> None:
    one, first, two = catalogue(find_runs([folder])).to_dict("records")
    assert (one["status"], one["epochs"], one["train_loss"]) == ("finished", 2, 1.5)
    assert (one["validation_accuracy"], one["test_accuracy"]) == (0.75, 0.65)
    assert (first["stage"], first["mode"], two["stage"], two["mode"]) == (1, "affect", 2, "none")
    assert (two["status"], two["seed"], two["recipe.seed"]) == ("not started", 1, 1)


@pytest.mark.parametrize("mode", ["none", "fixed", "learned", "ensemble", "transfer", "unregulated"])
def test_a_mode_has_its_name_in_a_study_s_table(tmp_path: Path, mode: ArmMode) -> None:
    arm = PlannedArm(mode, None if mode in ("none", "ensemble") else "affect")
    made(tmp_path / "one", recipe_of(arm, TrainRecipe(), "stage1", 0))
    assert catalogue(find_runs([tmp_path]))["mode"].tolist() == [mode]


@pytest.mark.parametrize(("experience", "mode"), [(None, "ensemble"), ("0" * 64, "unregulated")])
def test_the_mode_of_a_user_supplied_model_depends_on_the_recorded_experience(
    tmp_path: Path, experience: str | None, mode: str
) -> None:
    recipe = recipe_of(PlannedArm("ensemble"), TrainRecipe(), "stage1", 0)
    own = dataclasses.replace(recipe, backbone=BackboneSettings(f"{OWN}Net"))
    start_run(tmp_path / "one", own, Inputs(experience=experience))
    assert catalogue(find_runs([tmp_path]))["mode"].tolist() == [mode]


def test_running_and_damaged_runs_have_their_status(folder: Path) -> None:
    (folder / "stage1" / RECIPE).write_text("stimuli: [")
    with hold(folder / "study" / "runs" / "two"):
        table = catalogue(find_runs([folder]))
    assert table["status"].tolist() == ["finished", "damaged", "running"]
    assert "stage1" in table["error"][1] and set(FACTS) <= set(table)


def test_a_diverged_run_has_its_status_and_reason(folder: Path) -> None:
    run = Run(folder / "study" / "runs" / "two")
    run.end_diverged("the loss became nan")
    with hold(run.folder):
        table = catalogue(find_runs([folder]))
    assert table["status"].tolist() == ["finished", "not started", "diverged"] and damage(table) == []
    assert table["error"][2] == f"{run.folder}: the loss became nan"
    (run.folder / DIVERGED).write_text("{")
    table = catalogue([run])
    assert table["status"].tolist() == ["damaged"] and str(run.folder / DIVERGED) in damage(table)[0]


def test_the_settings_in_which_runs_differ(folder: Path) -> None:
    table = catalogue([Run(folder / "one"), Run(folder / "study" / "runs" / "two")])
    assert differing_settings(table) == ["recipe.seed"]
    assert differing_settings(table.iloc[:1]) == []


def test_a_file_that_is_renamed_during_the_size_computation_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_bytes(b"123")
    monkeypatch.setattr(os, "walk", lambda folder: [(str(folder), [], [".checkpoint.pt.7.part", "there"])])
    assert size_of([tmp_path]) == 3

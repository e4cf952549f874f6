"""Damaged and foreign files of runs. tests/hostile has many more malformed files."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from emoreg.config.read_recipe import recipe_yaml
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import RegulationSettings
from emoreg.runs.readers import FORMAT, refuse_non_finite
from emoreg.runs.run import CHECKPOINT, ENVIRONMENT, FINAL, METRICS, RECIPE, WEIGHTS, Run, start_run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from refusing import refusal


@pytest.fixture
def run(tmp_path: Path, stage2: TrainRecipe) -> Run:
    run = start_run(tmp_path / "run", stage2)
    run.save_checkpoint({"model": {"w": torch.ones(2, 2)}, "rows": [{"epoch": 1}], "seconds": 1.0})
    content = (run.folder / CHECKPOINT).read_bytes()
    run.finish({"w": torch.ones(2, 2)}, {"stage": 2, "classes": ["a", "b"]}, {"test": {"accuracy": 0.5}})
    (run.folder / CHECKPOINT).write_bytes(content)
    return run


def test_a_later_format_is_refused_and_says_to_update(run: Run) -> None:
    state = run.load_checkpoint()
    assert state is not None and state["format"] == FORMAT
    torch.save(state | {"format": FORMAT + 1}, run.folder / CHECKPOINT)
    assert f"{CHECKPOINT} is of format 2, and this emoreg reads 1: update emoreg" in refusal(run.load_checkpoint)
    run.finish({"w": torch.ones(1)}, {"format": FORMAT + 1}, {"test": {}})
    assert f"{WEIGHTS} is of format 2" in refusal(run.weights)


def test_the_error_for_a_setting_of_a_later_emoreg_names_the_version_that_wrote_the_run(run: Run) -> None:
    path = run.folder / RECIPE
    path.write_text(f"{path.read_text()}quantum: true\n")
    assert "quantum: unknown setting" in refusal(lambda: run.recipe) and "wrote this run" not in refusal(
        lambda: run.recipe
    )
    (run.folder / ENVIRONMENT).write_text(json.dumps({"sessions": [{"packages": {"emoreg": "9.9.9"}}]}))
    assert "; emoreg 9.9.9 wrote this run, and this is " in refusal(lambda: run.recipe)


def test_a_compressed_checkpoint_is_refused(run: Run) -> None:
    path, buffer = run.folder / CHECKPOINT, io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    path.write_bytes(buffer.getvalue())
    assert "compressed, which torch.save's files are not" in refusal(run.load_checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_nan_are_refused_and_named(run: Run, value: float) -> None:
    run.finish({"a": torch.ones(2, 2), "b": torch.tensor([[1.0, value], [0, 0]])}, {"classes": ["a"]}, {"test": {}})
    assert f"{WEIGHTS}: b holds NaN or infinity" in refusal(run.weights)


def test_a_mask_may_contain_minus_infinity() -> None:
    refuse_non_finite("x", {"mask": torch.full((3, 3), float("-inf")).triu(1), "count": torch.tensor(3)})
    refuse_non_finite("x", {"empty": torch.empty(0, 2)})


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (4,), (2, 2)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_other_infinities_are_refused_whatever_the_shape(value: float, shape: tuple[int, ...]) -> None:
    assert "rho holds NaN" in refusal(lambda: refuse_non_finite("x", {"rho": torch.full(shape, value)}))


def test_a_classifier_with_a_lambda_of_one_can_be_read(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    loss = dataclasses.replace(stage2.loss, budget="as_given")
    regulation = RegulationSettings(mode="fixed", lam=1.0)
    recipe = dataclasses.replace(stage2, regulation=regulation, loss=loss, edition=1)
    run = train(recipe, tmp_path / "run", progress=quiet)
    assert evaluate(run, progress=quiet)["accuracy"] == run.final["test"]["accuracy"]


@pytest.mark.parametrize(
    ("final", "key"),
    [
        ({"seconds": 1}, "test"),
        ({"test": [1]}, "test"),
        ({"test": {"accuracy": 1.5}}, "test"),
        ({"test": {"per_class": ["a"]}}, "test"),
        ({"test": {"reliability": {"count": [1], "accuracy": [1, 1]}}}, "test"),
        ({"test": {"correct": "!", "images": 8}}, "test"),
        ({"test": {"correct": "AAA=", "images": 8}}, "test"),  # sixteen bits
        ({"test": {"checksum": "0"}}, "test"),
        ({"test": None, "train": {"accuracy_emotional": -1}}, "train"),
        ({"test": {}, "lambda": [2]}, "lambda"),
        ({"test": {}, "classes": "ab"}, "classes"),
        ({"test": {}, "flops": 2**63}, "flops"),
    ],
)
def test_final_metrics_of_a_wrong_type_are_named(run: Run, final: dict[str, Any], key: str) -> None:
    (run.folder / FINAL).write_text(json.dumps(final))
    assert f"{FINAL} is damaged ({key} is not what emoreg writes there)" in refusal(lambda: run.final)


def test_metrics_that_are_not_numbers_are_named(run: Run) -> None:
    (run.folder / METRICS).write_text("epoch,loss\n1,high\n")
    assert f"{METRICS} is damaged ('loss' does not hold numbers)" in refusal(lambda: run.metrics)


def test_metrics_with_rows_longer_than_the_header_are_damaged(run: Run) -> None:
    (run.folder / METRICS).write_text("epoch,loss\n1,0.5,0.25\n")
    assert f"{METRICS} is damaged (its rows are longer than its header)" in refusal(lambda: run.metrics)


def test_a_run_that_was_stopped_in_its_first_epoch_has_no_metrics_yet(run: Run) -> None:
    run.save_checkpoint({"rows": [], "seconds": 0.0})
    assert len(run.metrics) == 0


def test_a_path_that_is_not_unicode_can_be_written_and_read_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["emoreg", "train", "caf\udce9.yaml"]  # a byte of Latin-1, as Python represents it
    monkeypatch.setattr(sys, "argv", command)
    run.record_session({})
    assert run.environment[-1]["command"] == "emoreg train caf\udce9.yaml"


# Resuming from a checkpoint


@pytest.fixture
def stopped(tmp_path: Path, stage2: TrainRecipe, quiet: Progress, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run stopped after one of three epochs."""
    saved: list[bytes] = []
    save = Run.save_checkpoint

    def keep(run: Run, state: dict[str, Any]) -> None:
        save(run, state)
        saved.append((run.folder / CHECKPOINT).read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", keep)
        train(stage2, tmp_path / "whole", progress=quiet)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / RECIPE).write_text(recipe_yaml(stage2))
    (run.folder / CHECKPOINT).write_bytes(saved[0])
    return run


def test_an_intact_checkpoint_is_resumed(stopped: Run, stage2: TrainRecipe, quiet: Progress) -> None:
    assert len(train(stage2, stopped.folder, progress=quiet).metrics) == 3


BEGUN = {"steps": 0, "seconds": 0.0, "losses": torch.zeros(99), "draws": None}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("rows", "x", "'rows' does not hold metrics"),
        ("seconds", None, "'seconds' is not a number"),
        ("begun", {"steps": 1}, "'begun' does not describe an epoch"),
        ("begun", BEGUN, "in an epoch of 99 steps"),
        ("begun", torch.ones(3), "'begun' does not describe an epoch"),
        ("begun", BEGUN | {"draws": torch.ones(3)}, "'begun.draws' does not hold states of random generators"),
        ("schedule", {"last_epoch": "x"}, "schedule.last_epoch has another type"),
        ("optimizer", {"state": {}, "param_groups": []}, "optimizer.param_groups has another type"),
        ("model", {"head.weight": torch.full((10, 64), float("nan"))}, "head.weight holds NaN"),
    ],
)
def test_an_altered_checkpoint_is_refused_before_the_first_step(
    part: str, value: Any, message: str, stopped: Run, stage2: TrainRecipe, quiet: Progress
) -> None:
    state = stopped.load_checkpoint()
    assert state is not None
    torch.save(state | {part: value}, stopped.folder / CHECKPOINT)
    line = refusal(lambda: train(stage2, stopped.folder, progress=quiet))
    assert message in line and str(stopped.folder) in line


def test_a_schedule_cannot_bring_methods_of_its_own(stopped: Run, stage2: TrainRecipe, quiet: Progress) -> None:
    state = stopped.load_checkpoint()
    assert state is not None
    torch.save(state | {"schedule": state["schedule"] | {"step": 3}}, stopped.folder / CHECKPOINT)
    assert train(stage2, stopped.folder, progress=quiet).is_finished  # torch itself would use 3 as the method


def test_a_momentum_of_another_shape_is_refused(stopped: Run, stage2: TrainRecipe, quiet: Progress) -> None:
    state = stopped.load_checkpoint()
    assert state is not None
    state["optimizer"]["state"][0]["momentum_buffer"] = torch.ones(7)
    torch.save(state, stopped.folder / CHECKPOINT)
    assert "momentum_buffer" in refusal(lambda: train(stage2, stopped.folder, progress=quiet))

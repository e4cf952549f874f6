"""Multilabel and regression targets, from training to predictions, export and scoring."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import Task
from emoreg.data.images.table import Table
from emoreg.data.targets.target import Target, scale_note
from emoreg.errors import SettingError, UserError
from emoreg.inference.calibrate import calibrate
from emoreg.inference.export.export import export
from emoreg.inference.export.hub import RegulatedModel
from emoreg.inference.load import load_run
from emoreg.inference.pictures import draw_answers
from emoreg.inference.predict import predict
from emoreg.inference.summary import Summary
from emoreg.inference.writers import row_writer
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from emoreg.suites.score import score_suites
from refusing import refusal
from tiny_backbone import TinyBackbone

RECIPE: dict[str, Any] = {"training.epochs": 2, "training.batch_size": 16, "training.device": "cpu"}
RECIPE |= {"target.image_size": 8, "backbone.name": "resnet8", "regulation.mode": "learned"}
NAMES = {"multilabel": ("bright", "red"), "regression": ("valence", "arousal")}
OUTCOME = {"multilabel": "mean_average_precision", "regression": "ccc"}
TASKS: tuple[Task, ...] = ("multilabel", "regression")


def target(task: Task) -> Target:
    """Images whose labels follow from their brightness and their redness."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 1, 1, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    values = np.stack([pixels.mean(axis=(1, 2, 3)), pixels[:, 0, 0, 0]], axis=1).astype(np.float32) / 127.5 - 1
    labels = (values > 0).astype(np.float32) if task == "multilabel" else values
    table = Table("mine", pixels, labels)
    return Target(table.take(np.arange(32)), table.take(np.arange(32, 48)), NAMES[task], task=task)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Run]:
    recipe = read_recipe(TrainRecipe, None, RECIPE)
    out = tmp_path_factory.mktemp("tasks")
    return {task: train(recipe, out / task, progress=Progress(quiet=True), data=target(task)) for task in TASKS}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Iterator[Task]:
    yield request.param


def test_a_run_records_its_task_and_is_measured_by_it(runs: dict[Task, Run], task: Task) -> None:
    run, outcome = runs[task], OUTCOME[task]
    assert isinstance(run.recipe, TrainRecipe) and run.recipe.target.task == task
    measured = run.final["test"]
    assert {outcome, f"{outcome}_non_emotional", f"{outcome}_emotional", "lambda", "checksum"} <= measured.keys()
    assert not {"accuracy", "ece", "correct", "confusion"} & measured.keys()
    assert f"val_{outcome}" in run.metrics and "val_accuracy" not in run.metrics
    assert run.final["train"].keys() == {outcome, f"{outcome}_non_emotional", f"{outcome}_emotional", "images"}
    if task == "regression":
        assert measured["ccc"] == pytest.approx((measured["ccc_valence"] + measured["ccc_arousal"]) / 2)
    else:
        assert len(measured["per_class"]) == 2


def test_predictions_have_the_values_of_their_task(runs: dict[Task, Run], task: Task, tmp_path: Path) -> None:
    loaded = load_run(runs[task])
    pixels = list(target(task).test.images)[:3]
    predictions = list(predict(loaded, pixels, device="cpu"))
    first = predictions[0]
    assert first.regulated.task == loaded.model.task == task and first.lam is not None
    row = json.loads(json.dumps(first.row(with_all=True)))
    if task == "regression":
        values = [row["values"][name] for name in NAMES[task]]
        assert values == pytest.approx(first.regulated.values.tolist(), abs=1e-6)
        assert first.regulated.summary.startswith("valence ")
    else:
        held = [name for name, value in row["probabilities"].items() if value > 0.5]
        assert sorted(row["labels"]) == sorted(held) and min(row["probabilities"].values()) >= 0
    by_hand = next(predict(loaded, pixels, lam=0.0, device="cpu"))
    np.testing.assert_allclose(by_hand.regulated.values, first.non_emotional.values, atol=1e-6)
    with row_writer(tmp_path / "rows.csv", with_all=True) as write:
        for each in predictions:
            write(each)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
    summary = Summary()
    for each in predictions * 20:
        summary.add(each)
    assert not summary.counts and summary.images == 60 and summary.shown(loaded, "experience").renderables


def test_pictures_show_values_around_zero_and_labels_from_0_to_1(runs: dict[Task, Run], task: Task) -> None:
    (prediction,) = predict(runs[task], list(target(task).test.images)[:1], device="cpu")
    axes = Figure().add_subplot()
    draw_answers(axes, prediction)
    limits, names = axes.get_xlim(), {label.get_text() for label in axes.get_yticklabels()}
    assert names == set(NAMES[task]) and axes.get_xlabel() == ("value" if task == "regression" else "probability")
    assert limits == (0, 1) if task == "multilabel" else limits[0] == -limits[1] <= -1
    assert prediction.regulated.summary in axes.get_title(loc="left") + axes.get_title()
    widths = {round(bar.get_width(), 5) for bar in axes.patches if isinstance(bar, Rectangle)}
    assert {round(float(value), 5) for value in prediction.regulated.values} <= widths


def test_a_run_is_exported_with_its_task(runs: dict[Task, Run], task: Task, tmp_path: Path) -> None:
    export(runs[task], tmp_path / "hub", "hub")
    again = RegulatedModel.from_pretrained(tmp_path / "hub")
    assert again.task == task and again.classes == NAMES[task]
    card = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    outputs = {"multilabel": "Labels", "regression": "Dimensions"}[task]
    assert task in card and "accuracy" not in card.lower() and f"{outputs}, in the order" in card


def test_what_needs_classes_refuses_other_tasks(runs: dict[Task, Run], task: Task, quiet: Progress) -> None:
    from emoreg.inference.explain.explain import explain

    assert "a classifier that predicts one class per image" in refusal(lambda: explain(runs[task], progress=quiet))
    assert "suites score classifiers of one class" in refusal(lambda: score_suites(runs[task], ["calibration"]))
    assert "classifiers that predict one class per image" in refusal(lambda: calibrate(runs[task], progress=quiet))
    pixels = list(target(task).test.images)[:1]
    assert "a temperature needs a classifier" in refusal(lambda: predict(runs[task], pixels, temperature=2))


def test_a_run_cannot_be_scored_on_another_data_set(tmp_path: Path, rated: Path, quiet: Progress) -> None:
    values = RECIPE | {"target.name": "manifest", "target.root": str(rated), "target.labels": "dimensions"}
    run = train(read_recipe(TrainRecipe, None, values | {"training.epochs": 1}), tmp_path / "run", progress=quiet)
    assert evaluate(run, device="cpu", progress=quiet)["ccc"] == pytest.approx(run.final["test"]["ccc"], abs=1e-6)
    assert "scored on its own test split alone" in refusal(lambda: evaluate(run, "digits", progress=quiet))


@pytest.fixture
def rated(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    lines = ["path,valence,arousal"]
    for number in range(20):
        name = write_image(tmp_path / "rated" / f"{number}.png", (10 * number, 80, 80)).name
        lines.append(f"{name},{number / 10 - 1:.1f},0.1")
    (tmp_path / "rated" / "manifest.csv").write_text("\n".join(lines))
    return tmp_path / "rated" / "manifest.csv"


def test_a_classifier_for_another_task_is_refused(tmp_path: Path, quiet: Progress) -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 2)
    recipe = read_recipe(TrainRecipe, None, RECIPE)
    with pytest.raises(SettingError, match="model: is for classification, and the target is for regression"):
        train(recipe, tmp_path / "run", model, quiet, target("regression"))


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (
            np.zeros((48, 2), np.float32),
            "classification",
            r"labels.argmax\(1\), and task='multilabel' learns",
        ),
        (
            np.full((48, 2), 0.5, np.float32),
            "classification",
            r"labels.argmax\(1\), and task='regression' learns",
        ),
        (np.full((48, 2), 0.5, np.float32), "multilabel", "must be 1 if a label applies and 0 otherwise"),
        (np.full((48, 2), np.nan, np.float32), "regression", "must be finite"),
        (np.zeros((48, 3), np.float32), "regression", r"must be float32 \(N, 2\) with 2 names in a"),
        (np.zeros(48, np.int64), "multilabel", r"must be float32 \(N, 2\) with 2 names in a"),
    ],
)
def test_labels_of_another_kind_are_refused(labels: Any, task: Task, message: str, tmp_path: Path) -> None:
    table = Table("mine", np.zeros((48, 8, 8, 3), np.uint8), labels)
    wrong = dataclasses.replace(target("regression"), train=table, task=task)
    with pytest.raises(UserError, match=message):
        train(read_recipe(TrainRecipe, None, RECIPE), tmp_path / "run", data=wrong)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"regulation.mode": "bel"}, "regulation.mode: must not be bel with target.labels dimensions"),
        ({"loss.class_weights": "balanced"}, "loss.class_weights: must be none with target.labels dimensions"),
        ({"loss.label_smoothing": 0.1}, "loss.label_smoothing: must be 0 with target.labels dimensions"),
    ],
)
def test_settings_that_have_no_meaning_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message.replace(".", r"\.")):
        read_recipe(TrainRecipe, None, RECIPE | {"target.name": "oasis", "target.labels": "dimensions"} | more)


def test_values_may_have_names_of_other_columns(tmp_path: Path, quiet: Progress) -> None:
    own = dataclasses.replace(target("regression"), classes=("lambda", "image"))
    run = train(read_recipe(TrainRecipe, None, RECIPE | {"training.epochs": 1}), tmp_path / "run", None, quiet, own)
    row = next(predict(run, list(own.test.images)[:1], device="cpu")).row()
    assert row["image"] == "0" and 0 < row["lambda"] < 1 and set(row["values"]) == {"lambda", "image"}


def test_test_images_with_equal_labels_are_refused_before_training(tmp_path: Path, quiet: Progress) -> None:
    own = target("multilabel")
    alike = dataclasses.replace(own.test, labels=np.zeros_like(own.test.labels))
    message = refusal(
        lambda: train(
            read_recipe(TrainRecipe, None, RECIPE), tmp_path / "run", None, quiet, dataclasses.replace(own, test=alike)
        )
    )
    assert "16 test images all have the same labels: nothing can be measured" in message


def test_values_on_a_large_scale_give_a_note() -> None:
    own = target("regression")
    assert scale_note(own) is None and scale_note(target("multilabel")) is None
    rated = dataclasses.replace(own, train=dataclasses.replace(own.train, labels=own.train.labels * 4 + 5))
    assert "values of up to 8.78, but predictions start near 0: map them to about -1 to 1" in (scale_note(rated) or "")


def test_mixup_works_with_several_labels_and_is_refused_for_regression(tmp_path: Path, quiet: Progress) -> None:
    recipe = read_recipe(TrainRecipe, None, RECIPE | {"training.epochs": 1, "augment.mixup": 0.5})
    run = train(recipe, tmp_path / "run", progress=quiet, data=target("multilabel"))
    assert np.isfinite(run.final["test"]["mean_average_precision"]) and np.isfinite(run.metrics["train_loss"]).all()
    with pytest.raises(SettingError, match=r"augment\.mixup: must be 0"):
        train(recipe, tmp_path / "other", progress=quiet, data=target("regression"))

"""User-supplied networks and images instead of those that the recipe names."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target
from emoreg.data.targets.target import Target
from emoreg.errors import UserError
from emoreg.inference.load import load_run
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages import classify
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from emoreg.stages.pretrain import encoder_architecture, load_encoder, pretrain
from listening import Listening
from tiny_backbone import TinyBackbone

NOTHING: Any = None
NUMBERS: Any = (1, 2)
EPOCH: dict[str, Any] = {"training.epochs": 1, "training.batch_size": 16, "training.device": "cpu"}


@pytest.fixture(scope="module")
def experience(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, TinyBackbone]:
    encoder = TinyBackbone(9)
    recipe = read_recipe(PretrainRecipe, None, EPOCH | {"stimuli.count": 20, "stimuli.image_size": 8})
    return pretrain(
        recipe, tmp_path_factory.mktemp("own") / "run", progress=Progress(quiet=True), encoder=encoder
    ), encoder


def test_a_user_supplied_encoder_is_trained_in_place_and_loaded_into_another(
    experience: tuple[Run, TinyBackbone],
) -> None:
    run, trained = experience
    loaded = load_encoder(run, encoder=TinyBackbone(9))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with pytest.raises(UserError, match="another architecture than encoder, a TinyBackbone"):
        load_encoder(run, encoder=TinyBackbone(5))


def test_no_recipe_describes_a_user_supplied_encoder(experience: tuple[Run, TinyBackbone]) -> None:
    run, _ = experience
    assert isinstance(run.recipe, PretrainRecipe) and run.recipe.backbone.name == "own:TinyBackbone"
    for load in (load_encoder, encoder_architecture):
        with pytest.raises(UserError, match=r"trained a network of your own.*load_encoder\(run, encoder=\.\.\.\)"):
            load(run.folder)


def own_images(labels: np.ndarray[Any, Any] | None = None) -> Target:
    draw = np.random.default_rng(0)
    indices = np.arange(32) % 2 if labels is None else labels
    table = Table("mine", draw.integers(0, 256, (32, 8, 8, 3), np.uint8), indices.astype(np.int64))
    return Target(table.take(np.arange(24)), table.take(np.arange(24, 32)), ("cat", "dog"))


SEEN = own_images()


def test_a_classifier_is_trained_on_user_supplied_images(tmp_path: Path, quiet: Progress) -> None:
    recipe = read_recipe(TrainRecipe, None, EPOCH | {"target.image_size": 8, "backbone.name": "resnet8"})
    run = train(recipe, tmp_path / "run", progress=quiet, data=own_images())
    assert run.final["classes"] == ["cat", "dog"] and run.final["test"]["images"] == 8
    recorded = run.recipe
    assert isinstance(recorded, TrainRecipe) and recorded.target.name == "given:mine"
    assert load_run(run).classes == ("cat", "dog")
    assert train(recipe, tmp_path / "run", progress=quiet, data=own_images()).final == run.final
    with pytest.raises(UserError, match=r"target\.name: 'given:mine' are images that were given in Python"):
        evaluate(run, progress=quiet)


def test_user_supplied_images_that_are_in_two_parts_are_counted(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    pixels, labels = draw.integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    every = Table("mine", pixels, labels)
    train_part, test = every.take(np.arange(24)), every.take(np.r_[:19, 24:29])
    data = Target(train_part, test, ("cat", "dog"), every.take(np.r_[24:29, 30:36]))
    recipe = read_recipe(TrainRecipe, None, EPOCH | {"target.image_size": 8, "backbone.name": "resnet8"})
    progress = Listening()
    train(recipe, tmp_path / "run", progress=progress, data=data)
    told = [line for line in progress.lines if "are also among" in line]
    assert [line.split(" images:")[0] for line in told] == [
        "mine: 19 of its 24 test images are also among the training",
        "mine: 5 of its 11 validation images are also among the test",
    ]
    progress = Listening()
    train(recipe, tmp_path / "other", progress=progress, data=own_images())
    assert not [line for line in progress.lines if "are also among" in line or "leaves" in line]


def test_classes_without_images_in_a_part_of_user_supplied_images_are_named(tmp_path: Path) -> None:
    given = own_images()
    test = dataclasses.replace(given.test, labels=np.array([0, 2] * 4))
    data = dataclasses.replace(given, test=test, classes=("cat", "dog", "eel"))
    recipe = read_recipe(TrainRecipe, None, EPOCH | {"target.image_size": 8, "backbone.name": "resnet8"})
    progress = Listening()
    train(recipe, tmp_path / "run", progress=progress, data=data)
    assert [line for line in progress.lines if "leaves" in line] == [
        "mine: its training split, 24 images, leaves 1 of its classes without training images: eel",
        "mine: its test split, 8 images, leaves 1 of its classes without test images: dog",
    ]


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = read_recipe(TrainRecipe, None, EPOCH | {"target.image_size": 8, "backbone.name": "resnet8"})
    folder = tmp_path_factory.mktemp("given") / "run"
    return train(recipe, folder, progress=Progress(quiet=True), data=own_images())


def test_a_run_of_user_supplied_images_is_evaluated_on_them_and_on_others(
    own_run: Run, quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    again = evaluate(own_run, own_images(), "cpu", progress=Progress())
    assert again["accuracy"] == own_run.final["test"]["accuracy"] and again["images"] == 8
    assert again["target"].startswith("given:mine") and again["images_trained_on"] == 0
    assert "another look at its test images" in capsys.readouterr().err
    others = dataclasses.replace(own_images(), test=own_images().train)
    found = evaluate(own_run, others, "cpu", progress=Progress())
    assert (found["target"], found["images"]) == ("given:mine, 2 classes", 24)
    assert found["images_trained_on"] == 22  # the others are for validation
    assert "another look" not in capsys.readouterr().err


def test_given_test_images_that_a_run_leaves_unseen_are_not_evaluated(tmp_path: Path, quiet: Progress) -> None:
    settings = EPOCH | {"target.image_size": 8, "target.test": False, "backbone.name": "resnet8"}
    run = train(read_recipe(TrainRecipe, None, settings), tmp_path / "run", progress=quiet, data=own_images())
    with pytest.raises(UserError, match=r"target\.test is false, .*: give other images \(data=\)"):
        evaluate(run, own_images(), "cpu", progress=quiet)
    (run.folder / "inputs.json").unlink()  # as in a run of an earlier emoreg, which recognises images by name
    with pytest.raises(UserError, match=r"target\.test is false"):
        evaluate(run, own_images(), "cpu", progress=quiet)


def test_damaged_copies_of_the_test_images_under_the_same_names_are_other_images(
    tmp_path: Path, quiet: Progress
) -> None:
    random = np.random.default_rng(0)
    for root in ("clean", "damaged"):
        for name in (
            f"{split}/{label}/{number}" for split in ("train", "test") for label in "ab" for number in range(8)
        ):
            path = tmp_path / root / f"{name}.bmp"  # all files have the same size
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    shutil.copytree(tmp_path / "clean", tmp_path / "copy")
    settings = EPOCH | {"target.image_size": 8, "target.test": False, "backbone.name": "resnet8"}
    folders = {
        root: settings | {"target.name": "folder", "target.root": str(tmp_path / root)} for root in ("clean", "damaged")
    }
    recipes = {root: read_recipe(TrainRecipe, None, each) for root, each in folders.items()}
    clean, damaged = (read_target(recipes[root].target) for root in ("clean", "damaged"))
    by_name = train(recipes["clean"], tmp_path / "named", progress=quiet)
    given = train(read_recipe(TrainRecipe, None, settings), tmp_path / "given", progress=quiet, data=clean)
    for run in (by_name, given):
        for others in (str(tmp_path / "damaged"), damaged):
            assert evaluate(run, others, "cpu", progress=quiet)["images"] == 16
        for own in (str(tmp_path / "copy"), clean):
            with pytest.raises(UserError, match=r"target\.test is false"):
                evaluate(run, own, "cpu", progress=quiet)


def test_test_images_are_a_runs_own_whatever_else_of_the_target_differs(
    own_run: Run, tmp_path: Path, quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = own_images()
    fewer = dataclasses.replace(mine, train=mine.train.take(np.arange(23)))
    reversed_ = dataclasses.replace(mine, test=mine.test.take(np.arange(8)[::-1]))
    for data in (fewer, reversed_):
        found = evaluate(own_run, data, "cpu", progress=Progress())
        assert found["accuracy"] == own_run.final["test"]["accuracy"] and found["target"].startswith("given:mine")
        told = capsys.readouterr().err
        assert "another look at its test images" in told and "have changed" not in told
    settings = EPOCH | {"target.image_size": 8, "target.test": False, "backbone.name": "resnet8"}
    unseen = train(read_recipe(TrainRecipe, None, settings), tmp_path / "given", progress=quiet, data=mine)
    by_name = settings | {"target.name": "digits", "target.limit": 100}
    named = train(read_recipe(TrainRecipe, None, by_name), tmp_path / "named", progress=quiet)
    assert isinstance(named.recipe, TrainRecipe)
    for run, data in ((unseen, fewer), (unseen, reversed_), (named, read_target(named.recipe.target))):
        with pytest.raises(UserError, match=r"target\.test is false"):
            evaluate(run, data, "cpu", progress=quiet)


def test_a_target_with_another_task_or_classes_is_not_evaluated(own_run: Run, quiet: Progress) -> None:
    swapped = dataclasses.replace(own_images(), classes=("dog", "cat"))
    wrong: Any = own_images().test
    values = Table("mine", own_images().test.images, np.zeros((8, 2), np.float32))
    rated = Target(values, values.take(np.arange(8)), ("cat", "dog"), task="regression")
    for data, reason in (
        (swapped, r"data\.classes: must be those that the run was trained on, in their order: cat, dog"),
        (rated, r"data\.task: is regression, and the run was trained on classification"),
        (wrong, r"data: must be emoreg\.Target\(train, test, classes\), .* not a Table"),
    ):
        with pytest.raises(UserError, match=reason):
            evaluate(own_run, data, "cpu", progress=quiet)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cifar10", r"data: must be emoreg.Target\(train, test, classes\), .* not a str"),
        (own_images(np.arange(32) % 3), "mine: labels must be 0 to 1 with 2 classes, not 2"),
        (dataclasses.replace(own_images(), classes=("cat", "cat")), "data.classes: must name at least two"),
        (dataclasses.replace(own_images(), classes=NUMBERS), r"data.classes\[0\]: must be text"),
        (own_images(np.arange(32) // 24), "data.train: has images of one class only, 'cat'; a classifier needs two"),
        (dataclasses.replace(SEEN, test=SEEN.train), "data.test: has the very images of data.train"),
        (dataclasses.replace(SEEN, train=dataclasses.replace(SEEN.train, name=" ")), "data.train: must have a name"),
        (dataclasses.replace(SEEN, test=dataclasses.replace(SEEN.test, name="a\nb")), "data.test: .*without line ends"),
        (dataclasses.replace(own_images(), test=NOTHING), "data.test: must be an emoreg.Table, not a NoneType"),
    ],
)
def test_unusable_user_supplied_images_are_refused_before_anything_is_created(
    data: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(TrainRecipe(), tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_of_one_class_is_returned_as_it_is(
    tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(TrainRecipe, None, EPOCH | {"target.image_size": 8, "backbone.name": "resnet8"})
    data = own_images(np.arange(32) // 24)
    with monkeypatch.context() as earlier:
        earlier.setattr(classify, "require_two_classes", lambda data: None)
        run = train(recipe, tmp_path / "run", progress=quiet, data=data)
    assert train(recipe, tmp_path / "run", progress=quiet, data=data).final == run.final


def test_a_recipe_cannot_choose_classes_of_user_supplied_images(tmp_path: Path) -> None:
    recipe = read_recipe(TrainRecipe, None, {"target.classes": ["cat", "eel"]})
    with pytest.raises(UserError, match=r"target\.classes: must be null with data=, which names its classes"):
        train(recipe, tmp_path / "run", data=own_images())
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_a_classifier_is_refused_before_anything_is_created(tmp_path: Path) -> None:
    model: Any = TinyBackbone()
    with pytest.raises(UserError, match="model: must be a RegulatedClassifier, not a TinyBackbone; build one"):
        train(TrainRecipe(), tmp_path / "run", model=model)
    assert not (tmp_path / "run").exists()

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emoreg.config.read_recipe import read_recipe, recipe_yaml
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.targets import read_for_scoring, read_target
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from narrow import pixels

DIGITS = TargetSettings(name="digits")


def test_classes_are_kept_in_the_given_order_with_their_images() -> None:
    whole = read_target(DIGITS)
    part = read_target(dataclasses.replace(DIGITS, classes=("7", "0")))
    assert part.classes == ("7", "0")
    for table, source in ((part.train, whole.train), (part.test, whole.test)):
        for label, digit in enumerate((7, 0)):
            assert np.array_equal(table.images[table.labels == label], source.images[source.labels == digit])
        assert set(table.labels.tolist()) == {0, 1}


def test_classes_of_a_folder_are_kept_too(image_folder: Path, write_image: Callable[..., Path]) -> None:
    for split in ("train", "test"):
        write_image(image_folder / split / "green" / "0.png")
    settings = TargetSettings(name="folder", root=str(image_folder), classes=("red", "green"))
    target = read_target(settings)
    assert target.train.labels.tolist() == [1] + [0] * 12
    assert all("/green/" in str(i) or "/red/" in str(i) for i in target.train.images)
    assert read_for_scoring(settings, None, ("red", "green")).labels.tolist() == [1] + [0] * 4


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("1", "eight"), r"target\.classes: digits has no class 'eight'"),
        (("1",), r"^classes: must name at least two, or be null for all, not 1$"),
        ((), r"^classes: must name at least two, .* not 0$"),
        (("1", "2", "1"), r"^classes: must not name '1' more than once$"),
    ],
)
def test_unknown_too_few_and_repeated_classes_are_refused(classes: tuple[str, ...], message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        read_target(TargetSettings(name="digits", classes=classes))


def test_the_closest_class_is_named(image_folder: Path) -> None:
    with pytest.raises(UserError, match=r"flags has no class 'bleu' \(did you mean 'blue'\?\)"):
        read_target(TargetSettings(name="folder", root=str(image_folder), classes=("red", "bleu")))


def test_scoring_on_other_images_skips_classes_that_the_run_does_not_have(
    image_folder: Path, write_image: Callable[..., Path]
) -> None:
    write_image(image_folder / "test" / "green" / "0.png")
    of_two = dataclasses.replace(DIGITS, classes=("red", "blue"))
    assert read_for_scoring(of_two, str(image_folder), ("red", "blue")).labels.tolist() == [1] * 4 + [0] * 4
    with pytest.raises(UserError, match="no class 'green' in this run"):
        read_for_scoring(DIGITS, str(image_folder), ("red", "blue"))
    with pytest.raises(UserError, match=r"no class 'blue' in this run \(did you mean 'glue'"):
        read_for_scoring(dataclasses.replace(DIGITS, classes=("glue", "rod")), str(image_folder), ("glue", "rod"))


def test_single_images_of_a_class_are_not_held_out() -> None:
    labels = np.array([0] * 10 + [1] + [2] * 10, np.int64)
    train_part, test = hold_out_fifth(Table("set", np.arange(63, dtype=np.uint8).reshape(21, 1, 1, 3), labels))
    assert np.bincount(train_part.labels).tolist() == [8, 1, 8] and np.bincount(test.labels).tolist() == [2, 0, 2]
    assert sorted([*pixels(train_part.images)[:, 0, 0, 0], *pixels(test.images)[:, 0, 0, 0]]) == list(range(0, 63, 3))


def test_a_recipe_stores_classes_and_per_class_and_a_run_uses_them(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    options = ["--target.classes", '["3", "1", "8"]', "--target.per_class", "4"]
    with pytest.raises(UserError, match=r"target\.per_class: must be at least 1, or null, not 0"):
        read_recipe(TrainRecipe, None, ["--target.per_class", "0"])
    given = read_recipe(TrainRecipe, None, options).target
    assert given.classes == ("3", "1", "8") and given.per_class == 4
    recipe = dataclasses.replace(
        stage2, target=dataclasses.replace(stage2.target, classes=given.classes, per_class=4, limit=None)
    )
    (tmp_path / "recipe.yaml").write_text(recipe_yaml(recipe))
    assert read_recipe(TrainRecipe, tmp_path / "recipe.yaml") == recipe
    run = train(recipe, tmp_path / "run", progress=quiet)
    target = read_target(recipe.target)
    validation = round(0.1 * len(target.train))  # of all images of the three classes, not of the few
    assert run.final["images"] == {"train": 12, "validation": validation, "test": len(target.test)}
    assert evaluate(run, progress=quiet)["images"] == len(target.test) < 449

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoreg.config.recipe import PretrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.targets import read_target
from emoreg.data.tools.pack import pack
from emoreg.errors import SettingError
from emoreg.runtime.progress import Progress
from emoreg.stages.class_stimuli import read_stimuli
from emoreg.stages.pretrain import load_encoder, pretrain
from listening import Listening
from narrow import files, pixels


def settings(**changes: Any) -> StimuliSettings:
    return StimuliSettings(**(dict[str, Any](name="digits", image_size=8) | changes))


def test_the_classes_of_a_target_are_categories_of_its_training_images_alone() -> None:
    target = read_target(TargetSettings("digits"))
    stimuli = read_stimuli(settings(), seed=0)
    assert stimuli.labels[0].space == EmotionSpace("category", tuple("0123456789")) and stimuli.splits is None
    assert np.array_equal(pixels(stimuli.images), pixels(target.train.images))
    assert np.array_equal(stimuli.labels[0].values, target.train.labels)


def test_some_of_the_classes_may_be_chosen() -> None:
    every, some = (read_stimuli(settings(classes=classes), seed=0) for classes in (None, ("7", "1")))
    assert some.labels[0].space.names == ("7", "1")
    kept = np.isin(every.labels[0].values, (7, 1))
    assert np.array_equal(pixels(some.images), pixels(every.images)[kept])
    assert some.labels[0].values.tolist() == [int(label == 1) for label in every.labels[0].values[kept]]


def test_a_published_validation_split_is_one_and_the_test_split_is_left_alone(
    image_folder: Path, write_image: Callable[..., Path]
) -> None:
    for name in ("blue", "red"):
        for number in range(2):
            write_image(image_folder / "val" / name / f"{number}.png")
    stimuli = read_stimuli(settings(name="folder", root=str(image_folder)), seed=0)
    assert stimuli.splits == ["train"] * 24 + ["validation"] * 4
    assert stimuli.labels[0].values.tolist() == [0] * 12 + [1] * 12 + [0] * 2 + [1] * 2
    folders = [file.name.split("/")[0] for file in files(stimuli.images)]
    assert folders == ["train"] * 24 + ["val"] * 4
    turned = read_stimuli(settings(name="folder", root=str(image_folder), classes=("red", "blue")), seed=0)
    assert turned.splits == stimuli.splits and turned.labels[0].space.names == ("red", "blue")
    assert turned.labels[0].values.tolist() == [1] * 12 + [0] * 12 + [1] * 2 + [0] * 2


def test_a_pack_of_a_target_serves_too(image_folder: Path, tmp_path: Path, quiet: Progress) -> None:
    pack("folder", str(image_folder), 8, tmp_path / "pack", False, quiet)
    stimuli = read_stimuli(settings(name="folder", root=str(tmp_path / "pack"), classes=("red", "blue")), seed=0)
    assert len(stimuli.images) == 24 and stimuli.labels[0].values.tolist() == [1] * 12 + [0] * 12


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"classes": ("1", "11")}, "stimuli.classes", "no class '11' .did you mean '1'"),
        ({"name": "folder"}, "stimuli.root", "name the folder"),
        ({"name": "procedural", "classes": ("a", "b")}, "stimuli.classes", "procedural has emotions and no classes"),
        ({"name": "oasis", "classes": ("a", "b")}, "stimuli.classes", "cifar10.* for positive controls"),
        ({"name": "cifar11"}, "stimuli.name", "did you mean 'cifar10'"),
    ],
)
def test_errors_name_the_setting_of_stage_1(changes: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        read_stimuli(settings(**changes), seed=0)
    assert caught.value.key == key


def test_they_are_learned_and_reported_as_classes(stage1: PretrainRecipe, tmp_path: Path) -> None:
    heard = Listening()
    asked = settings(classes=("0", "1", "2", "3", "4"), limit=40)
    recipe = dataclasses.replace(stage1, stimuli=asked, training=dataclasses.replace(stage1.training, epochs=1))
    run = pretrain(recipe, tmp_path / "run", progress=heard)
    assert any("digits" in line and "not emotions" in line and "positive control" in line for line in heard.lines)
    assert run.final["images"] == 40 and run.final["validation"].keys() == {"loss", "accuracy"}
    assert run.weights()[1]["space"] == {"kind": "category", "names": list("01234")}
    assert load_encoder(run.folder).num_features == 64

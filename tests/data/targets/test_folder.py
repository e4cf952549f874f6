from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from emoreg.config.schema import TargetSettings
from emoreg.data.targets import read_for_scoring, read_target
from emoreg.errors import UserError
from listening import Listening
from narrow import files, present


def test_folder_and_zip_give_the_same_task(image_folder: Path, image_zip: Path) -> None:
    tasks = [read_target(TargetSettings(name="folder", root=str(root))) for root in (image_folder, image_zip)]
    for task in tasks:
        assert task.classes == ("blue", "red")
        assert task.train.labels.tolist() == [0] * 12 + [1] * 12
        assert task.test.labels.tolist() == [0] * 4 + [1] * 4
    contents = [[file.read() for file in files(task.train.images)] for task in tasks]
    assert contents[0] == contents[1]


def test_without_splits_a_fifth_of_each_class_is_always_the_same_test_split(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in ("cat", "dog"):
        for number in range(10):
            write_image(tmp_path / "pets" / name / f"{number}.jpg")
    settings = TargetSettings(name="folder", root=str(tmp_path / "pets"))
    task, again = read_target(settings), read_target(settings)
    assert task.test.labels.tolist() == [0, 0, 1, 1] and len(task.train) == 16
    assert list(map(str, task.test.images)) == list(map(str, again.test.images))
    assert not set(map(str, task.test.images)) & set(map(str, task.train.images))


def test_a_validation_folder_is_the_test_split_if_there_is_no_test_folder(image_folder: Path) -> None:
    (image_folder / "test").rename(image_folder / "val")
    assert len(read_target(TargetSettings(name="folder", root=str(image_folder))).test) == 8


def test_val_is_the_validation_split_if_there_is_a_test_folder(
    image_folder: Path, write_image: Callable[..., Path]
) -> None:
    settings = TargetSettings(name="folder", root=str(image_folder))
    assert read_target(settings).validation is None
    (image_folder / "test").rename(image_folder / "val")
    assert read_target(settings).validation is None
    for name in ("blue", "red"):
        write_image(image_folder / "test" / name / "1.png")
    target = read_target(settings)
    assert present(target.validation).labels.tolist() == [0] * 4 + [1] * 4 and len(target.test) == 2
    assert target.notes == (
        f"{image_folder.name}: train 24 images from 'train', validation 8 images from 'val', test 2 images from "
        "'test'; 2 classes: blue, red",
        f"{image_folder.name}: its own validation split, 8 images, is used; no images are held out",
    )
    assert target.left_out == ()
    shutil.rmtree(image_folder / "val" / "red")
    assert "without validation images: red" in read_target(settings).notes[-1]


def test_the_first_edition_ignores_a_third_split(image_folder: Path) -> None:
    shutil.copytree(image_folder / "test", image_folder / "val")
    target = read_target(TargetSettings(name="folder", root=str(image_folder)), edition=1)
    assert target.validation is None and (len(target.train), len(target.test)) == (24, 8)


def test_the_validation_split_is_scored_if_there_is_no_test_split(image_folder: Path) -> None:
    (image_folder / "test").rename(image_folder / "val_images")
    heard = Listening()
    table = read_for_scoring(TargetSettings(name="digits"), str(image_folder), ("blue", "red"), heard)
    assert len(table) == 8
    assert heard.lines == [f"{image_folder.name}: scored on 8 images from 'val_images'; 2 classes: blue, red"]


def test_both_unicode_forms_of_a_name_are_one_class(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("café", "bar"):
        write_image(tmp_path / "train" / name / "1.png")
        write_image(tmp_path / "test" / unicodedata.normalize("NFD", name) / "1.png")
    for name in ("café", unicodedata.normalize("NFD", "café")):
        settings = TargetSettings(name="folder", root=str(tmp_path), classes=(name, "bar"))
        assert read_target(settings).classes == ("café", "bar")
        assert len(read_for_scoring(TargetSettings(name="digits"), str(tmp_path), ("bar", name))) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda root: shutil.rmtree(root / "test"), "no folder 'test'"),
        (lambda root: shutil.rmtree(root / "train"), "no folder 'train'"),
        (lambda root: shutil.rmtree(root / "test" / "red"), r"class 'red' has no images in the split 'test'"),
        (lambda root: (root / "train" / "green").mkdir(), r"green holds no images; put some there, or remove it"),
        (lambda root: [*map(shutil.rmtree, root.glob("*/red"))], "one class only"),
        (lambda root: [file.unlink() for file in root.rglob("*.png")], "holds no images"),
    ],
)
def test_malformed_folders_are_refused_with_the_reason(
    image_folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(image_folder)
    with pytest.raises(UserError, match=message):
        read_target(TargetSettings(name="folder", root=str(image_folder)))


def test_a_folder_target_needs_its_root() -> None:
    with pytest.raises(UserError, match=r"target\.root"):
        read_target(TargetSettings(name="folder"))


def test_scoring_uses_the_classifiers_labels_and_refuses_unknown_classes(
    image_folder: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    settings = TargetSettings(name="digits")
    assert read_for_scoring(settings, str(image_folder), ("red", "blue")).labels.tolist() == [1] * 4 + [0] * 4
    assert len(read_for_scoring(settings, str(image_folder / "train"), ("blue", "red"))) == 24  # no splits: all
    write_image(image_folder / "test" / "rad" / "0.png")
    with pytest.raises(UserError, match=r"rad/0\.png: no class 'rad' in this run \(did you mean 'red'\?\)"):
        read_for_scoring(settings, str(image_folder), ("blue", "red"))
    with pytest.raises(UserError, match="not those that the run was trained on"):
        read_for_scoring(settings, "digits", ("a", "b"))


def test_a_runs_own_root_and_name_mean_its_own_test_split(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("cat", "dog"):
        for number in range(10):
            write_image(tmp_path / name / f"{number}.png")
    settings = TargetSettings(name="folder", root=str(tmp_path))
    own = list(map(str, read_target(settings).test.images))
    for data in (None, str(tmp_path), f"{tmp_path}/cat/..", "folder", "FOLDER"):
        assert list(map(str, read_for_scoring(settings, data, ("cat", "dog")).images)) == own


def test_names_in_any_script_are_read(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("猫", "chien à poil"):
        for number in range(5):
            write_image(tmp_path / name / f"image №{number}.png")
    assert read_target(TargetSettings(name="folder", root=str(tmp_path))).classes == ("chien à poil", "猫")

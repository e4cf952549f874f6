"""Splits and classes are found in the layouts in which sets are published."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from emoreg.data.images.layout import find_layout, split_name
from refusing import refusal

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Create a folder "set" with these files; they may be empty, because nothing is decoded here."""

    def make(*names: str, **contents: str) -> Path:
        for name in names:
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(contents.get(path.stem, ""))
        return tmp_path / "set"

    return make


def zipped(root: Path) -> Path:
    path = root.parent / "zipped" / f"{root.name}.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))  # below a folder named after the set, as in most zips
    return path


def found(root: Path) -> dict[str, list[str]]:
    """The class of each image, by split."""
    return {name or "": list(part.classes) for name, part in find_layout(root).parts.items()}


def pets(*folders: str) -> list[str]:
    """Names of an image of a cat and one of a dog in each folder."""
    return [f"{folder}/{name}/1.png".removeprefix("/") for folder in folders for name in ("cat", "dog")]


BOTH = ["cat", "dog"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (pets(""), {"": BOTH}),
        (pets("Animals", "Animals/raw/../../Animals"), {"": BOTH}),
        (pets("data/animals"), {"": BOTH}),
        (["cat/1.png", "cat/closeups/2.png", "dog/1.png"], {"": ["cat", "cat", "dog"]}),
        (["cat/day1/1.png", "cat/day2/1.png", "dog/day1/1.png"], {"": ["cat", "cat", "dog"]}),
        (["train/1.png", "bus/1.png"], {"": ["bus", "train"]}),  # a class called train
        (["valid/1.png", "invalid/1.png"], {"": ["invalid", "valid"]}),
        (pets("train", "test"), {"train": BOTH, "test": BOTH}),
        (pets("train", "val", "test"), {"train": BOTH, "validation": BOTH, "test": BOTH}),
        (pets("TRAINING", "Testing"), {"train": BOTH, "test": BOTH}),
        (pets("train_set", "test_set"), {"train": BOTH, "test": BOTH}),
        (pets("training_set/training_set", "test_set/test_set"), {"train": BOTH, "test": BOTH}),
        (pets("seg_train/seg_train", "seg_test/seg_test"), {"train": BOTH, "test": BOTH}),
        (pets("Train Data", "Validation Data"), {"train": BOTH, "validation": BOTH}),
        (pets("trainset", "valset", "testset"), {"train": BOTH, "validation": BOTH, "test": BOTH}),
        (pets("cats-dogs-train", "cats-dogs-test"), {"train": BOTH, "test": BOTH}),
        (pets("train2017", "val2017"), {"train": BOTH, "validation": BOTH}),
        (pets("pets/data/train", "pets/data/dev"), {"train": BOTH, "validation": BOTH}),
        (pets("train/images", "test/images"), {"train": BOTH, "test": BOTH}),
        (["train/cat/day/1.png", "train/dog/1.png", *pets("test")], {"train": BOTH, "test": BOTH}),
        (["train/train/1.png", "train/bus/1.png", "test/train/1.png"], {"train": ["bus", "train"], "test": ["train"]}),
    ],
)
def test_common_layouts_are_recognised(names: list[str], expected: dict[str, list[str]], build: Build) -> None:
    root = build(*names)
    assert found(root) == expected
    assert found(zipped(root)) == expected
    assert find_layout(root).left_out == ()


@pytest.mark.parametrize(
    ("names", "expected", "left_out"),
    [
        (pets("train", "test", "extra"), ["train", "test"], "2 images in 'extra', which is none of the splits"),
        ([*pets("train", "test"), "unlabeled/1.png"], ["train", "test"], "1 images in 'unlabeled'"),
        (pets("Training", "Test", "test-multiple_fruits"), ["train", "test"], "in 'test-multiple_fruits'"),
        (pets("train", "test", "set/train", "set/test"), ["train", "test"], "4 images in 'set'"),
        (
            [*pets("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred/1.png"],
            ["train", "test"],
            "1 images in 'seg_pred'",
        ),
        ([*pets("train", "val"), "test/1.png"], ["train", "validation"], "1 images in 'test', which has no class"),
        ([*pets("train", "val"), "test/images/1.png"], ["train", "validation"], "'images', is not a class"),
        ([*pets(""), "cover.png"], [""], "1 images that lie in no class folder, e.g. 'cover.png'"),
        ([*pets("train", "test"), "train/1.png"], ["train", "test"], "e.g. 'train/1.png'"),
        ([*pets(""), "cat/1.HEIC", "cat/2.heic", "notes.txt"], [""], "left out 2 .heic, 1 .txt: only .apng"),
    ],
)
def test_left_out_images_are_reported(names: list[str], expected: list[str], left_out: str, build: Build) -> None:
    root = build(*names)
    assert list(found(root)) == expected
    (line,) = find_layout(root).left_out
    assert line.startswith("set: left out ") and left_out in line


def tiny_imagenet(build: Build, rows: str = "v0.JPEG\tn02\t0\t0\t62\t57\nv1.JPEG\tn01\t1\t1\t9\t9\n") -> Path:
    names = [f"train/{name}/images/{name}_{number}.JPEG" for name in ("n01", "n02") for number in range(2)]
    more = ("train/n01/n01_boxes.txt", "test/images/t0.JPEG", "val/val_annotations.txt")
    return build(*names, *(f"val/images/v{number}.JPEG" for number in range(2)), *more, val_annotations=rows)


def test_tiny_imagenet_is_read_in_its_published_layout(build: Build) -> None:
    root = tiny_imagenet(build)
    layout = find_layout(root)
    assert found(root) == {"train": ["n01", "n01", "n02", "n02"], "validation": ["n02", "n01"]}
    assert found(zipped(root)) == found(root)
    assert "1 images in 'test'" in layout.left_out[0] and "1 .txt" in layout.left_out[1] and layout.empty == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("v0.JPEG n01\n", "row 1: 'v0.JPEG n01' is not <file>, tab, <class>"),
        ("v0.JPEG\tn01\nv9.JPEG\tn01\n", "row 2: no image 'v9.JPEG' below val"),
        ("\n", "has no rows"),
    ],
)
def test_a_malformed_annotation_file_is_refused(rows: str, message: str, build: Build) -> None:
    line = refusal(lambda: find_layout(tiny_imagenet(build, rows)))
    assert "val/val_annotations.txt" in line and message in line


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (pets("train", "photos"), "'train' beside 'photos'"),
        (pets("train", "training", "test"), "'test' and 'train' and 'training'; name them"),
        (pets("train_a", "train_b", "test"), "not clear which folders are the splits"),
        (["train/1.png", "test/1.png"], "'test' and 'train' hold images, but no class folders"),
        (
            [f"{name}/{split}/1.png" for name in ("cat", "dog") for split in ("train", "test")],
            "set/cat holds the splits 'test' and 'train': put the splits above the classes, as test/cat/",
        ),
        (pets("day/train", "day/test", "night/train", "night/test"), "give one such folder as the root"),
        (["1.png", "2.png"], "holds no images as"),
        (["cat/1.heic", "dog/1.heic"], "left out 2 .heic"),
    ],
)
def test_ambiguous_layouts_are_refused_naming_the_folders(names: list[str], message: str, build: Build) -> None:
    assert message in refusal(lambda: find_layout(build(*names)))


def test_the_reason_for_no_images_is_given_for_any_name_of_the_folder(build: Build) -> None:
    root = build("cat/1.heic")
    root = root.rename(root.parent / "a: b")
    assert "(left out 1 .heic: only" in refusal(lambda: find_layout(root))


@pytest.mark.parametrize("empty", ["train/eel", "test/cat", "val"])
def test_an_empty_folder_among_splits_and_classes_is_named(empty: str, build: Build) -> None:
    root = build(*pets("train", "test"), "docs/readme.txt", "train/cat/empty/x.txt")
    if empty == "test/cat":
        (root / empty / "1.png").unlink()
    (root / empty).mkdir(exist_ok=True)
    for place in (root, zipped(root)):
        assert f"{empty} holds no images; put some there" in refusal(find_layout(place).refuse_empty_folders)


@pytest.mark.parametrize("name", ["traindog", "contest", "train_test", "evaluate", "trainer", "tests", "val d'isère 2"])
def test_other_words_name_no_split(name: str) -> None:
    assert split_name(name) is None or split_name(name) == ("validation", "d isère 2")


def test_a_single_folder_with_a_known_class_is_not_a_wrapper(build: Build) -> None:
    root = build("cat/day1/1.png", "cat/day2/1.png")
    assert find_layout(root, ("cat", "dog")).classes == ("cat",)

"""Sets without a table: FI, ArtPhoto, and any folder per emotion."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emoreg.data.stimuli import artphoto, emotion_folder, fi
from emoreg.data.stimuli.emotion import EKMAN_6, EKMAN_6_NEUTRAL, MIKELS_8, POLARITY
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]


def in_splits(root: Path, *splits: str) -> Path:
    """The same folders below each split."""
    for split in splits:
        shutil.copytree(root, root.parent / "in splits" / split)
    return root.parent / "in splits"


@pytest.mark.parametrize("read", [fi.read, emotion_folder.read])
def test_folders_below_splits_give_the_splits(read: Callable[..., Stimuli], build: Build, pack: Build) -> None:
    root = in_splits(build("fi"), "train", "Val", "testing")
    for place in (root, pack(root)):
        stimuli = read(str(place), False)
        assert stimuli.splits == ["validation"] * 8 + ["test"] * 8 + ["train"] * 8
        np.testing.assert_array_equal(stimuli.labels[0].values, list(range(8)) * 3)


@pytest.mark.parametrize("read", [fi.read, emotion_folder.read])
def test_a_split_without_images_is_named(read: Callable[..., Stimuli], build: Build, pack: Build) -> None:
    root = in_splits(build("fi"), "train")
    (root / "test").mkdir()
    for place in (root, pack(root)):
        with pytest.raises(UserError, match="/test holds no images"):
            read(str(place), False)


@pytest.mark.parametrize("read", [fi.read, emotion_folder.read])
def test_an_emotion_without_images_is_named(read: Callable[..., Stimuli], build: Build, pack: Build) -> None:
    root = in_splits(build("fi"), "train", "test")
    (root / "test" / "awe" / "awe_1.jpg").unlink()
    (root / "test" / "awe" / "notes.txt").write_text("no image")
    for place in (root, pack(root)):
        with pytest.raises(UserError, match="/test/awe holds no images"):
            read(str(place), False)


def test_fi_has_all_eight_emotions_at_any_depth(build: Build) -> None:
    root = build("fi")
    (root / "images").mkdir()
    for folder in MIKELS_8:
        (root / folder).rename(root / "images" / folder)
    (root / "images" / "sadness").rename(root / "images" / "sad")
    shutil.copytree(root / "images" / "awe", root / "figures")
    assert len(fi.read(str(root), False).images) == 8
    shutil.rmtree(root / "images" / "fear")
    with pytest.raises(UserError, match=r"holds no images of 'fear' \(fear/\*\.jpg\)"):
        fi.read(str(root), False)


def test_placeholders_are_left_out_of_fi_and_reported(build: Build, pack: Build) -> None:
    root = build("fi")
    for number in range(6):
        for folder in ("awe", "sadness", "fear"):
            (root / folder / f"gone_{number}.jpg").write_bytes(b"not an image: it is never decoded")
    for place, prefix in ((root, ""), (pack(root), "fi/")):
        stimuli = fi.read(str(place), False)
        assert [image.name for image in files(stimuli.images)] == [f"{prefix}{name}/{name}_1.jpg" for name in MIKELS_8]
        assert stimuli.left_out == (
            "fi: left out 18 copies of one picture, with 3 different emotions, e.g. "
            f"'{prefix}awe/gone_0.jpg': a placeholder for deleted photographs",
        )


def test_images_of_fi_in_no_emotions_folder_are_reported(build: Build, write_image: Build) -> None:
    root = build("fi")
    write_image(root / "figures" / "1.jpg")
    write_image(root / "2.jpg")
    (line,) = fi.read(str(root), False).left_out
    assert line == "fi: left out 2 images that are in no emotion's folder, e.g. '2.jpg'"


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("awe", "Sad", "content"), MIKELS_8),
        (("anger", "fear"), MIKELS_8),
        (("anger", "happy"), EKMAN_6),
        (("anger", "neutral"), EKMAN_6_NEUTRAL),
        (("Pos", "neg"), POLARITY),
        (("joy", "awe"), ("awe", "joy")),
        (("tense", "Calm", "happy"), ("Calm", "happy", "tense")),
    ],
)
def test_the_space_is_the_first_that_contains_all_folder_names(
    folders: tuple[str, ...], names: tuple[str, ...], tmp_path: Path, write_image: Build
) -> None:
    for folder in folders:
        write_image(tmp_path / folder / "1.png")
    labels = emotion_folder.read(str(tmp_path), False).labels[0]
    assert labels.space.names == names
    assert len(set(labels.values.tolist())) == len(folders)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            ("awe/1.jpg", "amusment/1.jpg"),
            "amusment/1.jpg: 'amusment' is not a known emotion; did you mean 'amusement'",
        ),
        (
            ("train/awe/1.jpg", "trial/awe/1.jpg"),
            "it is not clear which folders are the splits: 'train' beside 'trial'",
        ),
        (("awe/train/1.jpg", "awe/test/1.jpg", "fear/train/1.jpg"), "awe holds the splits 'test' and 'train'"),
        (("1.jpg", "2.jpg"), "holds no images as"),
    ],
)
def test_other_folders_are_refused(images: tuple[str, ...], message: str, tmp_path: Path, write_image: Build) -> None:
    for image in images:
        write_image(tmp_path / image)
    with pytest.raises(UserError) as caught:
        emotion_folder.read(str(tmp_path), False)
    assert message in str(caught.value)


def test_the_emotion_is_the_folder_below_the_root_at_any_depth(tmp_path: Path, write_image: Build) -> None:
    for image in ("awe/1.jpg", "awe/day 1/2.jpg", "fear/more/1.jpg", "fear/more/2.heic"):
        write_image(tmp_path / "set" / image) if image.endswith("jpg") else (tmp_path / "set" / image).touch()
    stimuli = emotion_folder.read(str(tmp_path / "set"), False)
    names = stimuli.labels[0].space.names
    assert [names[label] for label in stimuli.labels[0].values] == ["awe", "awe", "fear"]
    assert stimuli.notes == ("set: 3 images; 2 emotions: awe, fear",)
    assert len(stimuli.left_out) == 1 and "left out 1 .heic" in stimuli.left_out[0]


def test_images_of_a_split_without_emotions_are_left_out_and_reported(tmp_path: Path, write_image: Build) -> None:
    for image in ("train_set/awe/1.jpg", "train_set/fear/1.jpg", "test_set/1.jpg"):
        write_image(tmp_path / "set" / image)
    stimuli = emotion_folder.read(str(tmp_path / "set"), False)
    assert stimuli.splits == ["train", "train"]
    assert stimuli.left_out[0].startswith("set: left out 1 images in 'test_set', which has no class folders")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("rage_0001.jpg", "rage_0001.jpg: no emotion 'rage'"),
        ("amusment_0001.jpg", r"\(did you mean 'amusement'\?\)"),
        ("0001.jpg", "0001.jpg: its name has no emotion"),
        ("_0001.jpg", "its name has no emotion"),
        ("copy/sad_0001.jpg", "sad_0001.jpg has the same name as .*/copy/sad_0001.jpg"),
    ],
)
def test_artphoto_names_without_an_emotion_are_refused(
    image: str, message: str, build: Build, write_image: Build
) -> None:
    root = build("artphoto")
    write_image(root / image)
    with pytest.raises(UserError, match=message):
        artphoto.read(str(root), False)

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoreg.config.schema import TargetSettings
from emoreg.data.stimuli.emotion import MIKELS_8
from emoreg.data.targets import read_for_scoring, read_target
from emoreg.data.tools.pack import pack
from emoreg.errors import SettingError
from emoreg.runtime.progress import Progress
from narrow import files, present

HEADER = "'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"


@pytest.fixture
def abstract(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Ten images of fear, ten of awe, two ties."""
    rows = [(0, 1, 2, 0, 0, 0, 9, 0)] * 10 + [(0, 1, 9, 0, 0, 0, 2, 0)] * 10 + [(4, 4, 0, 0, 0, 0, 0, 0)] * 2
    lines = [HEADER]
    for number, votes in enumerate(rows, start=1):
        write_image(tmp_path / "abstract" / f"abstract_{number:04}.jpg")
        lines.append(f"'abstract_{number:04}.jpg',{','.join(map(str, votes))}")
    (tmp_path / "abstract" / "ABSTRACT_groundTruth.csv").write_text("\r".join(lines))
    return tmp_path / "abstract"


TIES = ("abstract: left out 2 images whose most-voted emotions tie",)


def settings(root: Path, name: str = "abstract") -> TargetSettings:
    return TargetSettings(name, str(root), image_size=8)


def test_the_class_is_the_emotion_with_most_votes_and_ties_are_counted(abstract: Path) -> None:
    target = read_target(settings(abstract))
    assert target.classes == ("awe", "fear") and target.left_out == TIES
    assert target.train.labels.tolist() == [1] * 8 + [0] * 8 and target.test.labels.tolist() == [1] * 2 + [0] * 2


def test_the_test_split_is_always_the_same_and_disjoint_from_the_training_images(abstract: Path) -> None:
    one, again = read_target(settings(abstract)), read_target(settings(abstract))
    names = [[file.name for file in files(table.images)] for table in (one.train, one.test)]
    assert names[1] == [file.name for file in files(again.test.images)]
    assert not set(names[0]) & set(names[1]) and len(names[0] + names[1]) == 20


def test_a_zip_and_a_pack_give_the_same_task(abstract: Path, tmp_path: Path, quiet: Progress) -> None:
    path = tmp_path / "abstract.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(abstract.iterdir()):
            archive.write(file, file.name)
    pack("abstract", str(abstract), 8, tmp_path / "pack", False, quiet)
    expected = read_target(settings(abstract))
    for root in (path, tmp_path / "pack"):
        target = read_target(settings(root))
        assert target.classes == expected.classes and target.left_out == TIES
        for own, other in ((target.train, expected.train), (target.test, expected.test)):
            assert np.array_equal(own.labels, other.labels)


def test_some_of_the_emotions_may_be_kept(abstract: Path) -> None:
    target = read_target(TargetSettings("abstract", str(abstract), ("fear", "awe")))
    assert target.train.labels.tolist() == [0] * 8 + [1] * 8 and target.left_out == TIES
    assert len(read_for_scoring(TargetSettings("abstract", str(abstract)), None, ("awe", "fear"))) == 4


def test_published_splits_are_used(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for name in MIKELS_8:
            for number in range(count):
                write_image(tmp_path / "fi" / split / name / f"{number}.jpg")
    target = read_target(settings(tmp_path / "fi", "fi"))
    assert target.classes == MIKELS_8 and target.left_out == ()
    assert {file.name.split("/")[0] for file in files(target.train.images)} == {"train"}
    assert {file.name.split("/")[0] for file in files(present(target.validation).images)} == {"val"}
    assert {file.name.split("/")[0] for file in files(target.test.images)} == {"test"}
    assert np.bincount(target.train.labels).tolist() == [3] * 8


def test_errors_name_the_setting_of_the_target(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="name the folder or zip that holds fi") as caught:
        read_target(TargetSettings("fi"))
    assert caught.value.key == "target.root"
    with pytest.raises(SettingError, match="did you mean 'emotion6'"):
        read_target(TargetSettings("emotion7", str(tmp_path)))


def test_polarity_is_a_task_of_two_classes(abstract: Path) -> None:
    target = read_target(dataclasses.replace(settings(abstract), labels="polarity"))
    assert target.classes == ("negative", "positive")
    assert target.left_out == (
        "abstract: left out 2 images with neither a negative nor a positive emotion or rating, or with both alike",
    )
    assert target.train.labels.tolist() == [0] * 8 + [1] * 8  # fear, awe
    assert not target.notes


def test_a_run_on_polarity_is_scored_on_the_pack_of_another_affective_set(
    abstract: Path, rated: Path, tmp_path: Path, quiet: Progress
) -> None:
    pack("manifest", str(rated), 8, tmp_path / "pack", False, quiet)
    run = dataclasses.replace(settings(abstract), labels="polarity")
    table = read_for_scoring(run, str(tmp_path / "pack"), ("negative", "positive"))
    assert sorted(table.labels.tolist()) == [0, 1]


def test_images_whose_most_voted_emotion_has_no_counterpart_are_counted(abstract: Path) -> None:
    """Ten images have 9 votes for awe, which is none of the six, 2 for fear and 1 for anger."""
    target = read_target(dataclasses.replace(settings(abstract), labels="ekman"))
    assert target.classes == ("fear",) and len(target.train) + len(target.test) == 20
    assert target.notes[0] == (
        "abstract: 10 of 22 images are labelled by other votes than most, because their most-voted emotion (awe) is "
        "none of the six"
    )


@pytest.fixture
def rated(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Images with only valence and arousal: six unpleasant, six pleasant, one in the middle."""
    lines = ["path,valence,arousal"]
    for number, valence in enumerate([-0.5] * 6 + [0.4] * 6 + [0.0]):
        lines.append(f"{write_image(tmp_path / 'rated' / f'{number}.png').name},{valence},0.1")
    (tmp_path / "rated" / "manifest.csv").write_text("\n".join(lines))
    return tmp_path / "rated" / "manifest.csv"


def test_ratings_give_polarity_but_no_majority(rated: Path) -> None:
    asked = dataclasses.replace(settings(rated, "manifest"), labels="polarity")
    target = read_target(asked)
    assert (len(target.train) + len(target.test), target.classes) == (12, ("negative", "positive"))
    with pytest.raises(SettingError, match=r"target\.labels: .* no majority follows"):
        read_target(settings(rated, "manifest"))


def test_emotion_labels_are_refused_for_other_sets() -> None:
    with pytest.raises(SettingError, match=r"target\.labels: must be majority for digits, .* not polarity"):
        read_target(TargetSettings("digits", labels="polarity"))


def test_ratings_are_a_target_by_regression(rated: Path) -> None:
    target = read_target(dataclasses.replace(settings(rated, "manifest"), labels="dimensions"))
    assert (target.task, target.classes) == ("regression", ("valence", "arousal"))
    whole = np.concatenate([target.train.labels, target.test.labels])
    assert whole.dtype == np.float32 and len(target.test) == 3  # a fifth of 13, the image in the middle among them
    assert sorted(whole[:, 0].tolist()) == pytest.approx([-0.5] * 6 + [0.0] + [0.4] * 6)


def test_an_emotion_applies_if_it_got_an_even_share_of_the_votes(abstract: Path) -> None:
    """An even share is an eighth of the votes: 2 of 12 suffice, 1 of 12 does not; in a tie both emotions apply."""
    target = read_target(dataclasses.replace(settings(abstract), labels="multilabel"))
    assert (target.task, target.classes) == ("multilabel", ("amusement", "anger", "awe", "fear"))
    whole = np.concatenate([target.train.labels, target.test.labels])
    assert len(whole) == 22 and whole.dtype == np.float32
    assert whole.sum(axis=0).tolist() == [2, 2, 20, 20]
    assert not target.left_out
    note = target.notes[-1]
    assert "applies to an image if it got at least 0.125 of the votes; left out, as they apply to all images" in note
    assert note.endswith("; 2.00 of the others apply to an image on average")


def test_exactly_an_even_share_of_the_votes_counts(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    rows = [(2, 14, 0, 0, 0, 0, 0, 0), (1, 15, 0, 0, 0, 0, 0, 0), (0, 0, 16, 0, 0, 0, 0, 0)] * 4
    lines = [HEADER]
    for number, votes in enumerate(rows, start=1):
        write_image(tmp_path / "abstract" / f"abstract_{number:04}.jpg")
        lines.append(f"'abstract_{number:04}.jpg',{','.join(map(str, votes))}")
    (tmp_path / "abstract" / "ABSTRACT_groundTruth.csv").write_text("\r".join(lines))
    target = read_target(dataclasses.replace(settings(tmp_path / "abstract"), labels="multilabel"))
    whole = np.concatenate([target.train.labels, target.test.labels])
    assert dict(zip(target.classes, whole.sum(axis=0).tolist(), strict=True)) == {"amusement": 4, "anger": 8, "awe": 4}


def test_the_test_split_of_multilabel_targets_is_always_the_same(abstract: Path) -> None:
    one, again = (read_target(dataclasses.replace(settings(abstract), labels="multilabel")) for _ in range(2))
    names = [[file.name for file in files(table.images)] for table in (one.train, one.test)]
    assert names[1] == [file.name for file in files(again.test.images)] and not set(names[0]) & set(names[1])


def test_a_set_without_votes_or_ratings_is_refused(abstract: Path, rated: Path) -> None:
    with pytest.raises(SettingError, match=r"target\.labels: must not be dimensions for abstract, .* no dimensions"):
        read_target(dataclasses.replace(settings(abstract), labels="dimensions"))
    with pytest.raises(SettingError, match=r"target\.labels: must not be multilabel for manifest, .* no votes"):
        read_target(dataclasses.replace(settings(rated, "manifest"), labels="multilabel"))


@pytest.mark.parametrize(
    "more",
    [{"classes": ("a", "b")}, {"per_class": 3}, {"imbalance": 2.0}, {"label_noise": "symmetric", "noise_share": 0.1}],
)
def test_settings_for_classes_are_refused_without_classes(more: dict[str, Any]) -> None:
    name = next(iter(more))
    with pytest.raises(SettingError, match=f"{name}: must be .* with labels dimensions, .*there are no classes"):
        TargetSettings("oasis", labels="dimensions", **more)

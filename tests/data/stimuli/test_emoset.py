from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.stimuli.layouts import EMOSET_INFO, LAYOUTS, emoset_list
from emoreg.data.stimuli.emoset import read
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_each_list_is_needed_and_must_have_rows(name: str, build: Build) -> None:
    root = build("emoset")
    (root / f"{name}.json").write_text("[]")
    with pytest.raises(UserError, match=rf"/{name}\.json has no rows"):
        read(str(root), False)
    (root / f"{name}.json").unlink()
    with pytest.raises(UserError, match=rf"holds no {name}\.json"):
        read(str(root), False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[["awe", "image/awe/awe_00001.jpg"', r"train\.json is not JSON"),
        ('{"awe": []}', r"train\.json has no rows; it must be a list of"),
        ('[["awe"]]', r"train\.json, row 1 must be \[emotion, image, annotation\] or .*, not \[\"awe\"\]"),
        ('[["awe", 3, 4]]', r"train\.json, row 1 must be"),
        ('[["awe", "a.jpg"]]', r"row 1 must be"),
        (
            '[["awe", "awe_1", "a.jpg"]]',
            r"row 1 must be .* or \[emotion, id, image, annotation\], not \[\"awe\", \"awe_1\"",
        ),
        ('[["awe", "awe_1.jpg", "a.jpg"]]', r"row 1 must be"),
        ('[["awe", "a.jpg", "a.json", "a.txt"]]', r"row 1 must be"),
        ('[["awe", 1, "a.jpg", "a.json"]]', r"row 1 must be"),
        ('[["awe", "awe_1", "a.jpg", "a.json", "x"]]', r"row 1 must be"),
        ("[3]", r"train\.json, row 1 must be"),
        ('[["amusment", "a.jpg", ""]]', r"train\.json, row 1: no emotion 'amusment' \(did you mean 'amusement'\?\)"),
    ],
)
def test_malformed_lists_are_named_with_the_row(content: str, message: str, build: Build) -> None:
    root = build("emoset")
    (root / "train.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read(str(root), False)


def test_rows_with_ids_are_read_as_those_without(build: Build, pack: Build) -> None:
    """As in the authors' README and reader. An id may look like a file name of an image."""
    root = build("emoset")
    expected = read(str(root), False)
    assert expected.notes == ("emoset: rows are [emotion, image, annotation]; annotations are not read",)
    for split in ("train", "val", "test"):
        (root / f"{split}.json").write_text(emoset_list(split, has_ids=True))
    for place, prefix in ((root, ""), (pack(root), "emoset/")):
        stimuli = read(str(place), False)
        assert [image.name for image in files(stimuli.images)] == [prefix + name for name in LAYOUTS["emoset"].images]
        assert stimuli.splits == expected.splits
        assert stimuli.labels[0].values.tolist() == expected.labels[0].values.tolist()
        assert stimuli.notes == ("emoset: rows are [emotion, id, image, annotation]; annotations are not read",)
    (root / "train.json").write_text(emoset_list("train", has_ids=True).replace('"awe_00001",', '"awe_00001.jpg",'))
    assert [image.name for image in files(read(str(root), False).images)] == list(LAYOUTS["emoset"].images)


def test_an_image_in_two_splits_is_named_with_both(build: Build) -> None:
    root = build("emoset")
    (root / "test.json").write_bytes((root / "train.json").read_bytes())
    with pytest.raises(UserError, match=r"test\.json, row 1: .* a second time, after .*train\.json, row 1"):
        read(str(root), False)


def test_info_may_be_absent_but_must_name_the_same_emotions(build: Build) -> None:
    root = build("emoset")
    info = json.loads(EMOSET_INFO)
    info["emotion"]["label2idx"].pop("awe")
    (root / "info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"info\.json, emotion\.label2idx: amusement, contentment, excitement"):
        read(str(root), False)
    (root / "info.json").write_text("{}")
    with pytest.raises(UserError, match=r"info\.json has no emotion\.label2idx"):
        read(str(root), False)
    (root / "info.json").unlink()
    assert len(read(str(root), False).images) == 4

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.stimuli.layouts import EMOSET_INFO
from emoreg.data.stimuli.emoset import read
from emoreg.errors import UserError

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
        ('[["awe"]]', r"train\.json, row 1 must be \[emotion, image, annotation\], not \[\"awe\"\]"),
        ('[["awe", 3, 4]]', r"train\.json, row 1 must be"),
        ("[3]", r"train\.json, row 1 must be"),
        ('[["amusment", "a.jpg", ""]]', r"train\.json, row 1: no emotion 'amusment' \(did you mean 'amusement'\?\)"),
    ],
)
def test_malformed_lists_are_named_with_the_row(content: str, message: str, build: Build) -> None:
    root = build("emoset")
    (root / "train.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read(str(root), False)


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
    with pytest.raises(UserError, match=r"info\.json, emotion\.label2idx: amusement, anger, contentment"):
        read(str(root), False)
    (root / "info.json").write_text("{}")
    with pytest.raises(UserError, match=r"info\.json has no emotion\.label2idx"):
        read(str(root), False)
    (root / "info.json").unlink()
    assert len(read(str(root), False).images) == 4

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.stimuli.layouts import OASIS
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.oasis import read
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]


def test_a_copy_in_windows_1252_is_read(build: Build, write_image: Build) -> None:
    root = build("oasis")
    (root / "OASIS.csv").write_bytes(OASIS.replace("Acorns 1,Object,Pixabay", "Café 1,Object,©Zoë").encode("cp1252"))
    write_image(root / "images" / "Café 1.jpg")
    assert files(read(str(root), False).images)[0].name == "images/Café 1.jpg"


def test_the_case_of_file_names_is_ignored_unless_that_is_ambiguous(build: Build, write_image: Build) -> None:
    root = build("oasis")
    (root / "images" / "Dog 6.jpg").rename(root / "images" / "dog 6.JPG")
    assert len(read(str(root), False).images) == 3
    write_image(root / "images" / "DOG 6.jpg")
    with pytest.raises(
        UserError, match=r"'images/Dog 6\.jpg' matches both 'images/DOG 6\.jpg' and 'images/dog 6\.JPG'"
    ):
        read(str(root), False)


def test_two_tables_are_refused_unless_one_is_deeper(build: Build) -> None:
    root = build("oasis")
    (root / "old").mkdir()
    (root / "old" / "OASIS.csv").write_text("something else")
    assert len(read(str(root), False).images) == 3
    (root / "oasis.CSV").write_text("something else")
    with pytest.raises(UserError, match=r"holds both OASIS\.csv and oasis\.CSV"):
        read(str(root), False)


def test_the_category_is_kept_as_the_neutral_label(build: Build) -> None:
    root = build("oasis")
    stimuli = read(str(root), False)
    assert [labels.space for labels in stimuli.labels] == [VALENCE_AROUSAL] and stimuli.neutral is not None
    assert stimuli.neutral.space == EmotionSpace("category", ("Animal", "Object", "Scene"))
    assert stimuli.neutral.values.tolist() == [1, 0, 2]
    (root / "images" / "Dog 6.jpg").unlink()
    left = read(str(root), True).neutral
    assert left is not None and left.space.names == ("Object", "Scene") and left.values.tolist() == [0, 1]


@pytest.mark.parametrize(("old", "new"), [("Category", "Kategorie"), ("Dog 6 ,Animal", "Dog 6 ,")])
def test_without_a_category_for_every_image_there_is_no_neutral_label(build: Build, old: str, new: str) -> None:
    root = build("oasis")
    (root / "OASIS.csv").write_bytes(OASIS.replace(old, new).encode())
    assert read(str(root), False).neutral is None

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.stimuli.layouts import OASIS
from emoreg.data.stimuli.oasis import read
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]


def test_a_copy_in_windows_1252_is_read(build: Build, write_image: Build) -> None:
    root = build("oasis")
    (root / "OASIS.csv").write_bytes(OASIS.replace("Acorns 1,Object,Pixabay", "Café 1,Object,©Zoë").encode("cp1252"))
    write_image(root / "images" / "Café 1.jpg")
    assert files(read(str(root), False).images)[0].name == "images/Café 1.jpg"


def test_letters_may_be_of_another_case_unless_that_is_ambiguous(build: Build, write_image: Build) -> None:
    root = build("oasis")
    (root / "images" / "Dog 6.jpg").rename(root / "images" / "dog 6.JPG")
    assert len(read(str(root), False).images) == 3
    write_image(root / "images" / "DOG 6.jpg")
    with pytest.raises(UserError, match=r"'images/Dog 6\.jpg' may be 'images/DOG 6\.jpg' or 'images/dog 6\.JPG'"):
        read(str(root), False)


def test_two_tables_are_one_too_many_but_the_topmost_counts(build: Build) -> None:
    root = build("oasis")
    (root / "old").mkdir()
    (root / "old" / "OASIS.csv").write_text("something else")
    assert len(read(str(root), False).images) == 3
    (root / "oasis.CSV").write_text("something else")
    with pytest.raises(UserError, match=r"holds both OASIS\.csv and oasis\.CSV"):
        read(str(root), False)

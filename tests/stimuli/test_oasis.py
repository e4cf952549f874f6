from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emoreg.errors import UserError
from emoreg.stimuli import oasis as reader

# As published: a leading column without a name, bare carriage returns, blanks behind a theme.
SHEET = (
    ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N\r"
    "I1,Acorns 1,Object,Pixabay,4.0,0.9,102,2.5,1.6,101\r"
    "I2,Dog 6 ,Animal,Pixabay,6.49,0.8,103,4.5,1.9,100\r"
    "I3,War 1,Scene,Wikipedia,1,0.7,104,7,1.7,99\r"
)


@pytest.fixture
def oasis(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    root = tmp_path / "oasis"
    for theme in ("Acorns 1", "Dog 6", "War 1"):
        write_image(root / "images" / f"{theme}.jpg")
    (root / "OASIS.csv").write_bytes(SHEET.encode())
    return root


def test_published_quirks_are_read_and_ratings_mapped(oasis: Path) -> None:
    table = read_oasis(str(oasis), skip_unreadable=False)
    assert [file.name for file in table.images] == ["images/Acorns 1.jpg", "images/Dog 6.jpg", "images/War 1.jpg"]
    np.testing.assert_allclose(table.labels, [[0, -0.5], [0.83, 1 / 6], [-1, 1]], atol=1e-6)
    assert table.labels.dtype == np.float32


def test_a_zip_serves_too(oasis: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        for file in oasis.rglob("*.*"):
            archive.write(file, f"oasis/{file.relative_to(oasis)}")
    assert len(read_oasis(str(tmp_path / "o.zip"), skip_unreadable=False)) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("6.49", "7.2", r"row 3: Valence_mean is '7\.2'; ratings go from 1 to 7"),
        (",2.5,", ",nan,", "row 2: Arousal_mean is 'nan'"),
        (",2.5,", ",,", "row 2: Arousal_mean is ''"),
        ("Arousal_mean", "Arousal_maen", r"no column 'Arousal_mean' \(did you mean 'Arousal_maen'\?\)"),
    ],
)
def test_bad_ratings_are_named_with_row_and_column(oasis: Path, old: str, new: str, message: str) -> None:
    (oasis / "OASIS.csv").write_bytes(SHEET.replace(old, new).encode())
    with pytest.raises(UserError, match=message):
        read_oasis(str(oasis), skip_unreadable=False)


def test_a_missing_image_stops_unless_asked_to_go_on(oasis: Path) -> None:
    (oasis / "images" / "Dog 6.jpg").unlink()
    with pytest.raises(UserError, match=r"OASIS\.csv, row 3: no image images/Dog 6\.jpg"):
        read_oasis(str(oasis), skip_unreadable=False)
    assert len(read_oasis(str(oasis), skip_unreadable=True)) == 2


def test_missing_root_and_missing_sheet_are_said(oasis: Path) -> None:
    with pytest.raises(UserError, match=r"stimuli\.root"):
        read_oasis(None, skip_unreadable=False)
    (oasis / "OASIS.csv").unlink()
    with pytest.raises(UserError, match=r"no OASIS\.csv"):
        read_oasis(str(oasis), skip_unreadable=False)

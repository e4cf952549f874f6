"""Tests that the reader of each set must pass: quirks of layouts, zips, and bad input, refused in one clear line."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from data.stimuli.layouts import LAYOUTS, file_of
from emoreg.data.stimuli import SETS
from emoreg.data.stimuli.emotion import EKMAN_6, EKMAN_6_NEUTRAL, MIKELS_8, VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]
WITH_SHEET = [name for name, layout in LAYOUTS.items() if layout.sheets]
CSV = [name for name in WITH_SHEET if name != "emoset"]
FOLDERS = [name for name in LAYOUTS if name not in WITH_SHEET]
CATEGORY_8 = EmotionSpace("category", MIKELS_8)


def read(name: str, root: Path | str | None, skip_missing: bool = False) -> Stimuli:
    stimuli = SETS[name][1](None if root is None else str(root), skip_missing)
    assert stimuli.name == name
    assert all(len(labels.values) == len(stimuli.images) for labels in stimuli.labels)
    return stimuli


def sheet_of(name: str, root: Path) -> Path:
    return root / next(iter(LAYOUTS[name].sheets))


def edit(name: str, root: Path, old: str, new: str) -> None:
    text = sheet_of(name, root).read_bytes().decode()
    assert old in text
    sheet_of(name, root).write_bytes(text.replace(old, new).encode())


def refusal(name: str, root: Path | str | None, skip_missing: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        read(name, root, skip_missing)
    line = str(caught.value)
    assert "\n" not in line
    return line


PUBLISHED: dict[str, list[tuple[EmotionSpace, Any]]] = {
    "abstract": [
        (EmotionSpace("votes", MIKELS_8), [[1, 0, 7, 2, 0, 1, 0, 3], [0, 4, 0, 0, 4, 0, 1, 0], [0] * 6 + [9, 5]])
    ],
    "artphoto": [(CATEGORY_8, [2, 3, 7])],
    "emotion6": [
        (
            EmotionSpace("votes", EKMAN_6_NEUTRAL),
            [[0.133333, 0.7, 0, 0.0666667, 0.1, 0, 0], [0, 0, 0, 0.4, 0, 0.2, 0.4], [0, 0, 0.8, 0, 0, 0.2, 0]],
        ),
        (VALENCE_AROUSAL, [[-0.625, -0.3], [1, 0], [-1, 1]]),
    ],
    "fi": [(CATEGORY_8, list(range(8)))],
    "emoset": [(CATEGORY_8, [2, 6, 3, 7])],
    "oasis": [(VALENCE_AROUSAL, [[0, -0.5], [0.83, 1 / 6], [-1, 1]])],
    "diffused_emod": [(CATEGORY_8, [2, 2, 6])],
    "emotion_folder": [(EmotionSpace("category", EKMAN_6), [5, 0, 3, 3])],
}
VOTES = [[0, 0, 3, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 4], [0, 0, 2, 0, 0, 0, 0, 2]]
PUBLISHED["emod"] = PUBLISHED["manifest"] = [
    (EmotionSpace("votes", MIKELS_8), VOTES),
    (CATEGORY_8, [2, 7, 2]),
    (VALENCE_AROUSAL, [[0.5, -0.25], [-1, 0], [0, 1]]),
]
SPLITS = {
    "emoset": ["train", "train", "validation", "test"],
    "emod": ["train", "validation", "test"],
    "manifest": ["train", "validation", "test"],
}


def test_every_set_has_a_layout_here() -> None:
    assert set(LAYOUTS) == set(SETS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_layout_parses_to_known_labels(name: str, build: Build, pack: Build) -> None:
    root = build(name)
    expected = {file_of(name, image) for image in LAYOUTS[name].images}
    for place, prefix in ((root, ""), (pack(root), f"{name}/")):
        stimuli = read(name, place)
        assert {image.name for image in files(stimuli.images)} == {prefix + image for image in expected}
        assert all(image.read() for image in files(stimuli.images))
        assert [labels.space for labels in stimuli.labels] == [space for space, _ in PUBLISHED[name]]
        for labels, (space, values) in zip(stimuli.labels, PUBLISHED[name], strict=True):
            np.testing.assert_allclose(labels.values, values, atol=1e-6)
            assert labels.values.dtype == (np.int64 if space.kind == "category" else np.float32)
        assert stimuli.splits == SPLITS.get(name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_files_are_ignored(name: str, build: Build, write_image: Build) -> None:
    root = build(name)
    before = read(name, root)
    (root / "README.txt").write_text("not a table")
    (root / file_of(name, LAYOUTS[name].images[0])).with_name("Thumbs.db").write_bytes(b"x")
    write_image(root / "__MACOSX" / "._awe_0001.jpg")
    if name in WITH_SHEET:
        write_image(root / "images" / "unlisted.jpg")
    assert [image.name for image in files(read(name, root).images)] == [image.name for image in files(before.images)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_set_without_root_or_files_is_refused(name: str, tmp_path: Path) -> None:
    assert "stimuli.root" in refusal(name, None)
    assert f"{tmp_path}/nowhere does not exist" in refusal(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty holds no " in refusal(name, tmp_path / "empty")
    (tmp_path / "text.zip").write_text("not a zip")
    assert "neither a folder nor a readable zip" in refusal(name, tmp_path / "text.zip")


@pytest.mark.parametrize("name", WITH_SHEET)
def test_a_missing_image_is_an_error_unless_it_is_skipped(name: str, build: Build) -> None:
    root = build(name)
    image = LAYOUTS[name].images[1]
    (root / file_of(name, image)).unlink()
    line = refusal(name, root)
    row = 2 if name == "emoset" else 3
    assert line.startswith(f"{sheet_of(name, root)}, row {row}: no image '{file_of(name, image)}'")
    stimuli = read(name, root, skip_missing=True)
    assert len(stimuli.images) == len(LAYOUTS[name].images) - 1
    assert list(stimuli.missing) == [f"{sheet_of(name, root)}, row {row}"]
    for other in LAYOUTS[name].images:
        (root / file_of(name, other)).unlink(missing_ok=True)
    assert f"holds no images of {name}" in refusal(name, root, skip_missing=True)


@pytest.mark.parametrize("name", WITH_SHEET)
def test_a_missing_table_is_named(name: str, build: Build) -> None:
    root = build(name)
    sheet_of(name, root).unlink()
    assert f"{root} holds no {sheet_of(name, root).name}" in refusal(name, root)


@pytest.mark.parametrize("name", CSV)
def test_a_table_without_rows_is_refused(name: str, build: Build) -> None:
    root = build(name)
    header = sheet_of(name, root).read_bytes().splitlines()[0]
    for content in (header + b"\n\n", b"", b"\n\n"):
        sheet_of(name, root).write_bytes(content)
        assert f"{sheet_of(name, root)} has no rows" in refusal(name, root)


@pytest.mark.parametrize("name", ["abstract", "emotion6", "oasis"])
def test_an_empty_line_above_the_header_is_not_called_a_table_without_rows(name: str, build: Build) -> None:
    root = build(name)
    sheet_of(name, root).write_bytes(b"\n" + sheet_of(name, root).read_bytes())
    assert f"{sheet_of(name, root)}: the header names no columns" in refusal(name, root)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("abstract", "'Awe'", "'Aw'"),
        ("emotion6", "[arousal]", "[arousl]"),
        ("emotion6", "prob. joy", "prob. joi"),
        ("oasis", "Valence_mean", "Valence_maen"),
        ("emod", "valence", "valance"),
        ("manifest", "path", "pathh"),
        ("diffused_emod", "emotion", "emotions"),
    ],
)
def test_a_wrong_header_is_named_with_the_nearest(name: str, old: str, new: str, build: Build) -> None:
    root = build(name)
    edit(name, root, old, new)
    line = refusal(name, root)
    assert line.startswith(f"{sheet_of(name, root)}: ") and "did you mean '" in line
    assert old.strip("[]'") in line and new.strip("[]'") in line


@pytest.mark.parametrize("name", CSV)
def test_a_row_of_another_length_is_named(name: str, build: Build) -> None:
    root = build(name)
    text = sheet_of(name, root).read_bytes().rstrip()
    sheet_of(name, root).write_bytes(text + (b"\t1" if name == "emotion6" else b",1"))
    assert line_has(refusal(name, root), f"{sheet_of(name, root)}, row 4: ", "fields, but the header has")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("abstract", ",1,0,7,2,0,1,0,3", ",0,0,0,0,0,0,0,0", "no votes at all"),
        ("abstract", ",1,0,7,", ",1,0,-7,", "Awe is '-7'; it must be a number 0 or more"),
        ("abstract", ",1,0,7,", ",1,0,inf,", "Awe is 'inf'"),
        ("abstract", ",1,0,7,", ",1,0,?,", "Awe is '?'"),
        ("emotion6", "0.133333\t0.7\t0\t0.0666667\t0.1", "0\t0\t0\t0\t0", "no votes at all"),
        ("emotion6", "\t2.5\t", "\tNaN\t", "valence is 'NaN'; it must be a number from 1 to 9"),
        ("emotion6", "\t3.8\t", "\t0.8\t", "arousal is '0.8'; it must be a number from 1 to 9"),
        ("oasis", ",4.0,", ",nan,", "Valence_mean is 'nan'; it must be a number from 1 to 7"),
        ("oasis", ",2.5,", ",7.2,", "Arousal_mean is '7.2'; it must be a number from 1 to 7"),
        ("oasis", ",2.5,", ",,", "Arousal_mean is empty; give every image a number"),
        *(
            (name, *change)
            for name in ("emod", "manifest")
            for change in (
                (",3,1,", ",0,0,", "no votes at all"),
                (",0.5,", ",nan,", "valence is 'nan'; it must be a number from -1 to 1"),
                (",0.5,", ",7,", "valence is '7'; it must be a number from -1 to 1; map the ratings to it first"),
                (",0.5,", ",,", "valence is empty; give every image a number"),
                ("a.jpg,awe", "a.jpg,", "no emotion ''"),
                (",train", ",trian", "no split 'trian' (did you mean 'train'?)"),
                ("images/a.jpg", "", "path is empty"),
            )
        ),
    ],
)
def test_bad_labels_are_named_with_file_row_and_column(
    name: str, old: str, new: str, message: str, build: Build
) -> None:
    root = build(name)
    edit(name, root, old, new)
    assert line_has(refusal(name, root), f"{sheet_of(name, root)}, row 2: {message}")


@pytest.mark.parametrize("name", WITH_SHEET)
def test_an_image_that_is_listed_twice_is_named_with_both_rows(name: str, build: Build) -> None:
    root = build(name)
    edit(name, root, LAYOUTS[name].images[1], LAYOUTS[name].images[0])
    first = 1 if name == "emoset" else 2
    line = refusal(name, root)
    assert line.startswith(f"{sheet_of(name, root)}, row {first + 1}: ")
    assert f"a second time, after {sheet_of(name, root)}, row {first}" in line


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_non_ascii_names_are_found_in_either_unicode_form(
    name: str, stored: Literal["NFC", "NFD"], build: Build, pack: Build
) -> None:
    """macOS stores names decomposed; tables are usually composed."""
    root = build(name)
    written: Literal["NFC", "NFD"] = "NFD" if stored == "NFC" else "NFC"
    old = LAYOUTS[name].images[0]
    new = Path(old).with_stem(f"{Path(old).stem}_Zoë 日本").as_posix()
    image = root / file_of(name, old)
    image.rename(root / unicodedata.normalize(stored, file_of(name, new)))
    if name in WITH_SHEET:
        edit(name, root, old, unicodedata.normalize(written, new))
    for place in (root, pack(root)):
        images = files(read(name, place).images)
        assert len(images) == len(LAYOUTS[name].images)
        assert any("日本" in image.name and image.read() for image in images)


@pytest.mark.parametrize("name", LAYOUTS)
def test_very_long_paths_are_read(name: str, build: Build, tmp_path: Path) -> None:
    root = build(name, where=tmp_path.joinpath(*("long" * 60 for _ in range(8))))
    assert len(str(root)) > 1900
    assert all(image.read() for image in files(read(name, root).images))


@pytest.mark.parametrize("name", WITH_SHEET)
def test_a_name_that_is_too_long_for_a_file_is_a_missing_image(name: str, build: Build) -> None:
    root = build(name)
    edit(name, root, LAYOUTS[name].images[0], f"{'x' * 5000}.jpg")
    assert "no image" in refusal(name, root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_zip_with_a_member_outside_it_is_refused(name: str, build: Build, pack: Build) -> None:
    member = f"../{LAYOUTS[name].images[0]}"
    path = pack(build(name), {member: b"evil"})
    assert line_has(refusal(name, path), str(path), f"'{member}'", "outside the zip")


@pytest.mark.parametrize("name", WITH_SHEET)
def test_a_row_of_a_zip_cannot_name_an_image_outside_it(name: str, build: Build, pack: Build) -> None:
    root = build(name)
    image = LAYOUTS[name].images[0]
    outside = f"../../{image}"
    (root.parent / file_of(name, image)).parent.mkdir(parents=True, exist_ok=True)
    (root.parent / file_of(name, image)).write_bytes(b"outside")
    edit(name, root, image, outside)
    line = refusal(name, pack(root))
    assert line_has(line, ", row ", "../") and ("no image" in line or "leaves the zip" in line)


def line_has(line: str, *parts: str) -> bool:
    return all(part in line for part in parts)

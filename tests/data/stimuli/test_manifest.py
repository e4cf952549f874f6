from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.stimuli.layouts import MANIFEST
from emoreg.data.stimuli.manifest import NAMED, read
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]


def rewrite(root: Path, suffix: str) -> Path:
    """Convert the manifest to another format, with numbers instead of text."""
    table = pd.read_csv(root / "manifest.csv")
    (root / "manifest.csv").unlink()
    if suffix == "parquet":
        table.to_parquet(root / "manifest.parquet")
    else:
        table.to_json(root / "manifest.jsonl", orient="records", lines=True)
    return root / f"manifest.{suffix}"


@pytest.fixture
def one(tmp_path: Path, write_image: Build) -> Callable[..., Path]:
    """A manifest of one row, in JSON Lines, and its image a.jpg."""

    def write(**row: Any) -> Path:
        write_image(tmp_path / "a.jpg")
        path = tmp_path / "list.jsonl"
        path.write_text(json.dumps({"path": "a.jpg"} | row))
        return path

    return write


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_json_lines_and_parquet_read_as_csv_does(suffix: str, build: Build, pack: Build) -> None:
    root = build("manifest")
    expected = read(str(root), False)
    names = [image.name for image in files(expected.images)]
    path = rewrite(root, suffix)
    for place in (root, path, pack(root)):
        stimuli = read(str(place), False)
        assert [image.name.removeprefix("manifest/") for image in files(stimuli.images)] == names
        assert stimuli.splits == expected.splits
        for found, known in zip(stimuli.labels, expected.labels, strict=True):
            assert found.space == known.space
            np.testing.assert_array_equal(found.values, known.values)


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("csv", "path\na.jpg\n", "has no labels"),
        ("csv", "file,emotion\na.jpg,awe\n", "no column 'path'"),
        ("csv", "path,emotion,Emotion\na.jpg,awe,awe\n", "row 2: 'Emotion' is a second column 'emotion'; keep one"),
        ("csv", "path,p_é,p_e\u0301\na.jpg,1,1\n", "the column 'p_é' occurs 2 times"),
        (
            "jsonl",
            '{"path": "a.jpg", "path": "b.jpg", "emotion": "awe"}',
            "row 1 is not JSON: the key 'path' occurs twice",
        ),
        ("jsonl", '{"path": "a.jpg", "emotion": ["joy"]}', 'row 1: emotion must be text, not ["joy"]'),
        ("jsonl", '{"path": "a.jpg", "emotion": {"a": 1}}', 'row 1: emotion must be text, not {"a": 1}'),
        ("jsonl", '{"path": "a.jpg", "emotion": true}', "row 1: emotion must be text, not true"),
        ("jsonl", '{"path": "a.jpg", "emotion": 1.0}', "row 1: emotion must be text, not 1.0"),
        ("jsonl", '{"path": ["a.jpg"], "emotion": "joy"}', 'row 1: path must be text, not ["a.jpg"]'),
        ("jsonl", '{"path": "a.jpg", "emotion": "joy", "split": 1}', "row 1: split must be text, not 1"),
        ("json", '[{"path": "a.jpg", "emotion": "joy"}, ["b.jpg"]]', "row 2 must be an object"),
        ("json", '{"path": {"0": "a.jpg"}, "emotion": {"0": "joy"}}', 'row 1: path must be text, not {"0": "a.jpg"}'),
        (
            "csv",
            "path,p_value\na.jpg,0.03\n",
            "has no labels: no emotion, p_<emotion>, valence, arousal or dominance ('p_v",
        ),
        (
            "csv",
            "path,p_joy,p_value\na.jpg,0.4,0.03\n",
            "'p_value': not a known emotion, and neither shares that sum",
        ),
        (
            "csv",
            "path,emotion\na.jpg,calm\nb.jpg,Calm\n",
            "elsewhere; spell the emotion in one way",
        ),
        ("csv", "path,emotion\na.jpg;awe\n", "row 2: 1 fields, but the header has 2"),
        ("csv", 'path,valence\na.jpg,"0,5"\n', "row 2: valence is '0,5'; it must be a number"),
        ("csv", "path;valence\na.jpg;1.000,5\n", "row 2: valence is '1.000,5'; it must be a number"),
        ("xlsx", "PK", "is not a manifest; save the table as one of .csv, .tsv, .txt, .json, .jsonl, .parquet"),
        ("yaml", "path: a.jpg", "is not a manifest; save the table as one of .csv"),
        ("csv", "path,path,emotion\na.jpg,a.jpg,awe\n", "the column 'path' occurs 2 times"),
        ("csv", 'path,emotion\n"a.jpg,awe\n', "line 2: not a table"),
        ("csv", "path,p_sad,p_sadness,p_awe\na.jpg,1,1,1", "'p_sad' and 'p_sadness' are the same emotion"),
        ("csv", "path,p_sad,p_amusment\na.jpg,1,1", "p_amusment: 'amusment' is not a known emotion"),
        ("csv", "path,emotion\na.jpg,awe\nb.jpg,amusment\n", "row 3: 'amusment' is not a known emotion"),
        ("csv", "path,valence,arousl\na.jpg,1,1", "unknown column 'arousl'; did you mean 'arousal'"),
        ("csv", "path,emotion,valence\na.jpg,,0.5\n", "row 2: no emotion ''"),
        ("jsonl", "", "has no rows"),
        ("jsonl", '{"path": "a.jpg", "emotion": "awe"\n', "row 1 is not JSON"),
        ("jsonl", '\n["a.jpg", "awe"]\n', "row 2 must be an object"),
        ("jsonl", '{"path": "a.jpg", "valence": NaN}', "row 1: valence is 'nan'"),
        ("jsonl", '{"path": "a.jpg", "valence": null}', "row 1: valence is empty; give every image a number"),
        ("jsonl", '{"path": "a.jpg", "valence": [1]}', "row 1: valence is '[1]'"),
        ("jsonl", '{"path": "a.jpg", "emotion": "awe"}\n{"path": "b.jpg"}', "row 2: no emotion ''"),
        ("jsonl", '{"path": "a\\nb.jpg", "emotion": "awe"}', "no image 'a\\nb.jpg'"),
        ("jsonl", '{"path": "a.jpg", "emotion": "of\\nmine"}', "row 1: an emotion is called 'of\\nmine'"),
        ("jsonl", '{"path": "a\\u0000b.jpg", "emotion": "awe"}', "no image 'a\\x00b.jpg'"),
        ("parquet", "not parquet", "is not Parquet"),
    ],
)
def test_a_malformed_manifest_is_named_in_one_line(
    suffix: str, content: str, message: str, tmp_path: Path, write_image: Build
) -> None:
    write_image(tmp_path / "a.jpg")
    path = tmp_path / f"manifest.{suffix}"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read(str(path), False)
    line = str(caught.value)
    assert str(path) in line and message in line and "\n" not in line


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "cp1252"])
def test_rows_of_json_in_another_encoding_than_utf_8_are_refused(suffix: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / f"manifest.{suffix}"
    path.write_bytes('{"path": "é.jpg", "emotion": "awe"}\n'.encode(encoding))
    with pytest.raises(UserError, match="row 1 is not JSON: 'utf-8' codec can't decode"):
        read(str(path), False)


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("name", ["manifest.csv", "manifest.txt", "manifest.tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_of_any_separator_and_encoding_are_read_and_the_separator_is_reported(
    separator: str, name: str, encoding: str, tmp_path: Path, write_image: Build
) -> None:
    write_image(tmp_path / "Zoë’s.jpg")
    half = "0.5" if separator == "," else "0,5"
    rows = [["emotion", "Path", "valence"], ["joy", "Zoë’s.jpg", half]]
    (tmp_path / name).write_bytes("\r\n".join(separator.join(row) for row in rows).encode(encoding))
    stimuli = read(str(tmp_path), False)
    category, valence = stimuli.labels
    assert files(stimuli.images)[0].name == "Zoë’s.jpg"
    assert category.space.names[int(category.values[0])] == "joy" and valence.values.tolist() == [[0.5]]
    assert [NAMED[separator] in note for note in stimuli.notes] == ([] if separator == "," else [True])


@pytest.mark.parametrize("above", ["sep=;\r\n", "\n\n", ";;\n  \n", "\ufeffsep=;\n"])
def test_lines_that_excel_writes_above_a_header_are_skipped(above: str, tmp_path: Path, write_image: Build) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "manifest.csv").write_text(f"{above}path;emotion\na.jpg;joy\nb.jpg;fear\n", encoding="utf-8")
    row = above.count("\n") + 3
    with pytest.raises(UserError, match=rf"row {row}: no image 'b\.jpg'"):
        read(str(tmp_path), False)
    assert len(read(str(tmp_path), True).images) == 1


def test_a_list_of_objects_is_read_like_json_lines(tmp_path: Path, write_image: Build) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "manifest.json").write_text('[\n {"path": "a.jpg", "emotion": "joy", "p_n": null}\n]')
    assert read(str(tmp_path), False).labels[0].values.tolist() == [3]


@pytest.mark.parametrize("column", ["p_value", "p_total", "p_n", "p_id", "p_"])
def test_a_column_that_is_not_an_emotion_is_ignored_and_reported(column: str, one: Callable[..., Path]) -> None:
    stimuli = read(str(one(valence=0.5, **{column: 1})), False)
    assert [labels.space.kind for labels in stimuli.labels] == ["dimensions"]
    assert [f"'{column}'" in note and note.endswith("ignored") for note in stimuli.notes] == [True]


@pytest.mark.parametrize(
    ("rows", "are_emotions"),
    [
        ([[0.25, 0.75], [1, 0]], True),
        ([[3, 9], [10, 2]], True),
        ([[1, 14], [2, 14], [3, 30]], False),
        ([[0.01, 0.3], [0.5, 0.5]], False),
        ([[-1, 2], [0, 1]], False),
        ([["", 1], [1, 0]], False),
    ],
)
def test_unknown_words_are_emotions_if_their_columns_are_shares_or_votes(
    rows: list[list[object]], are_emotions: bool, tmp_path: Path, write_image: Build
) -> None:
    lines = ["path,valence,p_calm,p_longing"]
    for number, row in enumerate(rows):
        write_image(tmp_path / f"{number}.jpg")
        lines.append(f"{number}.jpg,0.5,{row[0]},{row[1]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    stimuli = read(str(tmp_path), False)
    spaces = [labels.space.names for labels in stimuli.labels]
    assert spaces == ([("calm", "longing"), ("valence",)] if are_emotions else [("valence",)])
    assert len(stimuli.notes) == 1 and "p_longing" in stimuli.notes[0]


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("there", ["NFC", "NFD"])
def test_unicode_forms_of_names_and_the_case_of_paths_do_not_matter(
    written: Any, there: Any, tmp_path: Path, write_image: Build, pack: Build
) -> None:
    root = tmp_path / "set"
    write_image(root / unicodedata.normalize(there, "Fotos é") / unicodedata.normalize(there, "Zoë.JPG"))
    write_image(root / "b.jpg")
    path = unicodedata.normalize(written, "./fotos é\\zoë.jpg")
    sheet = (
        f"path,emotion\n{path},{unicodedata.normalize(written, 'née')}\nb.jpg,{unicodedata.normalize(there, 'née')}\n"
    )
    (root / "manifest.csv").write_text(sheet, encoding="utf-8")
    for place in (root, pack(root)):
        stimuli = read(str(place), False)
        assert len(stimuli.images) == 2 and stimuli.labels[0].space.names == ("née",)


def test_a_path_that_matches_two_files_is_refused(tmp_path: Path, write_image: Build) -> None:
    write_image(tmp_path / "A.jpg"), write_image(tmp_path / "a.JPG")
    if len(list(tmp_path.iterdir())) < 2:
        return  # a file system that ignores case
    (tmp_path / "manifest.csv").write_text("path,emotion\na.jpg,joy\n")
    with pytest.raises(UserError, match=r"row 2: 'a\.jpg' matches both "):
        read(str(tmp_path), False)


def test_other_columns_are_ignored(one: Callable[..., Path]) -> None:
    stimuli = read(str(one(valence=0.5, valence_n=12, prompt="valence", seed=3, image={"bytes": "x"})), False)
    assert [labels.space.names for labels in stimuli.labels] == [("valence",)]


def test_emotions_of_a_space_without_a_column_get_no_votes(one: Callable[..., Path]) -> None:
    votes = read(str(one(p_happy=0.25, p_fear=0.75)), False).labels[0]
    assert votes.space.names == ("anger", "disgust", "fear", "joy", "sadness", "surprise")
    np.testing.assert_array_equal(votes.values, [[0, 0, 0.75, 0.25, 0, 0]])


def test_emotions_of_no_known_space_are_kept_as_they_are(one: Callable[..., Path]) -> None:
    assert read(str(one(emotion="Nostalgia")), False).labels[0].space.names == ("Nostalgia",)


def test_paths_may_be_absolute_or_lead_upwards_on_disk_but_not_in_a_zip(
    tmp_path: Path, write_image: Build, pack: Build
) -> None:
    inside, outside = tmp_path / "set", write_image(tmp_path / "elsewhere" / "a.jpg")
    write_image(inside / "sub" / "b.jpg")
    sheet = inside / "manifest.csv"
    sheet.write_text(f"path,emotion\n{outside},awe\n./sub\\b.jpg,fear\n")
    stimuli = read(str(inside), False)
    assert [image.name for image in files(stimuli.images)] == ["a.jpg", "sub/b.jpg"]
    assert files(stimuli.images)[0].read() == outside.read_bytes()
    with pytest.raises(UserError, match=r"row 2: the path .* leaves the zip"):
        read(str(pack(inside)), False)
    sheet.write_text("path,emotion\n../elsewhere/a.jpg,awe\n")
    assert files(read(str(sheet), False).images)[0].read() == outside.read_bytes()
    sheet.write_text("path,emotion\nsub/b.jpg,awe\nsub/../sub/b.jpg,awe\n")
    with pytest.raises(UserError, match=r"row 3: .* a second time"):
        read(str(sheet), False)


def test_two_manifests_are_refused(build: Build) -> None:
    root = build("manifest")
    (root / "manifest.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"holds both manifest\.csv and manifest\.jsonl"):
        read(str(root), False)
    assert len(read(str(root / "manifest.csv"), False).images) == 3


def test_a_manifest_that_does_not_exist_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "manifest.csv", tmp_path / "nowhere" / "manifest.parquet"):
        with pytest.raises(UserError, match=f"cannot read .*{path.name}"):
            read(str(path), False)


def test_a_row_without_a_split_is_refused_if_others_have_one(build: Build) -> None:
    root = build("manifest")
    (root / "manifest.csv").write_text(MANIFEST.replace(",val\n", ",\n"))
    with pytest.raises(UserError, match=r"row 3: 'images/b\.jpg' is in no split, but other images are"):
        read(str(root), False)


def test_line_ends_within_quotes_and_unicode_separators_do_not_end_a_row(tmp_path: Path, write_image: Build) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "manifest.csv").write_bytes('note,path,emotion\r"a\rb\nc",a.jpg,awe\rx\u2028y,b.jpg,awe\r'.encode())
    with pytest.raises(UserError, match=r"row 3: no image 'b\.jpg'"):
        read(str(tmp_path), False)


def test_parquet_without_pyarrow_says_what_to_install(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rewrite(build("manifest"), "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="Parquet needs pyarrow: pip install pyarrow"):
        read(str(path), False)

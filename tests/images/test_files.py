from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from emoreg.errors import UserError
from emoreg.images import files
from emoreg.images.files import list_files


def test_folder_and_zip_list_and_read_alike(image_folder: Path, image_zip: Path) -> None:
    from_folder, from_zip = list_files(image_folder), list_files(image_zip)
    assert [f"flags/{file.name}" for file in from_folder] == [file.name for file in from_zip]
    assert [file.read() for file in from_folder] == [file.read() for file in from_zip]
    assert len(from_folder) == 32


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", ".DS_Store", "__MACOSX/a.png", "sub/.hidden/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in list_files(tmp_path)] == ["a.png"]


def test_missing_root_and_broken_zip_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_files(tmp_path / "nowhere")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=r"broken\.zip is neither a folder nor a readable zip"):
        list_files(tmp_path / "broken.zip")


def test_a_name_that_leaves_the_root_is_read_from_the_archive_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../secret.png", b"from the archive")
    before = sorted(tmp_path.rglob("*"))
    assert [file.read() for file in list_files(path)] in ([], [b"from the archive"])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_larger_than_the_limit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(100_000))
    with pytest.raises(UserError, match=r"zeros\.png is 100,000 bytes; the limit"):
        list_files(path)[0].read()

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from emoreg.errors import UserError
from emoreg.runtime import safe_io
from emoreg.runtime.safe_io import make_folder, read_bounded, read_json, write_atomically, write_json, writing


def test_a_file_is_read_up_to_the_limit_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bounded(tmp_path / "a", 4)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no file here that tells no size")
def test_a_file_larger_than_its_reported_size_is_read_up_to_the_limit() -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0 and b"VmPeak" in read_bounded(path)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_bounded(path, 10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_an_irregular_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "link", "endless"):
        with pytest.raises(OSError, match="not a regular file"):
            read_bounded(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path)


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "a.json")


def test_json_is_written_in_utf_8_with_lone_surrogates_escaped(tmp_path: Path) -> None:
    content = {"λ": 0.5, "image": "caf\udce9.jpg", "none": None}  # a file name in Latin-1, as Python sees it
    write_json(tmp_path / "a.json", content)
    assert "λ" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == content
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_two_processes_with_one_number_do_not_write_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = tmp_path / "table", os.fsync

    def while_another_writes(number: int) -> None:
        fsync(number)
        monkeypatch.setattr(os, "fsync", fsync)
        write_atomically(path, b"of the other")
        assert path.read_bytes() == b"of the other"

    monkeypatch.setattr(os, "fsync", while_another_writes)
    write_atomically(path, b"ours")
    assert path.read_bytes() == b"ours" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("platform", ["win32", "linux"])
def test_a_file_that_is_open_elsewhere_is_replaced_on_windows_once_it_is_closed(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, refused = Path.replace, [PermissionError(errno.EACCES, "Access is denied")] * 2

    def replace_if_closed(path: Path, target: Path) -> Path:
        if refused:
            raise refused.pop()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_if_closed)
    monkeypatch.setattr(safe_io, "sys", SimpleNamespace(platform=platform))
    if platform == "win32":
        write_atomically(tmp_path / "table", b"new")
        assert (tmp_path / "table").read_bytes() == b"new"
    else:
        with pytest.raises(PermissionError):
            write_atomically(tmp_path / "table", b"new")
        assert not any(tmp_path.iterdir()) and len(refused) == 1


def test_a_folder_is_created_with_its_parents_and_may_exist(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "c"):
        with pytest.raises(UserError, match="cannot create the run folder") as caught:
            make_folder(path, "run folder")
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write the table a/b: No space left on device; more"),
        (OSError("h5py has no error number"), "cannot write the table a/b: h5py has no error number; more"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "cannot write the table a/b: there is no folder a"),
    ],
)
def test_a_failed_write_is_an_error_with_the_reason(error: OSError, told: str) -> None:
    with pytest.raises(UserError) as caught, writing(Path("a/b"), "table", "more"):
        raise error
    assert str(caught.value) == told

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emoreg.data.targets import downloads
from emoreg.data.targets.downloads import is_downloading, open_or_download
from emoreg.errors import UserError


class Published:
    """A set that takes a moment to download, and does not notice that a download is unfinished."""

    def __init__(self, folder: Path) -> None:
        self.file, self.downloads, self.begun = folder / "images", 0, threading.Event()

    def __call__(self, download: bool) -> str:
        if download and not self.file.exists():
            self.downloads += 1
            self.file.write_text("some")
            self.begun.set()
            time.sleep(0.3)
            self.file.write_text("all")
        return self.file.read_text()


def test_a_set_is_downloaded_once_and_nobody_reads_it_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloads, "SILENT", 0.0)
    published = Published(tmp_path / "data")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(open_or_download, "svhn", tmp_path / "data", published)
        assert published.begun.wait(60)
        others = [pool.submit(open_or_download, "svhn", tmp_path / "data", published) for _ in range(2)]
        assert [each.result(60) for each in (first, *others)] == ["all"] * 3
    assert published.downloads == 1
    assert "svhn: waiting for process " in capsys.readouterr().err


def test_another_set_in_the_same_folder_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("all")
    begun, may_end = threading.Event(), threading.Event()

    def missing(download: bool) -> str:
        if not download:
            raise FileNotFoundError
        begun.set()
        assert may_end.wait(60)
        return "downloaded"

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(open_or_download, "places365", tmp_path, missing)
        assert begun.wait(60)
        assert is_downloading("places365", tmp_path) and not is_downloading("svhn", tmp_path)
        assert open_or_download("svhn", tmp_path, Published(tmp_path)) == "all" and not other.done()
        may_end.set()
        assert other.result(60) == "downloaded"


def test_a_set_that_is_there_is_opened_without_a_lock(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("all")
    assert open_or_download("svhn", tmp_path, Published(tmp_path)) == "all"
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_failed_download_leaves_no_folder_behind(tmp_path: Path) -> None:
    def offline(download: bool) -> None:
        raise UserError("no route to host" if download else "not here")

    with pytest.raises(UserError, match="no route to host"):
        open_or_download("svhn", tmp_path / "data", offline)
    assert not (tmp_path / "data").exists()


def test_in_a_folder_that_cannot_be_written_the_reason_is_why_the_set_cannot_be_opened(tmp_path: Path) -> None:
    def unreadable(download: bool) -> None:
        raise RuntimeError("h5py is not found")

    (tmp_path / "data").write_text("a file, which cannot become a folder")
    with pytest.raises(UserError, match=r"^h5py is not found; .*data"):
        open_or_download("pcam", tmp_path / "data", unreadable)


def test_what_an_interrupted_download_left_is_not_taken_for_the_whole_set(tmp_path: Path) -> None:
    published = Published(tmp_path)

    def interrupted(download: bool) -> str:
        if download:
            published.file.write_text("some")
            raise KeyboardInterrupt
        return published(download)

    with pytest.raises(KeyboardInterrupt):
        open_or_download("eurosat", tmp_path, interrupted)
    for _ in range(2):
        with pytest.raises(UserError, match=r"an earlier download of eurosat into .* was interrupted"):
            open_or_download("eurosat", tmp_path, published)
    published.file.unlink()
    shutil.rmtree(tmp_path / ".eurosat-download")
    assert open_or_download("eurosat", tmp_path, published) == "all"
    assert open_or_download("eurosat", tmp_path, published) == "all" and published.downloads == 1


def test_an_interrupted_download_of_which_nothing_can_be_opened_begins_anew(tmp_path: Path) -> None:
    def interrupted(download: bool) -> str:
        raise KeyboardInterrupt if download else FileNotFoundError

    with pytest.raises(KeyboardInterrupt):
        open_or_download("eurosat", tmp_path, interrupted)
    assert open_or_download("eurosat", tmp_path, Published(tmp_path)) == "all"

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emoreg.errors import UserError
from emoreg.runtime import lock
from emoreg.runtime.lock import FolderInUse, Holder, hold, hold_new, holder

# Locks the folder in its argument until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from emoreg.runtime.lock import Holder, hold, holder
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_locked_by_one_process_and_the_error_names_it(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(FolderInUse) as error, hold(tmp_path, patience=0):
        pass
    other.kill()
    other.wait()
    assert (error.value.folder, error.value.holder.process) == (tmp_path, other.pid)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    assert f"{tmp_path} is being worked on by process {other.pid} on " in str(error.value)


def test_a_link_in_the_place_of_the_holder_is_not_followed(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").write_text("precious")
    (folder := tmp_path / "of others").mkdir()
    (folder / lock.HOLDER).symlink_to(mine)
    with hold(folder):
        assert str(os.getpid()) in (folder / lock.HOLDER).read_text()
    assert mine.read_text() == "precious"


def test_a_query_of_the_holder_is_not_mistaken_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "MOMENT", 5.0)  # on a busy machine
    (tmp_path / lock.LOCK).touch()

    def ask(_: int) -> Holder | None:
        return holder(tmp_path)

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(ask, range(300))) == {None}


def test_the_holder_of_a_folder_can_be_queried_without_locking_it(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    found = holder(tmp_path)
    assert found is not None and found.process == other.pid and found.is_here
    (tmp_path / ".holder.json").write_text('{"process": 7, "host": "elsewhere", "since": "today"}')
    assert holder(tmp_path) == Holder(7, "elsewhere", "today") != found and not Holder(7, "elsewhere").is_here
    other.kill()
    other.wait()
    assert holder(tmp_path) is None and holder(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()


def test_a_process_that_is_killed_leaves_no_lock_behind(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with hold(tmp_path, patience=0):
        assert str(os.getpid()) in (tmp_path / ".holder.json").read_text()
    assert not (tmp_path / ".holder.json").exists()


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    begun = time.monotonic()
    with hold(tmp_path):
        assert time.monotonic() - begun < 4


def test_the_message_works_for_an_unknown_holder(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    (tmp_path / ".holder.json").write_text("{")
    with pytest.raises(UserError, match="is being worked on by another process; wait"), hold(tmp_path, patience=0):
        pass
    other.kill()
    other.wait()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write in .*file: "), hold(tmp_path / "file"):
        pass


def test_only_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.123.part").touch()
    for name in ("checkpoint.pt", "mine.part", ".hidden"):
        (tmp_path / name).touch()
    with hold(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} >= {"checkpoint.pt", "mine.part", ".hidden"}
        assert not list(tmp_path.glob(".*.part"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_is_killed_leaves_no_lock_to_its_children(tmp_path: Path) -> None:
    """Such as workers that decode images, which notice only after seconds that they are orphans."""
    forking = HOLDER.replace("    print", "    import os\n    child = os.fork()\n    print", 1)
    forking = forking.replace('"held"', '"held" if child else "child"')
    process = subprocess.Popen([sys.executable, "-c", forking, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    words = process.stdout.readline() + process.stdout.readline()  # from two processes, whose lines may be interleaved
    assert "held" in words and "child" in words
    process.kill()
    process.wait()
    with hold(tmp_path, patience=1):
        pass


def test_a_failed_start_keeps_only_folders_that_existed_or_are_not_empty(tmp_path: Path) -> None:
    for path, kept, more in (("a/b", ".", ""), ("c", ".", ""), ("d/e", "d/e", "result"), ("d/f", "d", "")):
        with pytest.raises(ZeroDivisionError), hold_new(tmp_path / path):
            if more:
                (tmp_path / path / more).touch()
            raise ZeroDivisionError
        assert (tmp_path / kept).is_dir() and (kept == path or not (tmp_path / path).exists())
    with (
        pytest.raises(UserError, match="cannot create the run folder"),
        hold_new(tmp_path / "g" / ("n" * 300), "run folder"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    with hold_new(tmp_path / "h"):
        pass
    assert (tmp_path / "h").is_dir()

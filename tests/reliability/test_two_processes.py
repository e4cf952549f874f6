"""Of two processes with the same run or study, one works and the other is refused with the process id of the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emoreg.runs.run import Run
from reliability.kill import CLASSIFIER, STUDY

SOURCE = Path(__file__).parents[2] / "src"
LONG = "epochs: 5000"
pytestmark = pytest.mark.thorough


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start emoreg in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "emoreg", *arguments, "--quiet"],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def assert_refused(other: subprocess.Popen[str], folder: str, holder: subprocess.Popen[str]) -> None:
    _, stderr = other.communicate(timeout=300)
    assert other.returncode == 2
    assert stderr.startswith(f"emoreg: {folder} is being worked on by process {holder.pid} on ")
    assert stderr.endswith("; wait for it to end, or choose another folder\n") and stderr.count("\n") == 1


def test_a_second_process_cannot_train_the_same_run_and_changes_nothing(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(CLASSIFIER.replace("epochs: 6", LONG))
    (tmp_path / "other.yaml").write_text(CLASSIFIER.replace("epochs: 6", LONG).replace("lr: 0.05", "lr: 0.01"))
    folder = tmp_path / "run"
    first = start("train", "recipe.yaml", "--out", "run")
    wait_for(folder / ".holder.json", first)  # nothing is saved yet, so without the lock the recipe could be replaced
    recipe = folder / "recipe.yaml"
    wait_for(recipe, first)
    before = recipe.read_bytes()
    assert_refused(start("train", "other.yaml", "--out", "run"), "run", first)
    assert recipe.read_bytes() == before and first.poll() is None
    wait_for(folder / "metrics.csv", first)
    first.kill()  # the files of its lock remain
    first.wait()
    assert (folder / ".lock").exists() and (folder / ".holder.json").exists()
    sessions = len(Run(folder).environment)
    again = start("train", "recipe.yaml", "--out", "run")
    deadline = time.monotonic() + 300
    while len(Run(folder).environment) == sessions:
        assert again.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_process_cannot_replace_a_study_that_is_running(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("epochs: 2", LONG))
    (tmp_path / "other.yaml").write_text(STUDY.replace("experiences: [affect]", "modes: []"))
    folder = tmp_path / "out"
    first = start("study", "study.yaml", "--out", "out", "--jobs", "2")
    wait_for(folder / "study.yaml", first)
    before = (folder / "study.yaml").read_bytes()
    assert_refused(start("study", "other.yaml", "--out", "out"), "out", first)
    assert (folder / "study.yaml").read_bytes() == before
    first.send_signal(signal.SIGTERM)
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == 143 and stderr == "emoreg: stopped by a signal; run the same command again to resume\n"
    assert not (folder / "failures.json").exists()

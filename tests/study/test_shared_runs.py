"""Runs that another study is doing in a shared folder of runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emoreg.stages.classify
import emoreg.stages.pretrain
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.runtime.lock import HOLDER, FolderInUse, holder
from emoreg.runtime.progress import Progress
from emoreg.study import shared_runs
from emoreg.study.columns import RunStatus
from emoreg.study.definition import Study
from emoreg.study.machine import Machine
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.run_one import Job, RunOutcome
from emoreg.study.run_study import run_study
from emoreg.study.scheduler import execute
from emoreg.study.shared_runs import SharedRuns
from listening import Listening
from study_arms import BACKBONE, LEARNED

HOLDING = """
import sys
from pathlib import Path
from emoreg.runtime.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_runs, "CHECKED_EVERY", 0.02)


@pytest.fixture
def holding() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Return a function that starts a process which holds a run's folder until it is ended or killed."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(parents=True)
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders of the runs that were done here, in order."""
    names: list[str] = []

    def finish(recipe: TrainRecipe, out: Path, progress: Progress) -> None:
        if not (out / "final.json").exists():
            names.append(out.name)
            finished(out)

    monkeypatch.setattr(emoreg.stages.classify, "train", finish)
    return names


def finished(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "final.json").write_text(json.dumps({"test": {"accuracy": 0.5}, "seconds": 1.0, "images": {}}))


def runs_of(study: Study, folder: Path) -> list[PlannedRun]:
    return plan_runs(dataclasses.replace(study, arms=(BACKBONE,), seeds=2), folder)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["finished", "killed"])
def test_a_run_that_another_study_is_doing_is_waited_for_after_the_others(
    how: str,
    tiny_study: Study,
    tmp_path: Path,
    holding: Callable[[Path], subprocess.Popen[str]],
    done: list[str],
) -> None:
    """The run is used if the other process finishes it, and resumed here if that process dies."""
    elsewhere, here = runs_of(tiny_study, tmp_path / "runs")
    other = holding(elsewhere.folder)

    class UntilWaited(Listening):
        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("waiting for"):
                assert done == [here.folder.name]
                if how == "finished":
                    finished(elsewhere.folder)
                other.kill()
                other.wait()

    listening = UntilWaited()
    study = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=2)
    table = run_study(study, tmp_path / "out", tmp_path / "runs", progress=listening)
    assert table.status.tolist() == ["finished"] * 2 and table.error.isna().all()
    assert done == [here.folder.name] + ([elsewhere.folder.name] if how == "killed" else [])
    lines = [line for line in listening.lines if "elsewhere" in line or "waiting" in line]
    assert lines[0].startswith(f"{elsewhere.name}: is being done elsewhere, by process {other.pid} on ")
    assert lines[1].startswith(f"waiting for {elsewhere.name}, which is being done by process {other.pid}")
    assert (
        "Ctrl-C stops waiting" in lines[1] and len(lines) == 2 and not any("failed" in line for line in listening.lines)
    )
    assert not (tmp_path / "out" / "failures.json").exists()


@pytest.mark.usefixtures("quick")
def test_a_stage_1_run_that_another_study_is_doing_does_not_block_its_arms(
    tiny_study: Study,
    tmp_path: Path,
    holding: Callable[[Path], subprocess.Popen[str]],
    done: list[str],
) -> None:
    study = dataclasses.replace(tiny_study, arms=(LEARNED, BACKBONE), seeds=1)
    planned = plan_runs(study, tmp_path / "runs")
    stage_1 = next(run for run in planned if run.mode is None)
    other = holding(stage_1.folder)

    class Finishing(Listening):
        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("waiting for") and other.poll() is None:
                finished(stage_1.folder)
                other.kill()
                other.wait()

    pool = Immediate()
    assert execute(planned, tmp_path, pool, Finishing()) == {}
    assert [run.mode for run in pool.runs if isinstance(run, PlannedRun)] == ["none", None, "learned"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_under_way", [False, True], ids=["finished", "under way"])
def test_a_run_that_another_study_has_started_under_another_name_is_not_repeated(
    is_under_way: bool,
    tiny_study: Study,
    tmp_path: Path,
    holding: Callable[[Path], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = dataclasses.replace(tiny_study, arms=(BACKBONE, LEARNED), seeds=1)
    (point,) = study.grid
    sets = tuple(dataclasses.replace(each, label="other") for each in point.stimuli)
    others = dataclasses.replace(study, grid=(dataclasses.replace(point, stimuli=sets),))
    encoder = next(run for run in plan_runs(others, tmp_path / "runs") if run.mode is None).folder
    processes, done = list[subprocess.Popen[str]](), list[tuple[str, str | None]]()

    def do(recipe: TrainRecipe | PretrainRecipe, out: Path, progress: Progress) -> None:
        if (other := holder(out)) is not None:
            raise FolderInUse(out, other)
        if not (out / "final.json").exists():
            done.append((out.name, recipe.encoder.experience if isinstance(recipe, TrainRecipe) else None))
            finished(out)
        if not encoder.exists():  # while the first run is done here
            if is_under_way:
                processes.append(holding(encoder))
            else:
                finished(encoder)

    class UntilWaited(Listening):
        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("waiting for"):
                finished(encoder)
                processes[0].kill()
                processes[0].wait()

    monkeypatch.setattr(emoreg.stages.classify, "train", do)
    monkeypatch.setattr(emoreg.stages.pretrain, "pretrain", do)
    listening = UntilWaited()
    table = run_study(study, tmp_path / "out", tmp_path / "runs", progress=listening).set_index("mode", drop=False)
    assert table.status.tolist() == ["finished"] * 3
    learned = next(run for run in plan_runs(study, tmp_path / "runs") if run.mode == "learned").folder
    assert done[1:] == [(learned.name, str(encoder))] and len(list((tmp_path / "runs").iterdir())) == 3
    assert table[table.stage == 1].folder.tolist() == [encoder.name]
    assert not (tmp_path / "out" / "failures.json").exists()


class Immediate:
    """A pool with room for all runs, in which each finishes at once."""

    size = sys.maxsize

    def __init__(self) -> None:
        self.runs: list[Job] = []
        self.new: list[Job] = []

    def start(self, run: Job) -> None:
        self.runs.append(run)
        self.new.append(run)

    def wait(self) -> list[RunOutcome]:
        ended, self.new = self.new, []
        for run in ended:
            finished(run.folder)
        return [RunOutcome(run, RunStatus.FINISHED) for run in ended]

    def machine(self) -> Machine:
        return Machine()

    def close(self) -> None:
        """Do nothing: no run is in progress."""


@pytest.mark.usefixtures("quick")
def test_waiting_for_another_machine_says_what_to_do_if_it_is_gone(
    tiny_study: Study, tmp_path: Path, holding: Callable[[Path], subprocess.Popen[str]]
) -> None:
    one, two = runs_of(tiny_study, tmp_path / "runs")
    holding(one.folder)
    (one.folder / HOLDER).write_text(json.dumps({"process": 7, "host": "node12", "since": "2026-01-01"}))
    listening = Listening()
    shared = SharedRuns(listening)
    assert list(shared.free([one, two], 1)) == [two]
    shared.wait([one])
    shared.wait([one])  # not reported again so soon
    assert listening.lines == [
        f"{one.name}: is being done elsewhere, by process 7 on node12 since 2026-01-01; the others come first",
        f"waiting for {one.name}, which is being done by process 7 on node12 since 2026-01-01; if it is gone for good, "
        f"delete {one.folder / '.lock'}; Ctrl-C stops waiting, and the same command continues later",
    ]

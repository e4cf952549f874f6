from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pandas as pd
import pytest

from emoreg.cli.main import main
from emoreg.config.recipe import TrainRecipe
from emoreg.runs.run import CHECKPOINT
from emoreg.runtime.cores import allowed_cores
from emoreg.runtime.main_module import GUARD
from emoreg.runtime.progress import Progress
from emoreg.study import local_pool, run_study
from emoreg.study.definition import Study
from emoreg.study.local_pool import LocalPool
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.scheduler import execute
from listening import Listening
from misbehaving import misbehaving
from refusing import refusal
from study_arms import BACKBONE

SOURCE = Path(__file__).parents[2] / "src"
STUDY = """\
edition: 2
modes: [learned]
experiences: [affect]
references: [backbone]
seeds: 1
pretraining:
  stimuli: {name: procedural, count: 40}
  training: {epochs: 25, batch_size: 16, device: cpu, precision: 32-true}
classifier:
  target: {name: digits, image_size: 8, limit: 64}
  backbone: {name: resnet8}
  optimizer: {lr: 0.05}
  training: {epochs: 25, batch_size: 16, device: cpu, precision: 32-true}
"""


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise TimeoutError if a study hangs. On a busy machine a worker that ends by itself may need long."""
    monkeypatch.setattr(local_pool, "ENDING", 60.0)

    def late(*_: object) -> None:
        raise TimeoutError("the study does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(
    ("how", "jobs", "error"),
    [
        ("raises", 2, "the loss is not finite"),
        ("exits", 2, "SystemExit: 3"),
        ("exits at once", 2, "its process ended with exit code 3"),
        ("is killed", 2, "its process was killed by signal 9 (out of memory?)"),
        ("crashes", 1, "its process was killed by signal 11"),
        ("is stopped", 1, "its process was stopped by a signal"),
    ],
)
def test_if_a_stage_1_run_fails_in_any_way_the_study_still_ends_with_table_report_and_exit_code_1(
    how: str,
    jobs: int,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last run is busy; the remaining runs need it."""

    def planned(study: Study, runs: Path) -> list[PlannedRun]:
        return [misbehaving(run, how) if run.mode is None else run for run in plan_runs(study, runs)]

    (tmp_path / "study.yaml").write_text(STUDY.replace("epochs: 25", "epochs: 1"))
    monkeypatch.setattr(run_study, "plan_runs", planned)
    command = ["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--jobs", str(jobs), "--quiet"]
    assert main(command) == 1
    table = pd.read_parquet(tmp_path / "out" / "results.parquet").fillna({"mode": "stage 1"}).set_index("mode")
    assert table.status.to_dict() == {"none": "finished", "stage 1": "failed", "learned": "blocked"}
    assert table.error["stage 1"] == error and (tmp_path / "out" / "report.html").exists()
    assert f"seed0: {error}\nemoreg: 1 of 3 runs failed" in capsys.readouterr().err


@pytest.mark.usefixtures("in_time")
def test_lines_and_notes_on_images_of_a_worker_are_printed_by_the_main_process(
    tiny_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    assert isinstance(run.recipe, TrainRecipe)
    target = dataclasses.replace(run.recipe.target, label_noise="symmetric", noise_share=0.5)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, target=target))
    progress = Progress(every=0)
    with contextlib.closing(LocalPool(2, progress)) as pool:
        assert execute([run], tmp_path, pool, progress) == {}
    printed = capsys.readouterr().err
    assert "training labels are wrong" in printed and f"{run.name}: validation accuracy" in printed


def test_a_quiet_study_prints_warnings_of_its_workers_and_images_that_are_left_out(
    quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = multiprocessing.Pipe()
    in_worker = local_pool._Reporting(theirs, is_quiet=True)
    in_worker.say("a line")
    in_worker.warn("a warning")
    in_worker.report_notes(["a note"], ["left out: 3 images"])
    worker = object.__new__(local_pool._Worker)
    while ours.poll():
        worker._show(ours.recv(), quiet)
    assert capsys.readouterr().err == "a warning\nleft out: 3 images\n"


@pytest.mark.usefixtures("in_time")
def test_a_worker_that_would_start_the_script_again_is_not_a_failed_run(
    tiny_study: Study, tmp_path: Path, quiet: Progress
) -> None:
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    with contextlib.closing(LocalPool(2, quiet)) as pool:
        shown = refusal(lambda: execute([misbehaving(run, "imports a script without a guard")], tmp_path, pool, quiet))
    assert shown == GUARD and not (tmp_path / "failures.json").exists()


def test_a_study_ends_when_no_process_can_be_started(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(local_pool, "_Worker", too_many)
    table = run_study.run_study(tiny_study, tmp_path, jobs=2, progress=quiet)
    assert set(table.status) == {"failed", "blocked"}
    assert "no process can be started for it: Resource temporarily unavailable" in set(table.error)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("how", ["leaves a thread", "blocks the exit"])
def test_a_worker_that_does_not_end_does_not_block_the_study(
    how: str, tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "ENDING", 0.5)
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    with contextlib.closing(LocalPool(2, quiet)) as pool:
        assert execute([misbehaving(run, how)], tmp_path, pool, quiet) == {}
        (worker,) = pool.workers
        start = time.monotonic()
    assert time.monotonic() - start < 60 and worker.process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("platform", "told"), [("win32", "ending 1 runs, which resume"), ("linux", "saving 1 runs")])
def test_runs_are_said_to_be_saved_only_where_they_get_signals(
    platform: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "sys", SimpleNamespace(platform=platform))
    listening, worker = Listening(), MagicMock()
    worker.process.is_alive.return_value = False
    pool = LocalPool(2, listening)
    pool.workers.append(worker)
    pool.close()
    assert any(told in line for line in listening.lines)


@pytest.mark.usefixtures("in_time")
def test_a_run_that_ignores_signals_does_not_block_stopping_the_study(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_pool, "ENDING", 0.5)
    monkeypatch.setattr(local_pool, "SAVING", 0.5)
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    with contextlib.closing(LocalPool(2, Progress())) as pool:
        pool.start(misbehaving(run, "ignores signals"))
        shown = ""
        while "deaf" not in shown:
            assert pool.wait() == []
            shown += capsys.readouterr().err
        (worker,) = pool.workers
        start = time.monotonic()
    assert time.monotonic() - start < 60 and worker.process.exitcode == -signal.SIGKILL


@pytest.mark.usefixtures("in_time")
def test_a_worker_has_the_environment_of_its_own_study(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of this process's first study, when the fork server was started."""
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    for value in ("one", "two"):
        monkeypatch.setenv("EMOREG_TEST", value)
        listening = Listening()
        with contextlib.closing(LocalPool(2, listening)) as pool:
            pool.start(misbehaving(run, "tells its environment"))
            while not pool.wait():
                pass
        assert f"told: {value}" in listening.lines


@pytest.mark.usefixtures("in_time")
def test_each_worker_has_a_gpu_and_the_replacement_of_a_dead_worker_gets_its_gpu(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[str]()

    @contextlib.contextmanager
    def two_gpus(processes: int, _: Progress) -> Iterator[list[dict[str, str]]]:
        yield [{"EMOREG_TEST": f"GPU {number}"} for number in range(processes)]
        given.append("taken back")

    monkeypatch.setattr(local_pool, "shared_gpus", two_gpus)
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    listening = Listening()
    with contextlib.closing(LocalPool(2, listening)) as pool:

        def done(*ways: str) -> list[str]:
            for way in ways:
                pool.start(misbehaving(run, way))
            ended = 0
            while ended < len(ways):
                ended += len(pool.wait())
            lines, listening.lines = sorted(listening.lines), []
            return lines

        assert done("tells its environment", "tells its environment") == ["told: GPU 0", "told: GPU 1"]
        assert done("is killed", "tells its environment") == ["told: GPU 1"]
        assert done("tells its environment", "tells its environment") == ["told: GPU 0", "told: GPU 1"]
        assert not given
    assert given == ["taken back"]


@pytest.mark.usefixtures("in_time")
def test_after_an_unexpected_error_the_next_run_has_a_new_process(
    tiny_study: Study, tmp_path: Path, quiet: Progress
) -> None:
    """An error of CUDA makes every further call of its process fail."""
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    with contextlib.closing(LocalPool(2, quiet)) as pool:

        def worker_of(how: str) -> BaseProcess:
            pool.start(misbehaving(run, how))
            (worker,) = pool.workers
            while not pool.wait():
                pass
            return worker.process

        first, same, other = worker_of("raises"), worker_of("exits"), worker_of("raises")
        assert first is same is not other
        assert first.exitcode == 0  # it has ended by itself, and was not killed


def test_a_study_whose_process_group_gets_two_signals_reports_once_and_resumes_to_the_same_table(
    tmp_path: Path, quiet: Progress
) -> None:
    """As schedulers and `timeout` do: workers get the signal from them and from the main process."""
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    jobs = max(2, allowed_cores())  # so that a worker has one thread, like this process
    process = subprocess.Popen(
        [sys.executable, "-m", "emoreg", "study", str(file), "--out", str(tmp_path / "out"), "--jobs", str(jobs)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(f"out/runs/*/{CHECKPOINT}")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    _, shown = process.communicate(timeout=120)
    assert process.returncode == 143
    assert shown.endswith("emoreg: stopped by a signal; run the same command again to resume\n")
    assert "Traceback" not in shown and "FAILED" not in shown and not (tmp_path / "out" / "failures.json").exists()
    assert list(tmp_path.glob(f"out/runs/*/{CHECKPOINT}"))

    study = read_study(file)
    resumed, whole = (measured(run_study.run_study(study, tmp_path / out, progress=quiet)) for out in ("out", "whole"))
    assert resumed["env.sessions"].max() == 2  # of the stopped run; the other worker may just have been starting
    pd.testing.assert_frame_equal(resumed.drop(columns="env.sessions"), whole.drop(columns="env.sessions"))


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that depend neither on time nor on paths."""
    clocks = ("seconds", "images_per_second", "env.started", "env.command", "folder", "recipe.encoder.experience")
    return table[[name for name in table if str(name).removeprefix("epochs.") not in clocks]]


def test_preloaded_imports_do_not_initialise_cuda() -> None:
    """Once initialised, CUDA cannot be used in forks of the process."""
    code = """
import sys, torch
def refuse(*_): raise AssertionError("CUDA is used")
torch.cuda.is_available = torch.cuda.device_count = torch._C._cuda_getDeviceCount = refuse
from emoreg.study import preloaded
assert not torch.cuda.is_initialized()
missing = [name for name in (*preloaded.NAMES, "lightning_fabric") if name not in sys.modules]
assert not missing, missing
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=True)

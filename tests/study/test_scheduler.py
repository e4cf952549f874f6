from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import emoreg.stages.classify
import emoreg.stages.pretrain
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.errors import Diverged, UserError
from emoreg.runs.run import DIVERGED, claim_run
from emoreg.runtime.lock import FolderInUse, Holder
from emoreg.runtime.progress import Advance, Progress
from emoreg.study.columns import RunStatus
from emoreg.study.definition import Study
from emoreg.study.local_pool import LocalPool
from emoreg.study.plan import plan_runs
from emoreg.study.run_study import run_study
from emoreg.study.scheduler import InTurn, execute, recorded_failures
from emoreg.training.launch import RunContext
from listening import Listening
from study_arms import BACKBONE, LEARNED


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_exits_has_failed_and_does_not_end_the_study(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoreg.stages.pretrain, "pretrain", lambda *_, **__: sys.exit(3))
    table = run_study(dataclasses.replace(tiny_study, arms=(LEARNED,)), tmp_path, progress=quiet)
    assert table.error.tolist()[0] == "SystemExit: 3"
    assert table.status.tolist() == ["failed", "blocked"] * 2


def test_a_run_that_another_study_has_just_started_is_tried_again_after_the_others(
    tiny_study: Study, failing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, train = Listening(), emoreg.stages.classify.train

    def in_use_at_first(recipe: TrainRecipe, out: Path, progress: Progress) -> None:
        is_first = not any(name.startswith("digits") for name in failing)
        if is_first:
            failing.append(out.name.rpartition("-")[0])
            raise FolderInUse(out, Holder(7, "here", "today"))
        train(recipe, out, progress=progress)

    monkeypatch.setattr(emoreg.stages.classify, "train", in_use_at_first)
    study = dataclasses.replace(tiny_study, arms=(BACKBONE, LEARNED), seeds=1)
    assert (run_study(study, tmp_path, progress=listening).status == "finished").all()
    assert [name.split("-")[2] for name in failing if name.startswith("digits")] == ["backbone", "learned", "backbone"]
    assert not (tmp_path / "failures.json").exists()


def test_a_study_trains_every_run_once_and_finds_it_again(tiny_study: Study, tmp_path: Path, quiet: Progress) -> None:
    table = run_study(tiny_study, tmp_path, progress=quiet)
    assert (table.status == "finished").all() and len(table) == 2 * (3 + 2)
    arms = table[table.stage == 2]
    assert arms.fillna({"experience": "none"}).groupby(["mode", "experience"]).seed.apply(list).to_dict() == {
        ("none", "none"): [0, 1],
        ("learned", "affect"): [0, 1],
        ("learned", "shuffled"): [0, 1],
    }
    before = times(tmp_path / "runs")
    fewer = dataclasses.replace(tiny_study, arms=(LEARNED, BACKBONE))
    assert run_study(fewer, tmp_path / "fewer", tmp_path / "runs", progress=quiet).shape[0] == 6
    assert times(tmp_path / "runs") == before


def test_runs_are_shared_between_studies_that_share_their_folder(
    tiny_study: Study, tmp_path: Path, quiet: Progress
) -> None:
    one = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1)
    run_study(one, tmp_path / "one", tmp_path / "pool", progress=quiet)
    before = times(tmp_path / "pool")
    run_study(one, tmp_path / "two", tmp_path / "pool", progress=quiet)
    assert times(tmp_path / "pool") == before and not (tmp_path / "two" / "runs").exists()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tiny_study: Study) -> list[str]:
    """Names of the runs that were tried. The pretext shuffled and the backbone with seed 1 fail."""
    tried: list[str] = []

    def stage_1(recipe: PretrainRecipe, out: Path, progress: Progress) -> None:
        tried.append(out.name.rpartition("-")[0])
        if recipe.pretext == "shuffled":
            raise UserError("the stimuli are not there")
        done(out, {"test": None, "validation": {"ccc": 0.3}, "seconds": 1.0, "images": 3})

    def stage_2(recipe: TrainRecipe, out: Path, progress: Progress) -> None:
        tried.append(out.name.rpartition("-")[0])
        if recipe.regulation.mode == "none" and recipe.seed == 1:
            raise RuntimeError("of a library,\nin two lines")
        done(out, {"test": {"accuracy": 0.5}, "seconds": 1.0, "images": {"train": 3}, "lambda": None})

    def done(out: Path, final: dict[str, object]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "final.json").write_text(json.dumps(final))

    monkeypatch.setattr(emoreg.stages.pretrain, "pretrain", stage_1)
    monkeypatch.setattr(emoreg.stages.classify, "train", stage_2)
    return tried


def test_a_failed_run_is_recorded_and_the_others_continue(
    tiny_study: Study, failing: list[str], tmp_path: Path
) -> None:
    listening = Listening()
    table = run_study(tiny_study, tmp_path, progress=listening)
    by_name = table.set_index("run")
    assert by_name.status.value_counts().to_dict() == {"finished": 5, "failed": 3, "blocked": 2}
    assert by_name.error["digits-resnet8-backbone-seed1"] == "RuntimeError: of a library, in two lines"
    assert by_name.error["pretraining-resnet8-procedural-shuffled-seed0"] == "the stimuli are not there"
    assert by_name.error["digits-resnet8-learned-shuffled-procedural-seed0"].startswith("not run, as the stage-1 run")
    assert "digits-resnet8-learned-affect-procedural-seed1" in failing  # after the failures
    assert (
        sum("FAILED" in line for line in listening.lines) == 3
        and sum("BLOCKED" in line for line in listening.lines) == 2
    )
    failures = json.loads((tmp_path / "failures.json").read_text())
    assert any("Traceback" in failure["traceback"] for failure in failures.values())


def test_a_failed_run_is_tried_again_and_its_record_removed_on_success(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(tiny_study, tmp_path, progress=quiet)
    planned = plan_runs(tiny_study, tmp_path / "runs")
    assert len(recorded_failures(planned, tmp_path)) == 5
    succeed = emoreg.stages.classify.train
    monkeypatch.setattr(
        emoreg.stages.pretrain,
        "pretrain",
        lambda r, out, progress: succeed(dataclasses.replace(TrainRecipe(), seed=7), out, progress),
    )
    failing.clear()
    assert set(execute(planned, tmp_path, InTurn(quiet), quiet)) == {
        run.id for run in planned if "backbone-seed1" in run.name
    }
    assert len(failing) == 5  # the three that failed, and the two that waited for them
    (left,) = recorded_failures(planned, tmp_path).values()
    assert left.status is RunStatus.FAILED and left.error == "RuntimeError: of a library, in two lines"


def diverging(started: list[str]) -> Callable[[Recipe, Path, Progress], None]:
    """Replace both stages by runs that diverge, and return their names."""

    def diverge(recipe: Recipe, out: Path, progress: Progress) -> None:
        started.append(out.name.rpartition("-")[0])
        with claim_run(out, recipe, progress):
            raise Diverged("the loss is not finite")

    return diverge


def test_a_classifier_that_diverged_is_repeated_only_without_its_folder(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoreg.stages.classify, "train", diverging(failing))
    study = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1)
    assert run_study(study, tmp_path, progress=quiet).status.tolist() == ["diverged"]
    assert run_study(study, tmp_path, progress=quiet).status.tolist() == ["diverged"]
    assert failing == ["digits-resnet8-backbone-seed0"]
    (folder,) = (tmp_path / "runs").iterdir()
    shutil.rmtree(folder)
    assert recorded_failures(plan_runs(study, tmp_path / "runs"), tmp_path) == {}  # it is waiting
    assert run_study(study, tmp_path, progress=quiet).status.tolist() == ["diverged"]
    assert len(failing) == 2


def test_a_study_that_shares_runs_with_one_in_which_a_run_diverged_does_not_train_it(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoreg.stages.classify, "train", diverging(failing))
    study, runs = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs"
    one, other = (run_study(study, tmp_path / name, runs, progress=quiet) for name in ("one", "other"))
    assert one.status.tolist() == other.status.tolist() == ["diverged"] and len(failing) == 1
    assert one.error.tolist() == other.error.tolist() and "the loss is not finite" in one.error[0]


def test_a_damaged_record_of_a_divergence_fails_only_its_run(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress
) -> None:
    study = dataclasses.replace(tiny_study, arms=(BACKBONE,))
    damaged = plan_runs(study, tmp_path / "runs")[0].folder
    damaged.mkdir(parents=True)
    (damaged / DIVERGED).write_text("{")
    table = run_study(study, tmp_path, progress=quiet)
    assert table.status.tolist() == ["failed", "failed"] and failing == ["digits-resnet8-backbone-seed1"]
    assert "diverged.json is damaged" in table.error[0]


def test_an_encoder_that_diverged_blocks_its_arms_and_is_repeated_only_without_its_folder(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def diverge(context: RunContext[PretrainRecipe], given: object) -> None:
        started.append(context.run.folder.name)
        raise Diverged("the loss is not finite")

    monkeypatch.setattr(emoreg.stages.pretrain, "_pretrain", diverge)
    study = dataclasses.replace(tiny_study, arms=(LEARNED,), seeds=1)
    for _ in range(2):
        assert run_study(study, tmp_path, progress=quiet).status.tolist() == ["diverged", "blocked"]
    assert len(started) == 1
    shutil.rmtree(tmp_path / "runs" / started[0])
    assert run_study(study, tmp_path, progress=quiet).status.tolist() == ["diverged", "blocked"]
    assert len(started) == 2


def test_records_of_failures_have_a_status_and_those_of_the_first_edition_are_read_without(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress
) -> None:
    run_study(tiny_study, tmp_path, progress=quiet)
    planned = plan_runs(tiny_study, tmp_path / "runs")
    before = recorded_failures(planned, tmp_path)
    records = json.loads((tmp_path / "failures.json").read_text())
    assert {key: record["status"] for key, record in records.items()} == {
        key: str(outcome.status) for key, outcome in before.items()
    }
    for record in records.values():
        del record["status"]
    (tmp_path / "failures.json").write_text(json.dumps(records))
    assert recorded_failures(planned, tmp_path) == before
    for record in records.values():
        record["status"] = "lost"
    (tmp_path / "failures.json").write_text(json.dumps(records))
    assert recorded_failures(planned, tmp_path) == {}


def test_a_divergence_that_only_an_earlier_emoreg_recorded_is_not_a_result(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress
) -> None:
    study = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1)
    (run,) = plan_runs(study, tmp_path / "runs")
    record = {"run": run.name, "status": "diverged", "error": "the loss is not finite", "traceback": ""}
    (tmp_path / "failures.json").write_text(json.dumps({run.id: record}))
    assert recorded_failures([run], tmp_path) == {}  # it is waiting
    assert run_study(study, tmp_path, progress=quiet).status.tolist() == ["finished"]
    assert failing == ["digits-resnet8-backbone-seed0"]


def test_a_damaged_failures_json_is_ignored(
    tiny_study: Study, failing: list[str], tmp_path: Path, quiet: Progress
) -> None:
    (tmp_path / "failures.json").write_text("{")
    assert (run_study(tiny_study, tmp_path, progress=quiet).status == "finished").sum() == 5


def test_an_interrupt_is_not_a_failure(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(emoreg.stages.classify, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(tiny_study, tmp_path, progress=quiet)
    assert not (tmp_path / "failures.json").exists()


def _workers() -> list[BaseProcess]:
    """The study's processes, without those that the data loader of another test may have left behind."""
    started = ForkServerProcess if sys.platform == "linux" else SpawnProcess
    return [process for process in multiprocessing.active_children() if isinstance(process, started)]


class Killer(Listening):
    """Kills the process of the first run that trains."""

    victim: str | None = None

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        if self.victim is None and description.startswith("train"):
            self.victim = description.removeprefix("train ")
            pid = _workers()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        yield lambda more: None


@pytest.mark.thorough
def test_parallel_runs_complete_even_if_one_process_dies(tiny_study: Study, tmp_path: Path) -> None:
    study = dataclasses.replace(tiny_study, arms=(BACKBONE, LEARNED), seeds=2)
    killer = Killer()
    planned = plan_runs(study, tmp_path / "runs")
    with contextlib.closing(LocalPool(2, killer)) as pool:
        failures = execute(planned, tmp_path, pool, killer)
    dead = [failure.run for failure in failures.values() if failure.status is RunStatus.FAILED]
    if not dead:
        pytest.skip("the run was done before the signal came: this machine is too busy")
    assert [failures[run.id].error for run in dead] == ["its process was killed by signal 9 (out of memory?)"]
    blocked = {run.id for run in planned if run.needs == dead[0].id}
    assert set(failures) == {dead[0].id} | blocked
    assert all(run.run.is_finished for run in planned if run.id not in failures)
    assert not _workers()


class KillerOfTheIdle(Listening):
    """Kills all processes when the first run is done, when they are all idle."""

    def say(self, line: str) -> None:
        super().say(line)
        if len(self.lines) == 1:
            for process in _workers():
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                process.join()


@pytest.mark.thorough
def test_an_idle_process_that_dies_is_replaced(tiny_study: Study, tmp_path: Path) -> None:
    study = dataclasses.replace(tiny_study, arms=(LEARNED,), seeds=1)  # its second run waits for the first
    killer = KillerOfTheIdle()
    with contextlib.closing(LocalPool(2, killer)) as pool:
        assert execute(plan_runs(study, tmp_path / "runs"), tmp_path, pool, killer) == {}
    assert len([line for line in killer.lines if "seed0: " in line]) == 2


def test_deleting_the_folder_of_a_finished_run_does_not_stop_the_others(
    tiny_study: Study, failing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, train = Listening(), emoreg.stages.classify.train

    def deleted(recipe: TrainRecipe, out: Path, progress: Progress) -> None:
        if recipe.regulation.mode == "none" and recipe.seed == 0:
            failing.append(out.name.rpartition("-")[0])
        else:
            train(recipe, out, progress=progress)

    monkeypatch.setattr(emoreg.stages.classify, "train", deleted)
    table = run_study(tiny_study, tmp_path, progress=listening)
    assert any("backbone-seed0" in line and "there is no run folder" in line for line in listening.lines)
    assert "digits-resnet8-learned-affect-procedural-seed1" in failing
    assert table.status.value_counts().to_dict() == {"finished": 4, "failed": 3, "blocked": 2, "waiting": 1}

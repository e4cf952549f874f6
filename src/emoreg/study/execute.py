"""Doing the runs of a plan, one after the other or several at a time. One that fails does not stop the rest."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.errors import UserError
from emoreg.progress import Advance, Progress
from emoreg.reading import read_json
from emoreg.run import write_atomically
from emoreg.settings import PretrainRecipe
from emoreg.stopping import heed_requests
from emoreg.study.plan import PlannedRun

if TYPE_CHECKING:
    from emoreg.study.on_ray import Ray

FAILURES = "failures.json"


def execute(
    planned: Sequence[PlannedRun], out: Path, jobs: int, progress: Progress, ray: Ray | None = None
) -> dict[str, str]:
    """Do all runs that are not finished.

    Args:
        planned: of `plan_runs`.
        out: the study's folder, where failures are recorded with their traceback.
        jobs: how many at a time. More than one are processes of their own, which share the cores evenly.
        progress: one view of all.
        ray: the cluster that does them, in place of this machine.

    Returns:
        What went wrong, by the run's id: its error, or that the run it needs has failed.
    """
    failures = _Failures(out)
    finished = {run.id for run in planned if run.run.is_finished}
    waiting = [run for run in planned if run.id not in finished]
    total, left = (sum(run.branches for run in runs) for runs in (planned, waiting))
    if ray is not None:
        from emoreg.study.on_ray import on_ray

        ends = on_ray(waiting, finished, progress, ray)
    else:
        ends = (_in_turn if jobs == 1 else _side_by_side)(waiting, finished, jobs, progress)
    with progress.task("all runs", total, "units", total - left) as advance, contextlib.closing(ends):
        for run, error, trace in ends:
            if error is None:
                finished.add(run.id)
                progress.say(_told(run))
            else:
                progress.say(f"{run.name}: FAILED: {error}")
            failures.record(run, error, trace)
            advance(run.branches)
    return failures.errors(planned)


class _Failures:
    """What went wrong in a study's folder, kept until the run is finished after all."""

    def __init__(self, out: Path) -> None:
        self.path = out / FAILURES
        self.found: dict[str, dict[str, str]] = {}
        with contextlib.suppress(OSError, TypeError, ValueError):  # damaged, it loses nothing: those are tried again
            found = dict(read_json(self.path))
            self.found = {
                known: failure
                for known, failure in found.items()
                if isinstance(failure, dict) and isinstance(failure.get("error"), str)
            }

    def record(self, run: PlannedRun, error: str | None, trace: str) -> None:
        before = dict(self.found)
        self.found.pop(run.id, None)
        if error is not None:
            self.found[run.id] = {"run": run.name, "error": error, "traceback": trace}
        if self.found != before:
            with contextlib.suppress(OSError):  # a disk that is full is told by the runs that need it
                write_atomically(self.path, (json.dumps(self.found, indent=2, ensure_ascii=False) + "\n").encode())

    def errors(self, planned: Sequence[PlannedRun]) -> dict[str, str]:
        open_runs = {run.id: run for run in planned if not run.run.is_finished}
        return {known: self.found[known]["error"] for known in open_runs if known in self.found}


def recorded_failures(planned: Sequence[PlannedRun], out: Path) -> dict[str, str]:
    """What went wrong when a study was last run, by the run's id."""
    return _Failures(out).errors(planned)


Done = tuple[PlannedRun, str | None, str]  # a run, its error if it has one, and the traceback


def blocked(run: PlannedRun) -> Done:
    """The end of a run that was not begun."""
    return run, "not run, as the stage-1 run that it needs has failed", ""


def _in_turn(
    waiting: Sequence[PlannedRun], finished: set[str], jobs: int, progress: Progress
) -> Generator[Done, None, None]:
    for run in waiting:
        if run.needs is None or run.needs in finished:
            yield run, *perform(run, progress)
        else:
            yield blocked(run)


def perform(run: PlannedRun, progress: Progress) -> tuple[str | None, str]:
    """Do one run. Its error in one line, None if there is none, and the traceback."""
    from emoreg.classification import train
    from emoreg.experience import pretrain

    try:
        if isinstance(run.recipe, PretrainRecipe):
            pretrain(run.recipe, run.folder, progress=progress)
        else:
            train(run.recipe, run.folder, progress=progress)
    except UserError as error:
        return str(error), ""
    except OSError as error:
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", traceback.format_exc()
    except Exception as error:  # whatever it is, the other runs go on; the traceback is kept
        return " ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc()
    return None, ""


def _told(planned: PlannedRun) -> str:
    try:
        final = planned.run.final
    except UserError as error:  # its folder was deleted just now; the other runs go on
        return f"{planned.name}: {error}"
    measured = final.get("test") or final.get("validation") or {}
    told = ", ".join(f"{key} {value:.4f}" for key in ("accuracy", "ccc") if (value := measured.get(key)) is not None)
    return f"{planned.name}: {told}, {final.get('seconds') or 0:.0f} s"


class _Worker:
    """A process that does runs, one after the other, and tells how far it is."""

    def __init__(self, context: Any, threads: int) -> None:
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, threads), daemon=True)
        self.process.start()
        there.close()
        self.run: PlannedRun | None = None
        self.tasks: dict[int, tuple[contextlib.ExitStack, Advance]] = {}

    def start(self, run: PlannedRun) -> None:
        self.run = run
        with contextlib.suppress(OSError):  # a process that has died just now: `receive` tells
            self.connection.send(run)

    def stop(self) -> None:
        for stack, _ in self.tasks.values():
            stack.close()
        self.process.terminate()  # it saves where it is
        self.process.join()
        self.connection.close()

    def receive(self, progress: Progress) -> tuple[str | None, str] | None:
        """Take one message: show progress, or give the end of the run."""
        try:
            kind, *content = self.connection.recv()
        except (EOFError, OSError):  # the process has ended without a word
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with exit code {code}"
            return f"its process {how}", ""
        if kind == "done":
            return content[0], content[1]
        if kind == "say":
            progress.say(content[0])
        elif kind == "task":
            key, *task = content
            stack = contextlib.ExitStack()
            self.tasks[key] = stack, stack.enter_context(progress.task(*task))
        elif kind == "advance":
            self.tasks[content[0]][1](content[1])
        elif kind == "end":
            self.tasks.pop(content[0])[0].close()
        return None


def _side_by_side(
    waiting: Sequence[PlannedRun], finished: set[str], jobs: int, progress: Progress
) -> Generator[Done, None, None]:
    context = multiprocessing.get_context("spawn")  # a forked CUDA context or thread pool does not work
    threads = max(1, (os.cpu_count() or 1) // jobs)
    todo, failed = list(waiting), set[str]()
    workers = [_Worker(context, threads) for _ in range(min(jobs, len(todo)))]
    try:
        while todo or any(worker.run for worker in workers):
            for run in [run for run in todo if run.needs in failed]:
                todo.remove(run)
                yield blocked(run)
            for place, worker in enumerate(workers):
                ready = next((run for run in todo if run.needs is None or run.needs in finished), None)
                if worker.run is None and ready is not None:
                    if not worker.process.is_alive():  # killed in a run, or while it had none
                        worker.stop()
                        workers[place] = _Worker(context, threads)
                    todo.remove(ready)
                    workers[place].start(ready)
            busy = {worker.connection: worker for worker in workers if worker.run is not None}
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker = busy[connection]
                end = worker.receive(progress)
                if end is None or worker.run is None:
                    continue
                run, worker.run = worker.run, None
                if end[0] is None:
                    finished.add(run.id)
                else:
                    failed.add(run.id)
                yield run, *end
    finally:
        for worker in workers:
            worker.stop()


def _work(connection: Connection, threads: int) -> None:
    """The life of a worker. It ends with the main process, however that ends."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    heed_requests()  # the main process ends its workers by SIGTERM
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            run = connection.recv()
            connection.send(("done", *perform(run, _Reporting(connection))))


def _end_with_parent() -> None:
    """At once: an orphan would hold its run, which the next start of the study wants."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Reporting(Progress):
    """Progress that is shown by the main process."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(details=False)
        self.connection, self.count = connection, 0

    def say(self, line: str) -> None:
        self.connection.send(("say", line))

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        key = self.count = self.count + 1
        self.connection.send(("task", key, description, total, unit, done))
        waiting, last = 0, time.monotonic()

        def advance(more: int) -> None:
            nonlocal waiting, last
            waiting += more
            if time.monotonic() - last >= 0.2:
                self.connection.send(("advance", key, waiting))
                waiting, last = 0, time.monotonic()

        yield advance
        with contextlib.suppress(OSError):
            self.connection.send(("advance", key, waiting))
            self.connection.send(("end", key))

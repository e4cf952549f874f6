"""Doing the runs of a plan several at a time on this machine, in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from emoreg.runtime.progress import Advance, Progress
from emoreg.runtime.signals import heed_requests
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import Done, blocked, perform


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


def side_by_side(
    waiting: Sequence[PlannedRun], finished: set[str], jobs: int, progress: Progress
) -> Generator[Done, None, None]:
    """Do `jobs` runs at a time, each after the one that it needs, in processes that share the cores evenly."""
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

"""Run several jobs of a plan at a time on this machine, in processes that share its cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import NamedTuple, TypeAlias

from emoreg.errors import UserError
from emoreg.runtime.cores import take_part, usable_cores
from emoreg.runtime.gpus import shared_gpus
from emoreg.runtime.main_module import GUARD, NO_GUARD, shared, without_guard
from emoreg.runtime.progress import Advance, Progress
from emoreg.runtime.signals import (
    Stopped,
    end_with_parent,
    heed_requests,
    ignore_requests,
    requests_held,
    take_held_requests,
)
from emoreg.study.columns import RunStatus
from emoreg.study.machine import Machine, this_machine
from emoreg.study.reports import Forwarding, Line, Notes
from emoreg.study.run_one import Job, RunOutcome, perform

# Seconds that workers have to end, and to save their run first: both a step and a checkpoint may take long.
ENDING, SAVING = 5.0, 60.0
STOPPED = 143  # exit code of a worker that was stopped by a signal, as of the command
CHECKED_EVERY = 1.0  # seconds between checks for dead workers: child processes may keep the pipe of one open


class _TaskStarted(NamedTuple):
    """A worker starts a task; `key` numbers the tasks of a worker."""

    key: int
    description: str
    total: int
    unit: str
    done: int


class _TaskAdvanced(NamedTuple):
    """A worker has done more units of a task."""

    key: int
    more: int


class _TaskEnded(NamedTuple):
    """A worker ends a task."""

    key: int


_Message: TypeAlias = Line | Notes | _TaskStarted | _TaskAdvanced | _TaskEnded


class LocalPool:
    """A pool of worker processes, started as they are needed. One that dies, or whose job raised an error, is replaced.

    Args:
        size: jobs at a time; each worker gets an equal share of the cores and of the memory that this process may use,
            and one of its GPUs. With 1, the worker may start further processes, for a run on several devices.
        progress: shows the tasks and lines of all workers.
    """

    def __init__(self, size: int, progress: Progress) -> None:
        self.size, self.progress, self.workers = size, progress, list[_Worker]()
        self.not_started = list[RunOutcome]()  # jobs for which no process could be started
        if (note := without_guard()) is not None:
            progress.say(note)
        self.closing, self.gpus = contextlib.ExitStack(), list[Mapping[str, str]]()  # for the workers' environments

    def start(self, run: Job) -> None:
        """Give a job to an idle worker, or to a new one."""
        self.gpus = self.gpus or self.closing.enter_context(shared_gpus(self.size, self.progress))
        self.workers = [worker for worker in self.workers if worker.run or worker.process.is_alive()]
        worker = next((worker for worker in self.workers if worker.run is None), None)
        if worker is None:
            try:
                place = min(set(range(self.size)) - {worker.place for worker in self.workers})
                worker = _Worker(place, self.size, self.gpus[place], self.progress.quiet or self.progress.is_showing)
            except OSError as error:  # out of memory or of processes
                reason = f"no process can be started for it: {error.strerror or error}"
                self.not_started.append(RunOutcome(run, RunStatus.FAILED, reason))
                return
            self.workers.append(worker)
        worker.start(run)

    def wait(self) -> list[RunOutcome]:
        """Show progress, and return the jobs that have ended.

        Raises:
            UserError: each worker would start the study again, as the calling script has no main guard.
        """
        if self.not_started:
            return [self.not_started.pop()]
        busy = [worker for worker in self.workers if worker.run is not None]
        ready = wait([worker.connection for worker in busy], CHECKED_EVERY)
        changed = [worker for worker in busy if worker.connection in ready or not worker.process.is_alive()]
        outcomes = [worker.receive(self.progress) for worker in changed]
        return [outcome for outcome in outcomes if outcome is not None]

    def machine(self) -> Machine:
        """Return this machine."""
        return this_machine()

    def close(self) -> None:
        """End all workers: idle ones by a message, busy ones by SIGTERM, on which they save their run; then by SIGKILL.

        On Windows SIGTERM ends them at once. Each step has a deadline, so that a worker that hangs does not block the
        study.
        """
        try:
            busy = [worker for worker in self.workers if worker.run is not None]
            if busy:
                if sys.platform == "win32":  # where a process can be ended, but gets no signal
                    self.progress.say(f"ending {len(busy)} runs, which resume from their last epoch")
                else:
                    self.progress.say(f"saving {len(busy)} runs where they are; Ctrl-C again ends them at once")
            for worker in self.workers:
                worker.ask_to_end()
            alive = _alive_after(ENDING, [worker for worker in self.workers if worker not in busy])
            alive += _alive_after(SAVING, busy)
            for worker in alive:
                worker.process.terminate()
            for worker in _alive_after(ENDING, alive):
                if worker.run is not None:
                    self.progress.say(f"{worker.run.name} could not be saved in time; it resumes from its last epoch")
        finally:  # at once on Ctrl-C
            for worker in self.workers:
                worker.close()
            _alive_after(ENDING, self.workers)
            self.closing.close()


class _Worker:
    """A process that does jobs, one after the other; `place` numbers it among those that share the machine."""

    def __init__(self, place: int, sharers: int, gpu: Mapping[str, str], is_quiet: bool) -> None:
        import torch

        self.place = place
        threads = max(1, torch.get_num_threads() // sharers)  # PyTorch may count two hardware threads as one
        environment = {**os.environ, **gpu}
        with _start_method() as context:
            self.connection, theirs = context.Pipe()
            arguments = theirs, environment, sharers, threads, is_quiet
            self.process = context.Process(target=_work, args=arguments, daemon=sharers > 1)
            self.process.start()
        theirs.close()
        self.run: Job | None = None
        self.tasks: dict[int, tuple[contextlib.ExitStack, Advance]] = {}

    def start(self, run: Job) -> None:
        self.run = run
        with contextlib.suppress(OSError):  # the process has just died: `receive` reports it
            self.connection.send(run)

    def receive(self, progress: Progress) -> RunOutcome | None:
        """Handle one message of the worker, or its death. Return the outcome if its job has ended."""
        assert self.run is not None
        try:
            message = self.connection.recv() if self.connection.poll() else self._died(self.run)
        except (EOFError, OSError):
            message = self._died(self.run)
        if isinstance(message, RunOutcome):
            self.run = None
            self._close_tasks()
            if message.traceback:  # the process is ending, and takes no further job
                self._end()
            return message
        self._show(message, progress)
        return None

    def _show(self, message: _Message, progress: Progress) -> None:
        match message:
            case Line() | Notes():
                message.show(progress)
            case _TaskStarted(key, description, total, unit, done):
                stack = contextlib.ExitStack()
                self.tasks[key] = stack, stack.enter_context(progress.task(description, total, unit, done))
            case _TaskAdvanced(key, more):
                self.tasks[key][1](more)
            case _TaskEnded(key):
                self.tasks.pop(key)[0].close()

    def _end(self) -> int | None:
        """Wait for the process to end, or kill it. Return its own exit code; None if it hung."""
        self.process.join(ENDING)
        code = self.process.exitcode
        self.process.kill()
        self.process.join(ENDING)
        return code

    def _died(self, run: Job) -> RunOutcome:
        code = self._end()
        if code is None:  # the process has closed the pipe and hangs
            how = "no longer answers"
        elif code == NO_GUARD:
            raise UserError(GUARD)
        elif code == STOPPED:
            how = "was stopped by a signal"
        elif code < 0:
            why = " (out of memory?)" if -code == 9 else ""  # SIGKILL; Windows has no constant for it
            how = f"was killed by signal {-code}{why}"
        else:
            how = f"ended with exit code {code}"
        return RunOutcome(run, RunStatus.FAILED, f"its process {how}")

    def ask_to_end(self) -> None:
        """Ask an idle worker by a message; send a busy one, which does not listen, a signal, on which it saves."""
        if self.run is not None:
            self.process.terminate()
        else:
            with contextlib.suppress(OSError):
                self.connection.send(None)

    def close(self) -> None:
        self._close_tasks()
        self.process.kill()
        self.connection.close()

    def _close_tasks(self) -> None:
        for stack, _ in self.tasks.values():
            stack.close()
        self.tasks.clear()


def _alive_after(seconds: float, workers: Sequence[_Worker]) -> list[_Worker]:
    """Wait for workers to end, and return those that have not after these seconds."""
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    return [worker for worker in workers if worker.process.is_alive()]


@contextlib.contextmanager
def _start_method() -> Iterator[SpawnContext | ForkServerContext]:
    """Yield the multiprocessing context to start workers with.

    A fork of this process could not use threads or the GPU, and a new Python imports for seconds, longer than a short
    run takes. So on Linux workers are forked from a server process that has only imported what runs need. Other systems
    have no forks, or libraries that do not survive one.
    """
    with shared():
        if sys.platform == "linux":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["emoreg.study.preloaded"])
            resource_tracker.ensure_running()  # outside requests_held, because it unblocks signals while it starts
            with requests_held():  # the fork server inherits this, as it has to outlive its workers
                forkserver.ensure_running()
            yield context
        else:
            with requests_held():
                yield multiprocessing.get_context("spawn")


def _work(connection: Connection, environment: Mapping[str, str], sharers: int, threads: int, is_quiet: bool) -> None:
    """Do jobs until the connection sends None, or one raises an error that does not explain itself.

    Such an error, as of CUDA, may leave the process in a state in which every further job fails. The worker ends with
    the main process, however that ends.
    """
    os.environ.clear()  # it dates from the start of the fork server
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process gets it too, and ends its workers
    import torch

    take_part(Fraction(1, sharers))
    torch.set_num_threads(min(threads, usable_cores()))
    end_with_parent()
    try:
        heed_requests()
        take_held_requests()
        while (run := connection.recv()) is not None:
            outcome = perform(run, _Reporting(connection, is_quiet))
            connection.send(outcome)
            if outcome.traceback:
                break
    except Stopped:
        sys.exit(STOPPED)
    except (EOFError, OSError, KeyboardInterrupt):
        pass
    finally:
        ignore_requests()


class _Reporting(Forwarding):
    """Send progress to the main process."""

    def __init__(self, connection: Connection, is_quiet: bool) -> None:
        super().__init__(connection.send, is_quiet)
        self.connection, self.count = connection, 0

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        key = self.count = self.count + 1
        self.connection.send(_TaskStarted(key, description, total, unit, done))
        unsent, last = 0, time.monotonic()

        def advance(more: int) -> None:
            nonlocal unsent, last
            unsent += more
            if time.monotonic() - last >= 0.2:
                self.connection.send(_TaskAdvanced(key, unsent))
                unsent, last = 0, time.monotonic()

        yield advance
        with contextlib.suppress(OSError):
            self.connection.send(_TaskAdvanced(key, unsent))
            self.connection.send(_TaskEnded(key))

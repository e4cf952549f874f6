"""Does several runs of a plan at a time on this machine, in processes that share its cores."""

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
from emoreg.study.run_one import Job, RunOutcome, perform

# Seconds that workers have to end, and to save where they are first: a step may be long, and so may a checkpoint.
ENDING, SAVING = 5.0, 60.0
STOPPED = 143  # exit code of a worker that was asked to stop, as of the command
CHECKED_EVERY = 1.0  # seconds: a dead worker's own child processes may hold its pipe open


class LocalPool:
    """A pool of worker processes, started as they are needed. One that dies is replaced.

    Args:
        size: runs at a time; each worker gets an equal share of the cores and of the memory that this process may use,
            and one of its GPUs. A single one may start further processes, for a run on several devices.
        progress: shows the tasks and lines of all workers.
    """

    def __init__(self, size: int, progress: Progress) -> None:
        self.size, self.progress, self.workers = size, progress, list[_Worker]()
        self.unable = list[RunOutcome]()  # runs for which no process could be started
        if (note := without_guard()) is not None:
            progress.say(note)
        self.closing, self.gpus = contextlib.ExitStack(), list[Mapping[str, str]]()  # for the workers' environments

    def start(self, run: Job) -> None:
        """Give a run to a worker that has none."""
        self.gpus = self.gpus or self.closing.enter_context(shared_gpus(self.size, self.progress))
        self.workers = [worker for worker in self.workers if worker.run or worker.process.is_alive()]
        worker = next((worker for worker in self.workers if worker.run is None), None)
        if worker is None:
            try:
                place = min(set(range(self.size)) - {worker.place for worker in self.workers})
                worker = _Worker(place, self.size, self.gpus[place], self.progress.quiet or self.progress.is_showing)
            except OSError as error:  # out of memory or of processes
                reason = f"no process can be started for it: {error.strerror or error}"
                self.unable.append(RunOutcome(run, RunStatus.FAILED, reason))
                return
            self.workers.append(worker)
        worker.start(run)

    def wait(self) -> list[RunOutcome]:
        """Show progress, and return the runs that have ended.

        Raises:
            UserError: the script that asks for the study begins it again in each worker.
        """
        if self.unable:
            return [self.unable.pop()]
        busy = [worker for worker in self.workers if worker.run is not None]
        ready = wait([worker.connection for worker in busy], CHECKED_EVERY)
        changed = [worker for worker in busy if worker.connection in ready or not worker.process.is_alive()]
        return [outcome for worker in changed if (outcome := worker.receive(self.progress)) is not None]

    def machine(self) -> Machine:
        """This one."""
        return this_machine()

    def close(self) -> None:
        """End all workers: ask them to, then SIGTERM, on which a run is saved where it is, then SIGKILL.

        Each step has a deadline, so that a worker that hangs does not hold the study.
        """
        try:
            busy = [worker for worker in self.workers if worker.run is not None]
            if busy:
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
        finally:  # Ctrl-C in the meantime: at once
            for worker in self.workers:
                worker.close()
            _alive_after(ENDING, self.workers)
            self.closing.close()


class _Worker:
    """A process that does runs, one after the other: one of several, with its own place among them."""

    def __init__(self, place: int, sharers: int, gpu: Mapping[str, str], is_quiet: bool) -> None:
        import torch

        self.place = place
        threads = max(1, torch.get_num_threads() // sharers)  # PyTorch may count fewer: a core's two threads as one
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
        """Take one message if there is one; the outcome if the run has ended."""
        assert self.run is not None
        try:
            message = self.connection.recv() if self.connection.poll() else self._died(self.run)
        except (EOFError, OSError):
            message = self._died(self.run)
        match message:
            case RunOutcome():
                self.run = None
                self._close_tasks()
                return message
            case "say", line:
                progress.say(line)
            case "warn", line:
                progress.warn(line)
            case "tell", notes, left_out:
                progress.tell(notes, left_out)
            case "task", key, *task:
                stack = contextlib.ExitStack()
                self.tasks[key] = stack, stack.enter_context(progress.task(*task))
            case "advance", key, more:
                self.tasks[key][1](more)
            case "end", key:
                self.tasks.pop(key)[0].close()
        return None

    def _died(self, run: Job) -> RunOutcome:
        self.process.join(ENDING)
        code = self.process.exitcode
        if code is None:  # it has closed the pipe and hangs
            self.process.kill()
            self.process.join(ENDING)
            how = "no longer answers"
        elif code == NO_GUARD:
            raise UserError(GUARD)
        elif code == STOPPED:
            how = "was stopped by a signal"
        elif code < 0:
            why = " (out of memory?)" if -code == 9 else ""  # SIGKILL, which Windows lacks
            how = f"was killed by signal {-code}{why}"
        else:
            how = f"ended with exit code {code}"
        return RunOutcome(run, RunStatus.FAILED, f"its process {how}")

    def ask_to_end(self) -> None:
        """Without a run it reads the request; with one it does not listen, and a signal makes it save."""
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
    """The workers that have not ended within the time."""
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    return [worker for worker in workers if worker.process.is_alive()]


@contextlib.contextmanager
def _start_method() -> Iterator[SpawnContext | ForkServerContext]:
    """Within, start workers by the context that it gives.

    A fork of this process could not use its threads or its GPU, and a new Python imports for seconds, longer than a
    short run takes. So they are forked from a process that has done nothing but import what runs need. Other systems
    than Linux have no forks, or libraries that do not survive one.
    """
    with shared():
        if sys.platform == "linux":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["emoreg.study.preloaded"])
            resource_tracker.ensure_running()  # here, because while it starts it unblocks signals
            with requests_held():  # also of the fork server itself, which has to outlive its workers
                forkserver.ensure_running()
            yield context
        else:
            with requests_held():
                yield multiprocessing.get_context("spawn")


def _work(connection: Connection, environment: Mapping[str, str], sharers: int, threads: int, is_quiet: bool) -> None:
    """What a worker does. It ends with the main process, however that ends."""
    os.environ.clear()  # of the time when the process was started that this one is forked from
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process gets it too, and ends its workers in order
    import torch

    take_part(Fraction(1, sharers))
    torch.set_num_threads(min(threads, usable_cores()))
    end_with_parent()
    try:
        heed_requests()
        take_held_requests()
        while (run := connection.recv()) is not None:
            connection.send(perform(run, _Reporting(connection, is_quiet)))
    except Stopped:
        sys.exit(STOPPED)
    except (EOFError, OSError, KeyboardInterrupt):
        pass
    finally:
        ignore_requests()


class _Reporting(Progress):
    """Progress that the main process shows. `quiet` is for the processes of a run on several devices, which print."""

    def __init__(self, connection: Connection, is_quiet: bool) -> None:
        super().__init__(is_quiet, details=False)
        self.connection, self.count = connection, 0

    def say(self, line: str) -> None:
        self.connection.send(("say", line))

    def warn(self, line: str) -> None:
        self.connection.send(("warn", line))

    def tell(self, notes: Sequence[str], left_out: Sequence[str] = ()) -> None:
        self.connection.send(("tell", notes, left_out))

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        key = self.count = self.count + 1
        self.connection.send(("task", key, description, total, unit, done))
        unsent, last = 0, time.monotonic()

        def advance(more: int) -> None:
            nonlocal unsent, last
            unsent += more
            if time.monotonic() - last >= 0.2:
                self.connection.send(("advance", key, unsent))
                unsent, last = 0, time.monotonic()

        yield advance
        with contextlib.suppress(OSError):
            self.connection.send(("advance", key, unsent))
            self.connection.send(("end", key))

"""Requests to stop, by Ctrl-C or a scheduler's signal: a run saves its state, then ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# SIGTERM comes from SLURM, Kubernetes and kill; SIGUSR1 from SLURM, some time earlier (--signal=USR1@60); SIGHUP from a
# terminal that is closed; SIGINT is Ctrl-C.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if hasattr(signal, name))
REPEATED = 0.1  # seconds within which one Ctrl-C may arrive twice, because a wrapper passes it on to its children

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)  # Python's handlers


class Stopped(KeyboardInterrupt):
    """Raised on a request to stop. A KeyboardInterrupt, so that it does not count as a failed run.

    Args:
        by: the signal; None if another process of the run received it.
        at_once: whether a second Ctrl-C prevented saving.
    """

    def __init__(self, by: int | None = None, at_once: bool = False) -> None:
        super().__init__()
        self.by, self.at_once = by, at_once


_deferring = False
_request: int | None = None  # the first request
_requested_at = 0.0


def heed_requests() -> None:
    """Raise `Stopped` on the first request to stop, at once or at the end of `deferred`.

    A request often comes more than once: schedulers signal a whole process group, and its main process passes the
    signal on. Repetitions are ignored, but a later Ctrl-C raises `Stopped` at once. Signals that the process was
    started to ignore (nohup, a shell's background) stay ignored. Only the main thread may call this.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, _receive)


def ignore_requests() -> None:
    """Ignore requests from now on, because this process is ending; another Ctrl-C ends it at once.

    Only the main thread may call this.
    """
    for number in SIGNALS:
        exits = number == signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN
        signal.signal(number, _exit if exits else signal.SIG_IGN)


def _receive(number: int, frame: FrameType | None) -> None:
    global _request, _requested_at
    if _request is None:
        _request, _requested_at = number, time.monotonic()
        if not _deferring:
            raise Stopped(number)
        if number == signal.SIGINT and os.isatty(2):  # not by `print`, which this may have interrupted
            os.write(2, b"\nemoreg: saving after this step; Ctrl-C again ends at once\n")
    elif number == signal.SIGINT and time.monotonic() - _requested_at > REPEATED:
        raise Stopped(number, at_once=True)


def _exit(number: int, frame: FrameType | None) -> None:
    if time.monotonic() - _requested_at > REPEATED:
        os._exit(130)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defer requests to the end of the block; yields a function that tells whether there was one.

    In a program that has not called `heed_requests`, such as a script or a notebook, a deferred Ctrl-C is a
    KeyboardInterrupt at the end, other signals have their usual effect then, and the program's own handlers are kept.

    Raises:
        Stopped: at the end, if there was a request; at any time, on a second Ctrl-C.
    """
    global _deferring  # noqa: PLW0603
    with _unhandled_received() as unhandled:
        _deferring = True
        try:
            yield lambda: _request is not None
        except Stopped as stop:
            if _request is None or stop.at_once:  # sent to another process of the run, or nothing was saved
                raise
        finally:
            _deferring = False
        request = _request
    if request is not None:
        if request in unhandled:
            signal.raise_signal(request)
        raise Stopped(request)


@contextlib.contextmanager
def _unhandled_received() -> Iterator[tuple[signal.Signals, ...]]:
    """Receive the signals that the program does not handle, and yield them."""
    global _request  # noqa: PLW0603
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # other threads can neither set handlers nor get signals
        handlers = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) in _DEFAULTS}
    for number in handlers:
        signal.signal(number, _receive)
    try:
        yield tuple(handlers)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if handlers:
            _request = None  # the program may continue, and train again, perhaps in another thread


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Let processes started inside ignore Ctrl-C: the main process gets it too, and ends them in order."""
    if threading.current_thread() is not threading.main_thread():  # other threads cannot set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def requests_held() -> Iterator[None]:
    """Hold back requests to processes started inside, and to their children, until they call `take_held_requests`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        with without_interrupts():
            yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_held_requests() -> None:
    """Receive requests from now on, including those that were sent while this process started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def leave_to_parent(worker: int) -> None:
    """Ignore requests in a worker process; a `worker_init_fn` of DataLoader, which passes the worker's number.

    Schedulers and terminals signal every process of a job, and a worker that ended first would turn the main process's
    orderly stop into a failure. Workers obey only the SIGTERM that the main process sends them when it ends.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # without it the sender is unknown
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()


def end_with_parent() -> None:
    """End this process, which multiprocessing started, as soon as its parent ends in any way.

    An orphan would keep its run locked, or write to it while another process repeats the run.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _end_for_parent() -> None:
    parent = multiprocessing.parent_process()  # not os.getppid, which may be a fork server
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)

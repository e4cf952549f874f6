"""Requests to stop: Ctrl-C, and signals of schedulers that take a machine away. A run saves where it is, then ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# SLURM sends SIGUSR1 as early as it is asked to (--signal=USR1@60); SIGTERM comes from it, from Kubernetes and kill;
# SIGHUP from a terminal that is closed; SIGINT is Ctrl-C.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if hasattr(signal, name))
REPEATED = 0.1  # seconds within which one Ctrl-C may arrive more than once: a wrapper passes it on to its children

_OURS = (signal.SIG_DFL, signal.default_int_handler)  # handlers that nobody else has set


class Stopped(KeyboardInterrupt):
    """Raised in answer to a request to stop. A KeyboardInterrupt, so that nothing takes it for a failed run.

    Args:
        by: the signal; None if another process of the run has had it.
        at_once: by a second Ctrl-C, before what was under way could be saved.
    """

    def __init__(self, by: int | None = None, at_once: bool = False) -> None:
        super().__init__()
        self.by, self.at_once = by, at_once


_deferring = False
_asked: int | None = None  # the first request
_asked_at = 0.0


def heed_requests() -> None:
    """From here on a request raises `Stopped`, at once or where `deferred` says, and only the first one does.

    A request often comes more than once: schedulers signal a whole process group, and its main process passes the
    signal on. Only a Ctrl-C after another request means more: it raises `Stopped` at once. Signals that the process was
    started to ignore (nohup, a shell's background) stay ignored. Only the main thread may call this.
    """
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN or each == signal.SIGTERM:
            signal.signal(each, _receive)


def ignore_requests() -> None:
    """From here on requests are ignored, because this process is ending; another Ctrl-C ends it where it is.

    Only the main thread may call this.
    """
    for each in SIGNALS:
        is_heeded = each == signal.SIGINT and signal.getsignal(each) is not signal.SIG_IGN
        signal.signal(each, _exit if is_heeded else signal.SIG_IGN)


def _receive(number: int, frame: FrameType | None) -> None:
    global _asked, _asked_at
    is_first, now = _asked is None, time.monotonic()
    if is_first:
        _asked, _asked_at = number, now
        if not _deferring:
            raise Stopped(number)
        if number == signal.SIGINT and os.isatty(2):  # not by `print`, which this may have interrupted
            os.write(2, b"\nemoreg: saving after this step; Ctrl-C again ends at once\n")
    elif number == signal.SIGINT and now - _asked_at > REPEATED:
        raise Stopped(number, at_once=True)


def _exit(number: int, frame: FrameType | None) -> None:
    if time.monotonic() - _asked_at > REPEATED:
        os._exit(130)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within, a request raises nothing: the given function returns whether there is one.

    If there is one at the end, it takes effect there. In a program that handles a signal itself, that stays as it is;
    in one that does not, Ctrl-C is a KeyboardInterrupt at the end, and another signal does then what it does.

    Raises:
        Stopped: at the end, if there was a request; at any time, for a second Ctrl-C.
    """
    global _deferring, _asked  # noqa: PLW0603
    # Whoever has called `heed_requests` has handlers. A script or a notebook has none, and may go on afterwards.
    borrowed = {}
    if threading.current_thread() is threading.main_thread():  # no other may set handlers, or gets a signal
        borrowed = {each: handler for each in SIGNALS if (handler := signal.getsignal(each)) in _OURS}
    if borrowed:
        _asked = None
    for each in borrowed:
        signal.signal(each, _receive)
    _deferring = True
    try:
        yield lambda: _asked is not None
    except Stopped as stop:
        if _asked is None or stop.at_once:  # by another process of the run; without having saved
            raise
    finally:
        _deferring = False
        for each, handler in borrowed.items():
            signal.signal(each, handler)
    if _asked is not None and _asked in borrowed:
        signal.raise_signal(_asked)
    if _asked is not None:
        raise Stopped(_asked)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started within ignore Ctrl-C: the main process gets it too, and ends them in order."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers, or gets a Ctrl-C
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def requests_held() -> Iterator[None]:
    """Processes that are started within, and theirs, get requests only once they call `take_held_requests`."""
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
    """From here on this process gets requests, and first those that it has been sent while it started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def leave_to_parent(worker: int) -> None:
    """Ignore requests in a worker process, as `DataLoader(worker_init_fn=...)` calls it with the worker's number.

    Schedulers and terminals signal every process of a job, and a worker that ended early would make a failure of the
    main process's orderly stop. Workers heed only the SIGTERM that the main process itself sends them when it ends.
    """
    for each in SIGNALS:
        if each != signal.SIGTERM:
            signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere the sender is not known
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()


def end_with_parent() -> None:
    """From here on this process, which multiprocessing has started, ends at once with its parent, however that ends.

    An orphan would hold its run, or go on writing there while another process does the run anew.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _end_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

"""Requests to stop, which schedulers send before they take a machine away: a run saves where it is, then ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# SLURM sends SIGUSR1 as early as it is asked to (--signal=USR1@60); SIGTERM comes from it, from Kubernetes and kill.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """Raised in answer to a request to stop. A KeyboardInterrupt, so that nothing takes it for a failed run."""


_deferring = False
_asked = False


def heed_requests() -> None:
    """From here on a request raises `Stopped`, at once or where `deferred` says, and only the first one does.

    A request often comes more than once: schedulers signal a whole process group, and its main process passes the
    signal on. Only the main thread may call this.
    """
    for each in SIGNALS:
        signal.signal(each, _receive)


def ignore_requests() -> None:
    """From here on requests are ignored, because this process is ending. Only the main thread may call this."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _receive(number: int, frame: FrameType | None) -> None:
    global _asked
    is_first, _asked = not _asked, True
    if is_first and not _deferring:
        raise Stopped


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within, a request raises nothing: the given function returns whether there is one.

    If there is one at the end, `Stopped` is raised there.
    """
    global _deferring  # noqa: PLW0603
    _deferring = True
    try:
        yield lambda: _asked
    finally:
        _deferring = False
    if _asked:
        raise Stopped


def leave_to_parent(worker: int) -> None:
    """Ignore requests in a worker process, as `DataLoader(worker_init_fn=...)` calls it with the worker's number.

    Schedulers signal every process of a job, and a worker that ended early would make a failure of the main process's
    orderly stop. Workers heed only the SIGTERM that the main process itself sends them when it ends.
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

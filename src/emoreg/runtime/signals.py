"""A request to stop, as schedulers send it before they take the machine away: a run saves where it is, then ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# SLURM sends SIGUSR1 as early as it is asked to (--signal=USR1@60); SIGTERM comes from it, from Kubernetes and kill.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """Raised where a request to stop is met. A KeyboardInterrupt, so that nothing takes it for a failed run."""


_deferring = False
_asked = False


def heed_requests() -> None:
    """From here on the signals raise `Stopped`, at once or where `deferred` says. Only from the main thread."""
    for each in SIGNALS:
        signal.signal(each, _receive)


def _receive(number: int, frame: FrameType | None) -> None:
    global _asked  # noqa: PLW0603 (a signal handler has nowhere else to put it)
    _asked = True
    if not _deferring:
        raise Stopped


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within, a request is not met at once: the given function says whether there is one, at a moment that suits.

    What was asked for and not met within is met at the end.
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

    Schedulers send their signal to every process of a job: workers that it ended would make a failure of the main
    process's orderly stop. They heed only a SIGTERM of the main process, which sends it and waits when it ends.
    """
    for each in SIGNALS:
        if each != signal.SIGTERM:
            signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere there is no telling who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

"""One process at a time in a folder: two that train the same run would overwrite each other's checkpoints."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from emoreg.errors import UserError
from emoreg.runtime.safe_io import read_json

LOCK, HOLDER = ".lock", ".holder.json"
CUT_OFF = ".*.part"  # what `run.write_atomically` leaves behind when it is killed
PATIENCE = 5.0  # seconds: a process that was just killed may need a moment to be gone


@contextlib.contextmanager
def hold(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Within, no other process can hold `folder`. What a killed one left half written there is removed.

    The operating system lets go of the lock when the process ends, however it ends, so no lock is ever stale. Where
    the file system has no such locks, filelock's are files that name their process, and a dead one's is taken over.

    Args:
        folder: is there already.
        patience: seconds to wait for another process.

    Raises:
        UserError: another process holds it; says which. Or the lock cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder} is being worked on by {_holder(folder)}; wait for it to end, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror or error}") from None
    try:
        for path in folder.glob(CUT_OFF):  # else every kill would leave a checkpoint's worth of bytes for good
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):  # for messages alone
            (folder / HOLDER).write_text(json.dumps(_this_process()))
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


def is_trace(path: Path) -> bool:
    """Whether a file is nobody's work: of a lock, or what a write that was cut off left behind."""
    return path.name in (LOCK, HOLDER) or path.match(CUT_OFF)


def _this_process() -> dict[str, str | int]:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": platform.node(), "since": now}


def _holder(folder: Path) -> str:
    """Who holds it, as far as is known."""
    try:
        holder = read_json(folder / HOLDER)
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

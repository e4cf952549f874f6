"""Locks on folders, since two processes that train the same run would overwrite each other's checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emoreg.errors import UserError
from emoreg.runtime.safe_io import new_folder, read_json, write_json

LOCK, HOLDER = ".lock", ".holder.json"
PARTIAL = ".*.part"  # left behind by `write_atomically` when the process is killed
PATIENCE = 5.0  # seconds: a process that was just killed may take a moment to disappear
MOMENT = 0.1  # seconds: `holder` takes the lock itself, but for far less


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as far as it is known."""

    process: int | None = None
    host: str | None = None
    since: str | None = None  # ISO 8601

    def __str__(self) -> str:
        return "another process" if self.host is None else f"process {self.process} on {self.host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether the process runs on this machine."""
        return self.host == platform.node()


class FolderInUse(UserError):
    """Another process holds the lock of a folder. It can be pickled, so it crosses processes."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.folder, self.holder = folder, holder
        super().__init__(f"{folder} is being worked on by {holder}; wait for it to end, or choose another folder")

    def __reduce__(self) -> tuple[type[FolderInUse], tuple[Path, Holder]]:
        return type(self), (self.folder, self.holder)


def holder(folder: Path) -> Holder | None:
    """Return the process that holds the lock of a folder; None if none does, or if that is unknown."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return None
    try:
        with FileLock(folder / LOCK, timeout=MOMENT, poll_interval=MOMENT / 20):
            return None
    except Timeout:
        return _holder(folder)
    except OSError:
        return None


@contextlib.contextmanager
def hold(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Lock a folder, and remove partial files that a killed process left in it.

    The operating system releases the lock when the process ends, for whatever reason, so locks never become stale. On
    file systems without such locks, filelock writes files that name their process, and takes over those of dead
    processes.

    Args:
        folder: an existing folder.
        patience: seconds to wait for another process.

    Raises:
        FolderInUse: another process holds the lock.
        UserError: the lock cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUse(folder, _holder(folder)) from None
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror or error}") from None
    try:
        for path in folder.glob(PARTIAL):  # may be as large as a checkpoint
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):  # only for messages
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            this_process = Holder(os.getpid(), platform.node(), now)
            write_json(folder / HOLDER, dataclasses.asdict(this_process))  # replaces a link, and never follows it
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


@contextlib.contextmanager
def hold_new(folder: Path, what: str = "folder", patience: float = PATIENCE) -> Iterator[None]:
    """Create a folder unless it exists, and lock it like `hold`.

    If the block fails and the folder is empty, the folders that were created are removed again.

    Args:
        folder: the folder.
        what: its role in messages, such as "run folder".
        patience: seconds to wait for another process.

    Raises:
        FolderInUse: another process holds the lock.
        UserError: the folder cannot be created, or the lock cannot be written.
    """
    with new_folder(folder, what) as is_new, hold(folder, patience):
        try:
            yield
        except BaseException:
            if is_new:
                _clear(folder)  # while it is locked, so that no other process starts in it
            raise


def _clear(folder: Path) -> None:
    """Delete the files of a lock in a folder that contains nothing else."""
    with contextlib.suppress(OSError):  # an error here would hide the original one
        if all(map(is_trace, folder.iterdir())):
            for path in folder.iterdir():
                path.unlink()


def is_trace(path: Path) -> bool:
    """Whether a file belongs to a lock, or was left behind by an interrupted write."""
    return path.name in (LOCK, HOLDER) or path.match(PARTIAL)


def _holder(folder: Path) -> Holder:
    try:
        record = read_json(folder / HOLDER)
        return Holder(*(record[item.name] for item in dataclasses.fields(Holder)))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()

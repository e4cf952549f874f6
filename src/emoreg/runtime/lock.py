"""Locks folders: two processes that train the same run would overwrite each other's checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emoreg.errors import UserError
from emoreg.runtime.safe_io import new_folder, read_json

LOCK, HOLDER = ".lock", ".holder.json"
PARTIAL = ".*.part"  # left behind by `write_atomically` when the process is killed
PATIENCE = 5.0  # seconds: a process that was just killed may take a moment to disappear
MOMENT = 0.1  # seconds: whoever asks who holds a lock takes it for far less


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as far as is known."""

    process: int | None = None
    host: str | None = None
    since: str | None = None  # ISO 8601

    def __str__(self) -> str:
        """For a message."""
        return "another process" if self.host is None else f"process {self.process} on {self.host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == platform.node()


class FolderInUse(UserError):
    """Another process holds the lock of a folder. It can be pickled, so it crosses processes."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.folder, self.holder = folder, holder
        super().__init__(f"{folder} is being worked on by {holder}; wait for it to end, or choose another folder")

    def __reduce__(self) -> tuple[type[FolderInUse], tuple[Path, Holder]]:
        return type(self), (self.folder, self.holder)


def holder(folder: Path) -> Holder | None:
    """The process that holds the lock of a folder; None if none does, or nobody can tell."""
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
    """Lock a folder. Partial files that a killed process left there are removed.

    The operating system releases the lock when the process ends, for whatever reason, so no lock is ever stale. On file
    systems without such locks, filelock writes files that name their process, and takes over those of dead ones.

    Args:
        folder: must exist.
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
        for path in folder.glob(PARTIAL):  # else every kill would leave the bytes of a checkpoint behind
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):  # only for messages
            (folder / HOLDER).write_text(json.dumps(dataclasses.asdict(_this_process())))
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


@contextlib.contextmanager
def hold_new(folder: Path, what: str = "folder") -> Iterator[None]:
    """Create a folder unless it exists, and lock it as `hold` does.

    If the block fails and the folder holds nothing, it is removed again with those of its parents that were made for
    it: a start that fails leaves no folders.

    Args:
        folder: where.
        what: its role in messages, such as "run folder".

    Raises:
        FolderInUse: another process holds the lock.
        UserError: the folder cannot be created, or the lock cannot be written.
    """
    with new_folder(folder, what) as is_new, hold(folder):
        try:
            yield
        except BaseException:
            if is_new:
                _clear(folder)  # while it is locked: nobody else begins there
            raise


def _clear(folder: Path) -> None:
    """Delete the traces of a lock in a folder that holds nothing else."""
    with contextlib.suppress(OSError):  # an error here would hide the one that matters
        if all(map(is_trace, folder.iterdir())):
            for path in folder.iterdir():
                path.unlink()


def is_trace(path: Path) -> bool:
    """Whether a file belongs to a lock, or was left behind by a write that was cut off."""
    return path.name in (LOCK, HOLDER) or path.match(PARTIAL)


def _this_process() -> Holder:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return Holder(os.getpid(), platform.node(), now)


def _holder(folder: Path) -> Holder:
    try:
        found = read_json(folder / HOLDER)
        return Holder(*(found[item.name] for item in dataclasses.fields(Holder)))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()

"""Download a published set once, even if several processes, such as runs of a study, need it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from emoreg.errors import UserError
from emoreg.runtime.lock import FolderInUse, hold_new, holder
from emoreg.runtime.streams import print_line

SILENT = 5.0  # seconds to wait for another process before a line says so
PATIENCE = 4 * 3600.0  # seconds: the largest sets have tens of GB

Opened = TypeVar("Opened")


def open_or_download(name: str, folder: Path, construct: Callable[[bool], Opened]) -> Opened:
    """Open a set from its files; if that fails, download them first, while other processes wait.

    Args:
        name: of the set.
        folder: its root, which is created for a download.
        construct: opens the set; its argument says whether to download files that are missing.

    Raises:
        UserError: the set cannot be opened, and `folder` cannot be written; another process downloads the set for
            longer than PATIENCE; or an earlier download was interrupted, but the set opens, perhaps with files missing.
        Exception: whatever `construct` raises after a failed download, or on damaged files.
    """
    unfinished = _locked(name, folder) / "unfinished"
    reason = ""
    if not is_downloading(name, folder) and not unfinished.exists():
        try:
            return construct(False)
        except Exception as error:  # on missing files, or anything that parsers raise on damaged ones
            reason = f"{error}; "

    def in_turn(patience: float) -> Opened:
        with hold_new(unfinished.parent, patience=patience):
            if unfinished.exists() and _opens(construct):
                raise UserError(
                    f"an earlier download of {name} into {folder} was interrupted, so files may be missing, which "
                    f"torchvision does not notice: delete the set's files there and {unfinished.parent}, and run this "
                    "again; if you know that they are whole, delete only the latter"
                )
            unfinished.touch()
            try:
                opened = construct(True)
            except Exception:
                if not _opens(construct):  # then the next attempt begins anew
                    unfinished.unlink()
                raise
            unfinished.unlink()
            return opened

    try:
        return in_turn(SILENT)
    except FolderInUse as busy:
        print_line(f"{name}: waiting for {busy.holder}, which downloads it into {folder}")
        return in_turn(PATIENCE)
    except UserError as error:  # in a folder of others, whose files may be whole
        raise UserError(f"{reason}{error}") from None


def is_downloading(name: str, folder: Path) -> bool:
    """Whether a process downloads the set: its files may then be incomplete, which not all sets notice."""
    return holder(_locked(name, folder)) is not None


def _opens(construct: Callable[[bool], object]) -> bool:
    try:
        construct(False)
    except Exception:  # see above
        return False
    return True


def _locked(name: str, folder: Path) -> Path:
    """The folder with the lock on a set, since other sets in the same root need not wait."""
    return folder / f".{name}-download"

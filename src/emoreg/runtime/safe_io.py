"""Reads small files from untrusted sources, and writes files atomically."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emoreg.errors import UserError

MAX_TEXT_BYTES = 64 * 2**20  # far above any JSON or CSV file that emoreg writes, short of a study of a million runs


def require_regular(path: Path) -> os.stat_result:
    """What the system tells of a regular file; anything else is refused.

    A pipe may block its reader for ever, a device may never end, and a link from an archive may point to either.

    Raises:
        OSError: there is no such file, or it is not a regular one.
    """
    found = path.stat()
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found


def read_bounded(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
    """
    size = require_regular(path).st_size
    with path.open("rb") as file:
        content = file.read(min(size, limit) + 1)  # Python clears as much memory as it may read
        if len(content) > size:  # the file is growing, or its system tells no sizes
            content += file.read(limit + 1 - len(content))
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes, the limit for such a file", str(path))
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: as `read_bounded`.
        ValueError: the content is not JSON, or nested too deep.
    """
    try:
        return json.loads(read_bounded(path))
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file as a whole: whatever happens, either the old content or the new one is there.

    Raises:
        OSError: the file cannot be written; the old content is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # usually gone; an error here would hide the one that matters
            temporary.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file atomically, in UTF-8. Broken Unicode, as in some file names, is escaped.

    Raises:
        OSError: as `write_atomically`.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode("utf-8", "backslashreplace"))  # \udc80 is also JSON's escape for it


@contextlib.contextmanager
def writing(path: Path, what: str = "", kept: str = "") -> Iterator[None]:
    """Within, a file is written by whatever writes it: an OSError is raised as a UserError that says which and why.

    Args:
        path: the file.
        what: its role in the message, such as "table of results".
        kept: the end of the message: what is not lost, such as "the runs are kept".

    Raises:
        UserError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}{f'; {kept}' if kept else ''}"
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            reason = f"there is no folder {path.parent}"
        raise UserError(f"cannot write {f'the {what} ' if what else ''}{path}: {reason}") from None


def make_folder(path: Path, what: str = "folder") -> None:
    """Create a folder and its parents unless it exists.

    Args:
        path: where.
        what: its role in the message, such as "run folder".

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the {what} {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def new_folder(path: Path, what: str = "folder") -> Iterator[bool]:
    """Within, the folder exists; yields whether it was made. If the block fails, folders that were made are removed.

    Those that hold something by then are kept.

    Args:
        path: where; its parents are made too.
        what: its role in the message, such as "run folder".

    Raises:
        UserError: the folder cannot be created.
    """
    made = [each for each in (path, *path.parents) if not _exists(each)]
    try:
        make_folder(path, what)
        yield path in made
    except BaseException:
        for each in made:
            with contextlib.suppress(OSError):  # it is not empty, or was never made
                each.rmdir()
        raise


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # of a name that is too long, or above which nothing may be read
        return False

"""Reading of small files from untrusted sources, and atomic writing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emoreg.errors import UserError

MAX_TEXT_BYTES = 64 * 2**20  # far larger than the JSON and CSV files that emoreg writes
PATIENCE, MOMENT = 5.0, 0.05  # seconds that a file may be open elsewhere, and between attempts to replace it


def require_regular(path: Path) -> os.stat_result:
    """Return the status of a regular file; refuse anything else.

    A pipe may block its reader forever, a device may never end, and a link from an archive may point to either.

    Raises:
        OSError: the file does not exist or is not regular.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status


def read_bounded(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
    """
    size = require_regular(path).st_size
    with path.open("rb") as file:
        content = file.read(min(size, limit) + 1)  # Python allocates as much memory as it may read
        if len(content) > size:  # the file is growing, or its file system reports no sizes
            content += file.read(limit + 1 - len(content))
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes, the limit for such a file", str(path))
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: as for `read_bounded`.
        ValueError: the content is not JSON, or nested too deeply.
    """
    try:
        return json.loads(read_bounded(path))
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically: whatever happens, it has either the old or the new content.

    Raises:
        OSError: the file cannot be written; the old content is kept.
    """
    # A random name: in containers, processes that share a folder may have the same number.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        with temporary.open("xb") as file:  # never through a link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # usually gone; an error here would hide the original one
            temporary.unlink()


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file to one that may exist. Windows refuses this while another process has that one open to read it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > deadline:
                raise
        time.sleep(MOMENT)


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file atomically, in UTF-8. Lone surrogates, as in some file names, are escaped.

    Raises:
        OSError: as for `write_atomically`.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode("utf-8", "backslashreplace"))  # \udc80 is JSON's escape too


@contextlib.contextmanager
def writing(path: Path, what: str = "", kept: str = "") -> Iterator[None]:
    """Convert an OSError of writing a file inside the block to a UserError.

    Args:
        path: the file.
        what: its role in the message, such as "table of results".
        kept: end of the message, on what is not lost, such as "the runs are kept".

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
        path: the folder.
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
    """Create a folder and its parents; if the block fails, remove those that were created and are empty.

    Args:
        path: the folder.
        what: its role in the message, such as "run folder".

    Yields:
        Whether the folder was created; False if it existed.

    Raises:
        UserError: the folder cannot be created.
    """
    created = [folder for folder in (path, *path.parents) if not _exists(folder)]
    try:
        make_folder(path, what)
        yield path in created
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):  # not empty, or never created
                folder.rmdir()
        raise


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long, or a parent may not be read
        return False

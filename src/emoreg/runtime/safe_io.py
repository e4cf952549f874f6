"""Reading small files that others have made, and writing files atomically."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 64 * 2**20  # of a file of ours in JSON or CSV: a study of a million runs would have more


def require_regular(path: Path) -> None:
    """Refuse what is no regular file.

    A pipe may keep its reader waiting for ever, a device may never end, and a link that came out of an archive may
    lead to either.

    Raises:
        OSError: it is not there, or is something else.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_bounded(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a file.

    Args:
        path: of the file.
        limit: in bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    require_regular(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)  # not what its size was: it may be growing
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes, the limit for such a file", str(path))
    return content


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        OSError: as `read_bounded`.
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(read_bounded(path))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that, whatever happens, it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone, or it would hide why it could not be written
            temporary.unlink()

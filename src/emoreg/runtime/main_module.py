"""Control of whether processes spawned by multiprocessing import the parent's `__main__` script again.

Importing it makes what it defines or registers available. But a script that calls emoreg at its top level, without
`if __name__ == "__main__":`, would start everything again in each process, and a notebook, a console or a script on
standard input cannot be imported at all. Their processes are started without it.
"""

from __future__ import annotations

import ast
import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from emoreg.errors import UserError

NO_GUARD = 78  # exit code of a process started by emoreg whose script calls emoreg again
GUARD = 'every process that emoreg starts imports the script: put what it does under if __name__ == "__main__":'
_STARTING = "EMOREG_STARTING"  # environment variable of processes that import `__main__`
_hiding = threading.Lock()


def script() -> Path | None:
    """Return the file of `__main__`; None for a notebook, a console, `python -c` or standard input.

    Also None for `python -m package`, since multiprocessing does not import the `__main__` of a package.
    """
    main = sys.modules["__main__"]
    if getattr(main.__spec__, "name", "").endswith(".__main__"):
        return None
    path = getattr(main, "__file__", None)
    return Path(path) if path and Path(path).is_file() else None


def is_guarded() -> bool:
    """Whether `__main__` is a file with a main guard: a top-level `if` that mentions `__name__` and "__main__"."""
    path = script()
    if path is None:
        return False
    try:
        statements = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return False
    tests = [statement.test for statement in statements if isinstance(statement, ast.If)]
    return any("__name__" in (text := ast.unparse(test)) and "__main__" in text for test in tests)


def without_guard() -> str | None:
    """Return a note if processes will not import the script, which may define or register things.

    None if they will, or if there is no script.
    """
    path = script()
    if path is None or is_guarded():
        return None
    return (
        f'{path.name} has no if __name__ == "__main__": so the processes that it starts do not import it, and lack '
        "what it defines or sets"
    )


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Let processes started inside import `__main__` if it has a guard; if it calls emoreg, they exit with NO_GUARD."""
    os.environ[_STARTING] = "1"  # always: processes forked later have the environment of the first start
    try:
        with contextlib.nullcontext() if is_guarded() else hidden():
            yield
    finally:
        os.environ.pop(_STARTING, None)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Keep processes started inside from importing `__main__`; its definitions can then not be pickled."""
    with _hiding:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def require_guard() -> None:
    """Refuse to start anything while a spawned process is still importing its `__main__`.

    Raises:
        SystemExit: emoreg started this process; its parent explains the exit code.
        UserError: something else started it.
    """
    # multiprocessing makes the same test before a process that is not ready yet starts others.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        if _STARTING in os.environ:
            raise SystemExit(NO_GUARD)
        raise UserError(GUARD)

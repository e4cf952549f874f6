"""Python's `__main__`, which a process that multiprocessing spawns imports again from the script of its parent.

So it finds what is defined or registered there. But a script that calls emoreg at its top, without
`if __name__ == "__main__":`, would begin everything again in each process, and a notebook, a console or a script on the
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

NO_GUARD = 78  # exit code of a process that emoreg has started, and whose script calls emoreg again
GUARD = 'every process that emoreg starts imports the script: put what it does under if __name__ == "__main__":'
_STARTING = "EMOREG_STARTING"  # in the environment of processes that import `__main__`
_hiding = threading.Lock()


def script() -> Path | None:
    """The file of `__main__`; None in a notebook or a console, and for a text or the standard input.

    Also None for `python -m package`: multiprocessing does not import the `__main__` of a package.
    """
    main = sys.modules["__main__"]
    if getattr(main.__spec__, "name", "").endswith(".__main__"):
        return None
    path = getattr(main, "__file__", None)
    return Path(path) if path and Path(path).is_file() else None


def is_guarded() -> bool:
    """Whether `__main__` is a file with a main guard: a statement at its top compares `__name__` with "__main__"."""
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
    """That processes do not import a script, for people who have set or registered something in it; None if they do."""
    path = script()
    if path is None or is_guarded():
        return None
    return (
        f'{path.name} has no if __name__ == "__main__": so the processes that it starts do not import it, and lack '
        "what it defines or sets"
    )


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Within, start processes. They import `__main__` if it has a guard; one that begins emoreg ends by NO_GUARD."""
    os.environ[_STARTING] = "1"  # always: those that are forked later have the environment of the first start
    try:
        with contextlib.nullcontext() if is_guarded() else hidden():
            yield
    finally:
        os.environ.pop(_STARTING, None)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Within, processes that are started do not import `__main__`, and what is defined there cannot be pickled."""
    with _hiding:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def require_guard() -> None:
    """End a process whose `__main__` is being imported, which is not the time to begin anything.

    Raises:
        SystemExit: emoreg has started it: the process that did says why.
        UserError: something else has.
    """
    # As multiprocessing itself asks, when a process that is not ready yet starts others.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        if _STARTING in os.environ:
            raise SystemExit(NO_GUARD)
        raise UserError(GUARD)

"""The process's own streams, whatever state they are in: closed, full, without a reader, of few characters."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import IO

ESCAPES = "emoreg.escapes"  # name of the error handler below
# Signs of our own texts; every other character that a terminal lacks is written as an escape, as JSON writes it.
PLAIN_SIGNS = {"λ": "lambda", "−": "-", "–": "-", "…": "...", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "→": "->"}


def open_streams() -> None:
    """Make stdin, stdout and stderr usable for the whole process, at its start.

    One that is closed (`>&-`, or a service without any) is opened on the null device: otherwise the next file that is
    opened takes its number, and receives what is printed. None of them raises for a character that it does not have.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_null(number)
            mode = "r" if name == "stdin" else "w"
            _install(name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (it stays open)
    if isinstance(sys.stdout, io.TextIOWrapper):
        settings = (sys.stdout.encoding, ESCAPES, None, sys.stdout.line_buffering, sys.stdout.write_through)
        _install("stdout", _Stdout(sys.stdout.detach(), *settings))
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=ESCAPES)


def _install(name: str, stream: IO[str]) -> None:
    for each in (name, f"__{name}__"):  # where libraries look for the one, and for the other
        setattr(sys, each, stream)


class StdoutError(OSError):
    """Stdout cannot be written: its reader is gone (EPIPE), its disk is full, ..."""


class _Stdout(io.TextIOWrapper):
    """Tells its own errors from those of all other files."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise StdoutError(error.errno, error.strerror) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise StdoutError(error.errno, error.strerror) from None


def close_streams() -> None:
    """Write what stdout and stderr still hold; after this neither fails when Python exits.

    Raises:
        StdoutError: stdout could not be written.
    """
    failed = None
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: somebody has closed it
            failed = error
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    if isinstance(failed, StdoutError):
        raise failed


def tell(line: str) -> None:
    """Print a line to stderr. Nothing happens if nobody can receive it: that must not end the work it is about."""
    if sys.stderr is not None:  # else print would take stdout
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def spelled(text: str, encoding: str | None) -> str:
    """The text as a stream of this encoding shows it, so that it can be measured. None for one with all characters."""
    if encoding is None or text.isascii():
        return text
    return text.encode(encoding, ESCAPES).decode(encoding)


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)  # as the standard streams are
        return
    try:
        os.fstat(number)
    except OSError:  # closed, so nothing else has it
        os.dup2(null, number)
    os.close(null)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAIN_SIGNS.get(letter) or _escaped(letter) for letter in letters), error.end


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))


codecs.register_error(ESCAPES, _escape)

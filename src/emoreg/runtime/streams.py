"""The process's standard streams in any state: closed, full, without a reader, with a small character set."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import IO

ESCAPES = "emoreg.escapes"  # name of the error handler below
# Replacements for signs in our own texts; other characters that a terminal lacks are printed as JSON's escapes.
PLAIN_SIGNS = {"λ": "lambda", "−": "-", "–": "-", "…": "...", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "→": "->"}


def open_streams() -> None:
    """Make stdin, stdout and stderr usable; call it at the start of the process.

    A closed stream (`>&-`, or a service without streams) is opened on the null device: otherwise the next file that is
    opened gets its number, and receives what is printed. Output streams do not raise for characters that they lack.
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
    for attribute in (name, f"__{name}__"):  # libraries use either
        setattr(sys, attribute, stream)


class StdoutError(OSError):
    """Stdout cannot be written: its reader is gone (EPIPE), its disk is full, ..."""


class _Stdout(io.TextIOWrapper):
    """Raises StdoutError, which distinguishes its errors from those of other files."""

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
    """Flush stdout and stderr, so that neither fails when Python exits.

    Raises:
        StdoutError: stdout could not be written.
    """
    failed = None
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: it was closed
            failed = error
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    if isinstance(failed, StdoutError):
        raise failed


def print_line(line: str) -> None:
    """Print a line to stderr. Errors are ignored, as they must not end the work that the line is about."""
    if sys.stderr is not None:  # else print would use stdout
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def spelled(text: str, encoding: str | None) -> str:
    """Return the text as a stream of this encoding prints it, for measuring; None stands for full Unicode."""
    if encoding is None or text.isascii():
        return text
    return text.encode(encoding, ESCAPES).decode(encoding)


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)  # like all standard streams
        return
    try:
        os.fstat(number)
    except OSError:  # closed, so its number is free
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

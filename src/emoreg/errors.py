"""User-facing errors, which are printed without a traceback, and functions for their text."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_LENGTH = 6000  # characters of a message: a path may have 4,096


class UserError(Exception):
    """Bad input, explained in one line: what was wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2. Names, values and other libraries' messages
    are made printable first, so that nothing in them can control a terminal.
    """

    def __init__(self, message: str) -> None:
        line = printable(re.sub(r"\s*[\r\n]\s*", " ", message.strip()))
        if len(line) > MAX_LENGTH:  # the location is at the start, the advice at the end
            line = f"{line[: MAX_LENGTH * 2 // 3]} … {line[-MAX_LENGTH // 3 :]}"
        super().__init__(line)


class Diverged(UserError):
    """Losses, weights or outputs of a training are not finite. A study counts such a run, without an accuracy."""


class SettingError(UserError, ValueError):
    """A setting with a wrong value or an unknown name.

    Its message is `[path[:line]: ]key: reason`. Callers that know more about the origin of the setting raise it again
    with `within` or `at` instead of editing the message. It can be pickled, and so passed between processes.

    Args:
        key: dotted name, such as "training.epochs"; empty for an error that concerns no single setting.
        reason: what is wrong and what to do, such as "must be at least 1, not 0".
        path: file that contains the setting; None if no file does.
        line: line in that file, from 1.
    """

    def __init__(
        self, key: str, reason: str, path: str | os.PathLike[str] | None = None, line: int | None = None
    ) -> None:
        self.key, self.reason, self.path, self.line = key, reason, path, line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(f"{place}{key}: {reason}" if key else f"{place}{reason}")

    def __reduce__(self) -> tuple[type[SettingError], tuple[object, ...]]:
        return type(self), (self.key, self.reason, self.path, self.line)

    def within(self, section: str) -> SettingError:
        """Return the same error with `section` before the key: "epochs" within "training" is "training.epochs".

        A key that starts with an index belongs to a list element: "[1].name" within "also" is "also[1].name".
        """
        dot = "." if section and self.key and not self.key.startswith("[") else ""
        return SettingError(f"{section}{dot}{self.key}", self.reason, self.path, self.line)

    def at(self, path: str | os.PathLike[str], line: int | None = None) -> SettingError:
        """Return the same error with the file that contains the setting, and the line if it is known."""
        return SettingError(self.key, self.reason, path, line)


def printable(text: str) -> str:
    """Return the text in one line, with line ends, control characters and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_plain(name: str) -> bool:
    """Whether a name is safe in files and on terminals: no control characters, no lone surrogates."""
    return all(unicodedata.category(character) not in ("Cc", "Cs") for character in name)


def shortened(text: str, length: int = 100) -> str:
    """Return at most `length` characters of a text, such as another library's message, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def first_few(items: Sequence[object], separator: str = ", ", most: int = 3) -> str:
    """Join the first few items, and add how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{separator.join(map(str, items[:most]))}{more}"


def closest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the most similar word, " (did you mean 'lam'?)"; "" if none is."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Like `closest`, but if no word is similar, list the known words unless they are many."""
    names = sorted(known)
    return closest(word, names) or (f" (known: {', '.join(names)})" if len(names) <= 20 else "")

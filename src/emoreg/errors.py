"""User-facing errors, printed without a traceback, and the text that goes into them."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable

MAX_LENGTH = 6000  # of a message, in characters: a path may have 4,096


class UserError(Exception):
    """Bad input, explained in one line: what was wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2. Names, values and other libraries' messages
    are made printable first, so that nothing in them can control a terminal.
    """

    def __init__(self, message: str) -> None:
        line = printable(re.sub(r"\s*[\r\n]\s*", " ", message.strip()))
        if len(line) > MAX_LENGTH:  # the place stands at the beginning, what to do at the end
            line = f"{line[: MAX_LENGTH * 2 // 3]} … {line[-MAX_LENGTH // 3 :]}"
        super().__init__(line)


class Diverged(UserError):
    """Losses, weights or answers of a training that are not finite. A study counts such a run, with no accuracy."""


class SettingError(UserError, ValueError):
    """A setting with a wrong value or an unknown name.

    Its message is `[path[:line]: ]key: reason`. Callers that know more about where the setting comes from raise it
    again with `within` or `at` instead of editing the message. It can be pickled, so it crosses processes.

    Args:
        key: dotted name, such as "training.epochs"; empty for an error that concerns no single setting.
        reason: what is wrong and what to do, such as "must be at least 1, not 0".
        path: file that sets it; None if no file does.
        line: in that file, from 1.
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
        """The same error for a setting of `section`: "epochs" within "training" is "training.epochs".

        A key that begins with an index is that of an element: "[1].name" within "also" is "also[1].name".
        """
        dot = "." if section and self.key and not self.key.startswith("[") else ""
        return SettingError(f"{section}{dot}{self.key}", self.reason, self.path, self.line)

    def at(self, path: str | os.PathLike[str], line: int | None = None) -> SettingError:
        """The same error for a setting that stands in this file, on this line if it is known."""
        return SettingError(self.key, self.reason, path, line)


def printable(text: str) -> str:
    """The text in one line: line ends, control characters and broken Unicode are written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_plain(name: str) -> bool:
    """Whether a name can stand in any file and on any terminal: no control characters, no broken Unicode."""
    return all(unicodedata.category(character) not in ("Cc", "Cs") for character in name)


def shortened(text: str, length: int = 100) -> str:
    """At most so many characters of a text in one line, such as another library's message."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def closest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the known word that was meant, " (did you mean 'lam'?)"; "" if none is near."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """As `closest`; where no word is near, it names a few known ones."""
    names = sorted(known)
    return closest(word, names) or (f" (known: {', '.join(names)})" if len(names) <= 16 else "")

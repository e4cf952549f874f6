"""The one error that is meant for people."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

MAX_LENGTH = 6000  # of a message, in characters: a path may have 4,096


class UserError(Exception):
    """Bad input, told in one line: what was wrong, where, and what to do.

    The command line prints it without a traceback and ends with exit code 2. Whatever names, values or other
    libraries' messages are in it, it is one line that can be read, and nothing in it can control a terminal.
    """

    def __init__(self, message: str) -> None:
        line = printable(re.sub(r"\s*[\r\n]\s*", " ", message.strip()))
        if len(line) > MAX_LENGTH:  # the place stands at the beginning, what to do at the end
            line = f"{line[: MAX_LENGTH * 2 // 3]} … {line[-MAX_LENGTH // 3 :]}"
        super().__init__(line)


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


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest known word, or a few: " (did you mean 'lam'?)"."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if len(names) <= 16 else ""

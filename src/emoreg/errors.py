"""The one error that is meant for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in one line: what was wrong, where, and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest known word, or a few: " (did you mean 'lam'?)"."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if len(names) <= 16 else ""

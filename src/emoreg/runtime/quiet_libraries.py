"""Suppression of library warnings that do not help users, or that our own messages replace."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator


def hush(category: type[Warning] = Warning, message: str = "", module: str = "") -> None:
    """Ignore one kind of warning from now on; call it every time before the code that may warn.

    `warnings.catch_warnings` would restore the filters afterwards, but is not safe in the threads that decode images.

    Args:
        category: category of the warning.
        message: pattern for the start of its text; empty for any.
        module: pattern for the start of the name of the module that it concerns; empty for any.
    """
    text = re.compile(message, re.IGNORECASE) if message else None
    wanted = ("ignore", text, category, re.compile(module) if module else None, 0)
    for entry in warnings.filters:
        if entry == wanted:
            return
        if entry[0] != "ignore":  # takes precedence over a later entry of ours
            break
    warnings.filterwarnings("ignore", message=message, category=category, module=module)


@contextlib.contextmanager
def errors_only(*loggers: str, level: int = logging.ERROR) -> Iterator[None]:
    """Let these loggers report errors only, or what has at least this level: our own error sums up their attempts."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in levels:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)

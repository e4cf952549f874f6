"""Warnings of libraries that tell a user nothing, or nothing that our own messages do not tell better."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator


def hush(category: type[Warning] = Warning, message: str = "", module: str = "") -> None:
    """Ignore one kind of warning from here on; called where it arises, every time.

    `warnings.catch_warnings` would end when the work does, but it must not be used in threads, and images are decoded
    in threads: two that overlap leave the filters of the one that ends last.

    Args:
        category: of the warning.
        message: pattern of its beginning; empty for any.
        module: pattern of the beginning of the module's name that the warning is about; empty for any.
    """
    own = (
        "ignore",
        re.compile(message, re.IGNORECASE) if message else None,
        category,
        re.compile(module) if module else None,
        0,
    )
    for entry in warnings.filters:
        if entry == own:
            return
        if entry[0] != "ignore":  # behind it, ours would not count
            break
    warnings.filterwarnings("ignore", message=message, category=category, module=module)


@contextlib.contextmanager
def errors_only(*loggers: str) -> Iterator[None]:
    """Within, these libraries log errors alone, and not each of their attempts, which our own error sums up."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)

"""Removal of private paths from what people publish: tables, cards, environment files and pages.

Absolute paths contain home folders and user names, and mean nothing on other machines.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

# A path from a root, a drive or a home folder, not preceded by a word, a relative path or a URL.
_PATH = r"(?:file:/{2,3}|~[\w.-]*|[A-Za-z]:)?[/\\]{1,2}"
_QUOTED = re.compile(rf"""(?<=['"`]){_PATH}[^'"`\n]+(?=['"`])""")
_BARE = re.compile(rf"""(?<![\w.:/\\~-]){_PATH}[^\s/\\:;,'"`()<>|\[\]{{}}]+(?:[/\\]+[^\s/\\:;,'"`()<>|\[\]{{}}]*)*""")
_STARTS = re.compile(r"[/\\~]|[A-Za-z]:[/\\]|file:")


def portable(path: str | Path, base: Path) -> str:
    """Return a path in a form that may be published.

    Args:
        path: a file or folder.
        base: the folder that is published, such as a study's.

    Returns:
        The path relative to `base` if it is inside; unchanged if it is relative without ".."; else its last part.
    """
    text = str(path)
    with contextlib.suppress(OSError, ValueError):  # an impossible path
        full, top = Path(text).resolve(), base.resolve()
        if full.is_relative_to(top) and full != top:
            return full.relative_to(top).as_posix()
    return _last(text) if _STARTS.match(text) or ".." in re.split(r"[/\\]", text) else text


def without_places(text: str, base: Path | None = None) -> str:
    """Shorten every absolute path in a text, such as an error message, to its last part.

    Args:
        text: text of any length.
        base: a folder; paths inside it and inside the working folder become relative instead.
    """
    folders = [Path().resolve()] if base is None else [base, base.resolve(), Path().resolve()]
    for folder in folders:
        if folder.is_absolute() and folder != Path(folder.anchor):
            text = re.sub(rf"(?<![\w/\\]){re.escape(str(folder))}[/\\]", "", text)
    return _BARE.sub(lambda path: _last(path[0]), _QUOTED.sub(lambda path: _last(path[0]), text))


def without_folders(arguments: Sequence[str]) -> str:
    """Join a command line, with every path shortened to its last part, including relative ones."""
    return " ".join(map(_without_folder, arguments))


def _without_folder(argument: str) -> str:
    name, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if value.startswith("hf:"):  # a set on the Hugging Face Hub
        return argument
    if re.search(r"[\s{\[]", value):  # a condition, or YAML
        return name + equals + without_places(value)
    return name + equals + (_last(value) if re.search(r"[/\\]", value) else value)


def _last(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")]
    return parts[-1] if parts else "."

"""Paths in what people publish: tables, cards, environment files and pages tell no place of a machine.

Absolute paths have home folders and the names of users in them, and mean nothing elsewhere.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

# A path from a root, a drive or a home folder. What is before it may not be part of a word, of a relative path or URL.
_PATH = r"(?:file:/{2,3}|~[\w.-]*|[A-Za-z]:)?[/\\]{1,2}"
_QUOTED = re.compile(rf"""(?<=['"`]){_PATH}[^'"`\n]+(?=['"`])""")
_BARE = re.compile(rf"""(?<![\w.:/\\~-]){_PATH}[^\s/\\:;,'"`()<>|\[\]{{}}]+(?:[/\\]+[^\s/\\:;,'"`()<>|\[\]{{}}]*)*""")
_STARTS = re.compile(r"[/\\~]|[A-Za-z]:[/\\]|file:")


def portable(path: str | Path, base: Path) -> str:
    """A path as it may be published.

    Args:
        path: of a file or folder, as written.
        base: the folder that is published, such as a study's.

    Returns:
        Below `base` the path from there; as it is written if it is relative and does not climb; else its last part.
    """
    text = str(path)
    with contextlib.suppress(OSError, ValueError):  # of a path that no system has
        here, top = Path(text).resolve(), base.resolve()
        if here.is_relative_to(top) and here != top:
            return here.relative_to(top).as_posix()
    return _last(text) if _STARTS.match(text) or ".." in re.split(r"[/\\]", text) else text


def without_places(text: str, base: Path | None = None) -> str:
    """Text, such as an error's, in which of each path from a root its last part alone is left.

    Args:
        text: of any length.
        base: a folder below which paths are told from there, as they are below the working folder.
    """
    for folder in dict.fromkeys(str(each) for given in (base, Path()) if given for each in (given, given.resolve())):
        if Path(folder).is_absolute() and folder != Path(folder).anchor:
            text = re.sub(rf"(?<![\w/\\]){re.escape(folder)}[/\\]", "", text)
    return _BARE.sub(lambda found: _last(found[0]), _QUOTED.sub(lambda found: _last(found[0]), text))


def without_folders(arguments: Sequence[str]) -> str:
    """A command line with the last part alone of each path, also of relative ones, which may climb anywhere."""
    return " ".join(map(_without_folder, arguments))


def _without_folder(argument: str) -> str:
    name, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if value.startswith("hf:"):  # a set of the Hugging Face Hub
        return argument
    if re.search(r"[\s{\[]", value):  # a condition, or settings in YAML
        return name + equals + without_places(value)
    return name + equals + (_last(value) if re.search(r"[/\\]", value) else value)


def _last(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")]
    return parts[-1] if parts else "."

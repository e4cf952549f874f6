"""Every command in the README and the docs exists, with its options and its recipes."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

import emoreg
from emoreg.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The words of each command in the code blocks of a page, without comments and what stands behind a pipe."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for line in re.findall(r"^(?:    )?(?:\$ )?(emoreg [a-z].*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        found.append([word for word in words[: words.index("|") if "|" in words else None] if word not in ("&", ">")])
    return found


COMMANDS = {" ".join(words): (page, words) for page in PAGES for words in commands(page)}


@cache
def help_of(command: tuple[str, ...]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return printed.getvalue()


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_in_the_docs_is_one_that_the_parser_knows(line: str) -> None:
    page, (_, *words) = COMMANDS[line]
    parts = words[:2] if words[0] in ("data", "runs") else words[:1]
    known = help_of(tuple(parts))
    for word in words:
        option = re.match(r"--[\w.-]+", word)
        if option:
            assert re.search(rf"(?<![\w.-]){re.escape(option[0])}(?![\w.-])", known), f"{page.name}: {option[0]}"
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file(), f"{page.name}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_sentence_calls_is_a_public_name_or_imported_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {*re.findall(r"`emoreg\.([\w.]+)\(", text)} <= {*emoreg.__all__}
    for line in re.findall(r"`(from emoreg[\w.]* import \w+)`", text):
        exec(line, {})

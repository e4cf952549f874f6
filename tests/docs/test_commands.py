"""Every command in the README and the docs exists, with its options and recipes; so does every name they call."""

from __future__ import annotations

import contextlib
import inspect
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
    """The words of each command in the code blocks of a page, without comments and without what follows a pipe."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = []
    for line in re.findall(r"^(?:    )?(?:\$ )?(emoreg [a-z].*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        if "|" in words:
            words = words[: words.index("|")]
        lines.append([word for word in words if word not in ("&", ">")])
    return lines


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
def test_every_command_in_the_docs_has_the_options_of_the_parser(line: str) -> None:
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
def test_brackets_in_commands_are_in_quotes_as_zsh_needs_them(page: Path) -> None:
    for line in re.findall(r"^    ((?:emoreg|pip) .*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line).partition(" #")[0]
        assert "[" not in unquoted, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_text_are_public_or_can_be_imported(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {*re.findall(r"`emoreg\.([\w.]+)\(", text)} <= {*emoreg.__all__}
    for line in re.findall(r"`(from emoreg[\w.]* import \w+)`", text):
        exec(line, {})


def test_the_page_on_python_names_every_function_that_shows_progress() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"^([^.]+)\shave an argument\s`progress`\.", text, re.MULTILINE)
    public = {name: getattr(emoreg, name) for name in emoreg.__all__}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    showing = {name for name, value in functions.items() if "progress" in inspect.signature(value).parameters}
    assert {*re.findall(r"`(\w+)`", sentence)} == showing

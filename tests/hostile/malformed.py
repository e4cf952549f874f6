"""Malformed inputs of every kind, each given to the command line as a user would give it.

    python tests/hostile/malformed.py           # all of them, with a table by kind; about a minute
    python tests/hostile/malformed.py recipe    # one kind, with every message

Each must end with exit code 2 and one line on the standard error that names the place: the file, the row, the key.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Content = str | bytes | Callable[[Path], None]
SECONDS = 20  # that a command may take: all of them need a fraction of one


@dataclass(frozen=True)
class Malformed:
    """One input.

    Args:
        kind: of input, a line of the table.
        name: what is wrong with it; unlike any other of the kind.
        files: by path below the working folder: what stands in them, or what makes them.
        command: of emoreg, in the working folder.
        place: what the message must name.
    """

    kind: str
    name: str
    files: Mapping[str, Content]
    command: Sequence[str]
    place: str


@dataclass(frozen=True)
class Outcome:
    """How the command ended.

    Args:
        code: its exit code; None for an exception that was let through.
        told: on the standard error.
        place: that must be named.
        ran_code: whether a file "hacked" is there, which code in the input would make.
    """

    code: int | None
    told: str
    place: str
    ran_code: bool

    @property
    def is_one_line(self) -> bool:
        """Whether one line was told, and a short one."""
        return self.told.startswith("emoreg: ") and self.told.count("\n") == 1 and len(self.told) <= 7000

    @property
    def names_place(self) -> bool:
        """Whether the message says where."""
        return self.place in self.told

    @property
    def is_traceback(self) -> bool:
        """Whether Python's own way of telling was seen."""
        return "Traceback" in self.told

    @property
    def is_good(self) -> bool:
        """Whether all is as it must be."""
        return self.code == 2 and self.is_one_line and self.names_place and not (self.is_traceback or self.ran_code)


def all_inputs() -> list[Malformed]:
    """Every input of every kind."""
    from hostile.human_label_inputs import human_label_inputs
    from hostile.label_inputs import label_inputs
    from hostile.result_inputs import result_inputs
    from hostile.run_inputs import run_inputs
    from hostile.set_inputs import set_inputs
    from hostile.settings_inputs import settings_inputs

    label_files = (*label_inputs(), *human_label_inputs())
    return [*settings_inputs(), *label_files, *set_inputs(), *result_inputs(), *run_inputs()]


def outcome(malformed: Malformed) -> Outcome:
    """Make the files in a new folder, run the command there, in this process, and see how it ends."""
    from emoreg.cli.main import main

    told = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stderr(told),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        for name, content in malformed.files.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            with _at_most(SECONDS):
                code: int | None = main(malformed.command)
        except BaseException:  # SystemExit too
            code = None
            traceback.print_exc(limit=-3)
        return Outcome(code, told.getvalue(), malformed.place, Path("hacked").exists())


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """TimeoutError for what waits for a pipe, or reads a file that has no end."""

    def end(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(kinds: Sequence[str]) -> int:
    """Try all, and print the table. 1 if one is not as it must be."""
    from rich.console import Console
    from rich.table import Table

    begun = time.perf_counter()
    inputs = [one for one in all_inputs() if not kinds or one.kind in kinds]
    found: dict[str, list[Outcome]] = {}
    for one in inputs:
        seen = outcome(one)
        found.setdefault(one.kind, []).append(seen)
        if kinds or not seen.is_good:
            print(f"{'' if seen.is_good else 'NOT AS IT MUST BE: '}{one.kind}: {one.name}: {seen.told.strip()}")
    table = Table(
        "kind of input", "inputs", "exit code 2", "one line", "names the place", "no traceback", "no code run"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, seen_of_kind in (*found.items(), ("total", [one for of_kind in found.values() for one in of_kind])):
        if kind == "total":
            table.add_section()
        table.add_row(kind, *map(str, _counts(seen_of_kind)))
    Console().print(table)
    print(f"{len(inputs)} malformed inputs in {time.perf_counter() - begun:.0f} s")
    return 0 if all(one.is_good for of_kind in found.values() for one in of_kind) else 1


def _counts(seen: Sequence[Outcome]) -> Iterator[int]:
    yield len(seen)
    yield sum(one.code == 2 for one in seen)
    yield sum(one.is_one_line for one in seen)
    yield sum(one.names_place for one in seen)
    yield sum(not one.is_traceback for one in seen)
    yield sum(not one.ran_code for one in seen)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))

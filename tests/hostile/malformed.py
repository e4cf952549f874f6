"""Run the command line on malformed inputs of every kind.

    python tests/hostile/malformed.py           # all of them, with a table by kind; a few minutes
    python tests/hostile/malformed.py recipe    # one kind, with every message

Each must end with exit code 2 and one line on standard error that names the place: the file, the row or the key.
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
SECONDS = 20  # time limit of a command; each takes a fraction of a second


@dataclass(frozen=True)
class Malformed:
    """One malformed input.

    Args:
        kind: kind of input; a row of the table.
        name: what is wrong with it; unique within its kind.
        files: by path below the working folder, the content of each file or a function that creates it.
        command: arguments of emoreg, run in the working folder.
        place: text that the message must contain.
    """

    kind: str
    name: str
    files: Mapping[str, Content]
    command: Sequence[str]
    place: str


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        code: exit code; None if an exception escaped.
        stderr: the standard error.
        place: text that the message must contain.
        ran_code: whether code in the input ran, which creates a file "hacked".
    """

    code: int | None
    stderr: str
    place: str
    ran_code: bool

    @property
    def is_one_line(self) -> bool:
        """Whether the standard error is one line of limited length."""
        return self.stderr.startswith("emoreg: ") and self.stderr.count("\n") == 1 and len(self.stderr) <= 7000

    @property
    def names_place(self) -> bool:
        """Whether the message names the place."""
        return self.place in self.stderr

    @property
    def is_traceback(self) -> bool:
        """Whether a traceback was printed."""
        return "Traceback" in self.stderr

    @property
    def is_good(self) -> bool:
        """Whether the input was refused as it should be."""
        return self.code == 2 and self.is_one_line and self.names_place and not (self.is_traceback or self.ran_code)


def all_inputs() -> list[Malformed]:
    """Return the inputs of all kinds."""
    from hostile.human_label_inputs import human_label_inputs
    from hostile.label_inputs import label_inputs
    from hostile.result_inputs import result_inputs
    from hostile.run_inputs import run_inputs
    from hostile.set_inputs import set_inputs
    from hostile.settings_inputs import settings_inputs

    label_files = (*label_inputs(), *human_label_inputs())
    return [*settings_inputs(), *label_files, *set_inputs(), *result_inputs(), *run_inputs()]


def outcome(malformed: Malformed) -> Outcome:
    """Create the files in a new folder, run the command there in this process, and return how it ended."""
    from emoreg.cli.main import main

    stderr = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        for name, content in malformed.files.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path, content)
        try:
            with _time_limit(SECONDS):
                code: int | None = main(malformed.command)
        except BaseException:  # SystemExit too
            code = None
            traceback.print_exc(limit=-3)
        return Outcome(code, stderr.getvalue(), malformed.place, Path("hacked").exists())


def put(path: Path, content: Content) -> None:
    """Create a file with this content, or by this function."""
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in a command that waits for a pipe or reads an endless file."""

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
    """Run the inputs of these kinds (all if none is given) and print a table. Return 1 if one was not refused well."""
    from rich.console import Console
    from rich.table import Table

    start = time.perf_counter()
    inputs = [malformed for malformed in all_inputs() if not kinds or malformed.kind in kinds]
    by_kind: dict[str, list[Outcome]] = {}
    for malformed in inputs:
        result = outcome(malformed)
        by_kind.setdefault(malformed.kind, []).append(result)
        if kinds or not result.is_good:
            verdict = "" if result.is_good else "FAILED: "
            print(f"{verdict}{malformed.kind}: {malformed.name}: {result.stderr.strip()}")
    outcomes = [result for results in by_kind.values() for result in results]
    table = Table(
        "kind of input", "inputs", "exit code 2", "one line", "names the place", "no traceback", "no code run"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, results in by_kind.items():
        table.add_row(kind, *map(str, _counts(results)))
    table.add_section()
    table.add_row("total", *map(str, _counts(outcomes)))
    Console().print(table)
    print(f"{len(inputs)} malformed inputs in {time.perf_counter() - start:.0f} s")
    return 0 if all(result.is_good for result in outcomes) else 1


def _counts(outcomes: Sequence[Outcome]) -> Iterator[int]:
    yield len(outcomes)
    yield sum(result.code == 2 for result in outcomes)
    yield sum(result.is_one_line for result in outcomes)
    yield sum(result.names_place for result in outcomes)
    yield sum(not result.is_traceback for result in outcomes)
    yield sum(not result.ran_code for result in outcomes)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))

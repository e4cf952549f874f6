"""Progress for people: bars with an estimate in a terminal, plain lines elsewhere, silence on request."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich is imported when a bar is first shown
    from rich.progress import Progress as _RichProgress

Advance = Callable[[int], None]


class Progress:
    """Shows tasks that run within each other.

    Args:
        quiet: show nothing.
        details: show a line an epoch too.
        every: without a terminal, the least seconds between two lines of one task.
    """

    def __init__(self, quiet: bool = False, details: bool = True, every: float = 15.0) -> None:
        self.quiet, self.details, self.every = quiet, details, every
        self._bars: _RichProgress | None = None
        self._depth = 0

    @property
    def is_showing(self) -> bool:
        """Whether there are bars in the terminal now."""
        return self._bars is not None

    def say(self, line: str) -> None:
        """Print one line, above the bars if there are any."""
        if self.quiet:
            return
        try:
            if self._bars is not None:
                self._bars.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=sys.stderr, flush=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a log on a full disk is no reason to stop what may be done elsewhere
                raise

    def detail(self, line: str) -> None:
        """Print a line that is one of many."""
        if self.details:
            self.say(line)

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Within, call the given function with the number of units done since the last call.

        Args:
            description: what is done.
            total: units in all.
            unit: their name.
            done: units that were done before, which took none of the time.
        """
        if self.quiet:
            yield lambda more: None
        elif sys.stderr.isatty():
            with self._bar(description, total, unit, done) as advance:
                yield advance
        else:
            yield self._lines(description, total, unit, done)

    @contextlib.contextmanager
    def _bar(self, description: str, total: int, unit: str, before: int) -> Iterator[Advance]:
        if self._bars is None:
            self._bars = _rich_progress()
            self._bars.start()
        bars = self._bars
        self._depth += 1
        task = bars.add_task("  " * min(self._depth - 1, 1) + description, total=total, completed=before, unit=unit)
        try:
            yield lambda done: bars.advance(task, done)
        finally:
            bars.remove_task(task)
            self._depth -= 1
            if self._depth == 0:
                bars.stop()
                self._bars = None

    def _lines(self, description: str, total: int, unit: str, before: int) -> Advance:
        begun = last = time.monotonic()
        done = before

        def advance(more: int) -> None:
            nonlocal done, last
            done += more
            now = time.monotonic()
            if now - last >= self.every and before < done < total:
                last = now
                left = (now - begun) / (done - before) * (total - done)
                self.say(f"{description}: {done}/{total} {unit}, about {duration(left)} left")

        return advance


def duration(seconds: float) -> str:
    """In hours and minutes, or minutes and seconds: "2h05m", "3m20s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"


def _rich_progress() -> _RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

"""Progress for people: bars with time estimates in a terminal, plain lines elsewhere, silence on request."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

from emoreg.runtime.streams import print_line

if TYPE_CHECKING:  # imported when the first bar is shown
    from rich.progress import Progress as _RichProgress

Advance = Callable[[int], None]
NARROW = 60  # terminals with fewer columns get no bar, so that the numbers are not cut


class Progress:
    """Shows the progress of tasks, which may be nested.

    Args:
        quiet: show only warnings, see `warn`.
        details: also show one line per epoch.
        every: minimum seconds between two lines of a task, without a terminal.
    """

    def __init__(self, quiet: bool = False, details: bool = True, every: float = 15.0) -> None:
        self.quiet, self.details, self.every = quiet, details, every
        self._bars: _RichProgress | None = None
        self._printed: set[str] = set()

    @property
    def is_showing(self) -> bool:
        """Whether bars are on the terminal."""
        return self._bars is not None

    def say(self, line: str) -> None:
        """Print one line, above any bars."""
        if not self.quiet:
            self.warn(line)

    def warn(self, line: str) -> None:
        """Print one line, above any bars, even if `quiet`."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False, crop=False, overflow="ignore")
        else:
            print_line(line)

    def detail(self, line: str) -> None:
        """Print one line if `details` is set."""
        if self.details:
            self.say(line)

    def report_notes(self, notes: Sequence[str], left_out: Sequence[str] = ()) -> None:
        """Print how a set was read; each line only once, even if many runs read the same set.

        Args:
            notes: how files and labels were interpreted.
            left_out: images that are not used, and why; printed even if `quiet`.
        """
        for line in (*notes, *left_out):
            if line not in self._printed:
                self._printed.add(line)
                if line in left_out:
                    self.warn(line)
                else:
                    self.say(line)

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Show a task; yields a function to call with the number of units done since the last call.

        Args:
            description: name of the task.
            total: number of units.
            unit: name of the units, plural.
            done: units done in an earlier session; ignored in the time estimate.
        """
        if self.quiet:
            yield lambda more: None
        elif self._bars is not None or _has_bars():  # while bars are shown, rich before 15 replaces stderr
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
        indent = "  " if bars.tasks else ""
        task = bars.add_task(indent + description, total=total, completed=before, unit=unit)
        try:
            yield lambda done: bars.advance(task, done)
        finally:
            bars.remove_task(task)
            if not bars.tasks:
                bars.stop()
                self._bars = None

    def _lines(self, description: str, total: int, unit: str, before: int) -> Advance:
        start = last = time.monotonic()
        done = before

        def advance(more: int) -> None:
            nonlocal done, last
            done += more
            now = time.monotonic()
            if now - last >= self.every and before < done < total:
                last = now
                left = (now - start) / (done - before) * (total - done)
                self.say(f"{description}: {done}/{total} {unit}, about {duration(left)} left")

        return advance


def figure(value: float) -> str:
    """Format a number with four decimals and a true minus sign: "−0.0301"."""
    return f"{value:z.4f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Format a duration in hours and minutes, or minutes and seconds: "2h05m", "3m20s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"


MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 365.25 * 86_400  # seconds
UNITS = (
    (YEAR, "a year", "years"),
    (DAY, "a day", "days"),
    (HOUR, "an hour", "hours"),
    (MINUTE, "a minute", "minutes"),
)


def in_words(seconds: float) -> str:
    """Format a long duration with two digits in the most natural unit: "40 minutes", "2.4 days", "an hour"."""
    if seconds < MINUTE:
        return "a minute" if seconds > MINUTE / 2 else "a few seconds"
    for unit, one, name in UNITS:
        number = seconds / unit
        if f"{number:.1f}" == "1.0":
            return one
        if number >= 2 or unit == MINUTE:
            return f"{number:.1f}".removesuffix(".0") + f" {name}" if number < 9.95 else f"{number:,.0f} {name}"
    raise AssertionError


def about(seconds: float) -> str:
    """Format an estimated duration: "about 40 minutes", "a few seconds"."""
    return in_words(seconds) if seconds <= MINUTE / 2 else f"about {in_words(seconds)}"


def _has_bars() -> bool:
    """Whether stderr is a terminal that can move its cursor."""
    try:
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    except ValueError:  # stderr is closed
        return False


class _Lossy:
    """A stream that ignores write errors, so that work continues if its terminal is closed."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _rich_progress() -> _RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    from emoreg.runtime.terminal import size_of

    width, height = size_of(sys.stderr)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    ]
    if width >= NARROW:
        columns.insert(1, BarColumn())
    stream = cast(IO[str], _Lossy(sys.stderr))
    # Without these variables rich follows a resized terminal; with them it would accept even a width of 0.
    is_fixed = "COLUMNS" in os.environ or "LINES" in os.environ
    console = Console(file=stream, width=width, height=height) if is_fixed else Console(file=stream)
    return Progress(*columns, console=console, transient=True)

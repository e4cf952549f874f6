"""What a run reports in another process, for the progress of its study to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from emoreg.runtime.progress import Progress


class Line(NamedTuple):
    """A line to print; a warning even if the study is quiet."""

    text: str
    is_warning: bool

    def show(self, progress: Progress) -> None:
        """Print it."""
        if self.is_warning:
            progress.warn(self.text)
        else:
            progress.say(self.text)


class Notes(NamedTuple):
    """How a set was read."""

    notes: Sequence[str]
    left_out: Sequence[str]

    def show(self, progress: Progress) -> None:
        """Print the lines that no other run has reported."""
        progress.report_notes(self.notes, self.left_out)


class Forwarding(Progress):
    """Gives lines and notes to `forward` instead of printing them. `is_quiet` is for further processes of the run."""

    def __init__(self, forward: Callable[[Line | Notes], object], is_quiet: bool = True) -> None:
        super().__init__(is_quiet, details=False)
        self.forward = forward

    def say(self, line: str) -> None:
        """Forward a line."""
        self.forward(Line(line, is_warning=False))

    def warn(self, line: str) -> None:
        """Forward a warning."""
        self.forward(Line(line, is_warning=True))

    def report_notes(self, notes: Sequence[str], left_out: Sequence[str] = ()) -> None:
        """Forward how a set was read."""
        self.forward(Notes(notes, left_out))

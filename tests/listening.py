"""A progress that records its output."""

from __future__ import annotations

from emoreg.runtime.progress import Progress


class Listening(Progress):
    """Prints nothing and keeps messages and warnings in `lines`."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)

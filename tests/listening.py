"""Progress that remembers what it says."""

from __future__ import annotations

from emoreg.runtime.progress import Progress


class Listening(Progress):
    """Silent; `lines` are what would have been printed."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)

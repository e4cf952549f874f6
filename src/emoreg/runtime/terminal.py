"""Tables in the terminal, by rich. Imported only where something is printed, as rich takes time to import."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emoreg.errors import printable


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise, so that the command ends as after a failed `print`; rich would exit with code 1."""
        raise BrokenPipeError


def console() -> Console:
    """A console on stdout that does not colour numbers and paths."""
    return _Console(highlight=False)


def two_columns(name: str, value: str, rows: Iterable[tuple[str, str | Text]], title: str | None = None) -> Table:
    """A table of names and right-aligned values, with a title on the left."""
    table = Table(name, value, title=None if title is None else Text(printable(title)), title_justify="left")
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(*row)
    return table

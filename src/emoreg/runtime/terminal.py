"""What is printed for people, by rich: tables and lines. Imported only where something is printed, as rich takes time.

Every table is a `Table` and is printed by `show`: what does not fit is printed as records, and no value is ever cut.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import rich.table
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.style import StyleType
from rich.text import Text

from emoreg.errors import printable
from emoreg.runtime.streams import spelled

UNKNOWN = (80, 25)  # columns and lines of a terminal that does not say
ENDLESS = 100_000  # columns of a file or a pipe, whose reader wants whole lines


def show(*parts: RenderableType) -> None:
    """Print to stdout, one below the other. A str is printed as it is, without markup.

    In a terminal, or if COLUMNS is set, lines are broken between words; in a file or a pipe they are whole.
    """
    width, height = size_of(sys.stdout)
    console = Console(highlight=False, width=width, height=height)
    for part in parts:
        whole = Text(part) if isinstance(part, str) else part
        console.print(whole, overflow="ignore", crop=False)  # a word that is wider than the terminal stays whole


def size_of(stream: IO[str] | None) -> tuple[int, int]:
    """Columns and lines that a stream has: as COLUMNS and LINES say, as its terminal says, or `UNKNOWN`.

    Whatever is no positive number counts as not said. A stream that is no terminal has as many columns as are needed.
    """
    columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    size = _terminal_size(stream)
    return (_positive(columns) or size[0] or UNKNOWN[0], _positive(lines) or size[1] or UNKNOWN[1])


def _terminal_size(stream: IO[str] | None) -> tuple[int, int]:
    try:
        if stream is None or not stream.isatty():
            return (ENDLESS, 0)
        return os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # a terminal that tells nothing, or a stream without a number
        return (0, 0)


def _positive(number: str) -> int:
    return int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0


class Table(rich.table.Table):
    """A table that breaks its cells between words only. Where that is not enough, it is printed as records.

    A record is a line "header: value" for each cell, with a blank line behind it; of a table with two columns a record
    is the one line "first: second". Headers and cells that are given as str are shown as they are, without markup.
    """

    def add_column(self, header: RenderableType = "", *others: Any, **options: Any) -> None:
        """Add a column, as rich does."""
        super().add_column(_plain(header), *others, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row, as rich does."""
        super().add_row(*(None if cell is None else _plain(cell) for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or its records, between its title and its caption."""
        if self.title:
            yield _styled(self.title, self.title_style or "table.title")
        if self._fit(console, options):
            alone = copy.copy(self)  # rich would break the title and the caption where the table ends
            alone.title = alone.caption = None
            yield from rich.table.Table.__rich_console__(alone, console, options)
        else:
            yield from self._records()
        if self.caption:
            yield _styled(self.caption, self.caption_style or "table.caption")

    def _fit(self, console: Console, options: ConsoleOptions) -> bool:
        """Set the columns' widths, from all on one line down to their longest words. Whether that is narrow enough."""
        anything = options.update(width=ENDLESS, overflow="ignore", no_wrap=False)
        least = []
        for column in self.columns:
            shown = [column.header, *column.cells] if self.show_header else list(column.cells)
            sizes = [Measurement.get(console, anything, cell) for cell in shown]
            column.width = max((size.maximum for size in sizes), default=1)
            least.append(column.width if column.no_wrap else max((size.minimum for size in sizes), default=1))
        too_wide = Measurement.get(console, anything, self).maximum - options.max_width
        while too_wide > 0:
            spare, widest = max(
                ((column.width or 0) - narrow, place)
                for place, (column, narrow) in enumerate(zip(self.columns, least, strict=True))
            )
            if spare <= 0:
                return False
            column = self.columns[widest]
            column.width = (column.width or 0) - 1
            too_wide -= 1
        return True

    def _records(self) -> Iterator[Text]:
        headers = [_line(column.header, " ") for column in self.columns] if self.show_header else []
        for row in zip(*(list(column.cells) for column in self.columns), strict=True):
            cells = [_line(cell) for cell in row]
            if len(cells) == 2:
                yield Text(": ".join(filter(None, cells)))
                continue
            if sum(map(bool, cells)) == 1:  # a heading within the table
                yield Text("".join(cells))
                continue
            names = headers or [""] * len(cells)
            yield from (
                Text(f"{name}: {cell}" if name else cell) for name, cell in zip(names, cells, strict=True) if cell
            )
            yield Text("")


def two_columns(name: str, value: str, rows: Iterable[tuple[str, str | Text]], title: str | None = None) -> Table:
    """A table of names and right-aligned values, with a title on the left."""
    table = Table(name, value, title=None if title is None else Text(printable(title)), title_justify="left")
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(*row)
    return table


def _plain(cell: RenderableType) -> Any:
    """A str as a Text without markup and control characters, and any text as stdout will show it."""
    if isinstance(cell, str):
        cell = Text("\n".join(printable(line) for line in cell.split("\n")))
    if isinstance(cell, Text):
        shown = spelled(cell.plain, getattr(sys.stdout, "encoding", None))
        if shown != cell.plain:
            return Text(shown, cell.style)  # its spans are places in the other spelling
    return cell


def _styled(text: RenderableType, style: StyleType) -> Any:
    shown = _plain(text)
    if isinstance(shown, Text):
        shown = shown.copy()
        shown.stylize_before(style)
    return shown


def _line(cell: RenderableType, between: str = "; ") -> str:
    lines = (cell.plain if isinstance(cell, Text) else str(cell)).split("\n")
    return between.join(filter(None, (line.strip() for line in lines)))

"""Printing of tables and lines with rich. Import it only where something is printed, since importing rich takes time.

Every table is a `Table` and is printed by `show`: if it does not fit, it is printed as records, so no value is cut.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import rich.table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import StyleType
from rich.text import Text

from emoreg.errors import printable
from emoreg.runtime.streams import spelled

UNKNOWN = (80, 25)  # columns and lines of a terminal that does not report its size
ENDLESS = 100_000  # columns of a file or a pipe, where lines are not wrapped


def show(*parts: RenderableType) -> None:
    """Print to stdout, one below the other. A str is printed without markup.

    In a terminal, or if COLUMNS is set, lines are wrapped between words; in a file or a pipe they are not, nor are
    records of a table.
    """
    width, height = size_of(sys.stdout)
    console = _Console(highlight=False, width=width, height=height)
    for part in parts:
        printed = Text(part) if isinstance(part, str) else part
        console.print(printed, overflow="ignore", crop=False)  # words wider than the terminal are not cut


class _Console(Console):
    """A console that breaks lines of text between words. Rich breaks none if it must not cut words."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        options = options or self.options
        if isinstance(renderable, Text) and options.overflow == "ignore" and not renderable.no_wrap:
            renderable = _between_words(renderable, options.max_width)
        return super().render(renderable, options)


def _between_words(text: Text, width: int) -> Text:
    lines: list[Text] = []
    for line in text.split(allow_blank=True):
        starts = [0]
        for word in re.finditer(r"\S+", line.plain):
            before = line.plain[starts[-1] : word.start()]
            if before.strip() and cell_len(before + word[0]) > width:
                starts.append(word.start())
        pieces = line.divide(starts[1:])
        for piece in pieces[:-1]:
            piece.rstrip()
        lines += pieces
    return Text("\n", end=text.end).join(lines)


def size_of(stream: IO[str] | None) -> tuple[int, int]:
    """Return the columns and lines of a stream: COLUMNS and LINES, the size of its terminal, or `UNKNOWN`.

    Anything but a positive number is ignored. A stream that is not a terminal has `ENDLESS` columns.
    """
    columns, lines = _terminal_size(stream)
    return (
        _positive(os.environ.get("COLUMNS", "")) or columns or UNKNOWN[0],
        _positive(os.environ.get("LINES", "")) or lines or UNKNOWN[1],
    )


def _terminal_size(stream: IO[str] | None) -> tuple[int, int]:
    try:
        if stream is None or not stream.isatty():
            return (ENDLESS, 0)
        return os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # no size, or a stream without a file descriptor
        return (0, 0)


def _positive(number: str) -> int:
    return int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0


class Table(rich.table.Table):
    """A table that wraps its cells only between words. If it is still too wide, it is printed as records.

    A record has a line "header: value" for each cell, and a blank line at the end; in a table with two columns it is
    the single line "first: second". A str as a header or cell is printed without markup.
    """

    def add_column(self, header: RenderableType = "", *others: Any, **options: Any) -> None:
        """Add a column; a str header is plain text."""
        super().add_column(_plain(header), *others, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row; str cells are plain text."""
        super().add_row(*(None if cell is None else _plain(cell) for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table or its records between its title and its caption."""
        if self.title:
            yield _styled(self.title, self.title_style or "table.title")
        if self._fit(console, options):
            body = copy.copy(self)  # rich would wrap the title and the caption at the width of the table
            body.title = body.caption = None
            yield from rich.table.Table.__rich_console__(body, console, options)
        else:
            for line in self._records():
                line.no_wrap = True  # a line for each value
                yield line
        if self.caption:
            yield _styled(self.caption, self.caption_style or "table.caption")

    def _fit(self, console: Console, options: ConsoleOptions) -> bool:
        """Narrow the columns, down to their longest words, until the table fits; return whether it does."""
        unlimited = options.update(width=ENDLESS, overflow="ignore", no_wrap=False)
        narrowest = []
        for column in self.columns:
            cells = [column.header, *column.cells] if self.show_header else list(column.cells)
            sizes = [Measurement.get(console, unlimited, cell) for cell in cells]
            column.width = max((size.maximum for size in sizes), default=1)
            narrowest.append(column.width if column.no_wrap else max((size.minimum for size in sizes), default=1))
        excess = Measurement.get(console, unlimited, self).maximum - options.max_width
        for _ in range(excess):
            spare, index = max(
                ((column.width or 0) - minimum, index)
                for index, (column, minimum) in enumerate(zip(self.columns, narrowest, strict=True))
            )
            if spare <= 0:
                return False
            column = self.columns[index]
            column.width = (column.width or 0) - 1
        return True

    def _records(self) -> Iterator[Text]:
        headers = [_line(column.header, " ") if self.show_header else "" for column in self.columns]
        for row in zip(*(list(column.cells) for column in self.columns), strict=True):
            cells = [_line(cell) for cell in row]
            if len(cells) == 2:
                yield Text(": ".join(cell for cell in cells if cell))
            elif sum(map(bool, cells)) == 1:  # a heading within the table
                yield Text("".join(cells))
            else:
                for header, cell in zip(headers, cells, strict=True):
                    if cell:
                        yield Text(f"{header}: {cell}" if header else cell)
                yield Text("")


def two_columns(name: str, value: str, rows: Iterable[tuple[str, str | Text]], title: str | None = None) -> Table:
    """Return a table of names and right-aligned values, with a left-aligned title."""
    table = Table(name, value, title=None if title is None else Text(printable(title)), title_justify="left")
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(*row)
    return table


def _plain(cell: RenderableType) -> Any:
    """Convert a str to Text without markup and control characters, and any Text to the spelling of stdout."""
    if isinstance(cell, str):
        cell = Text("\n".join(printable(line) for line in cell.split("\n")))
    if isinstance(cell, Text):
        text = spelled(cell.plain, getattr(sys.stdout, "encoding", None))
        if text != cell.plain:
            return Text(text, cell.style)  # without its spans, whose positions are for the original spelling
    return cell


def _styled(text: RenderableType, style: StyleType) -> Any:
    plain = _plain(text)
    if isinstance(plain, Text):
        plain = plain.copy()
        plain.stylize_before(style)
    return plain


def _line(cell: RenderableType, separator: str = "; ") -> str:
    lines = (cell.plain if isinstance(cell, Text) else str(cell)).split("\n")
    return separator.join(line.strip() for line in lines if line.strip())

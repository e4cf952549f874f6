"""How charts are drawn: inline SVG, all of one width so that their text is of one size, in the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emoreg.errors import printable
from emoreg.report.formatting import bounds
from emoreg.report.statistics import Interval

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.9  # inches; at 10 points the text stays legible on a phone
# matplotlib draws with stand-ins, which become CSS variables of the page, so that they differ between light and
# dark: INK the colour of the text, PAPER that of the page, SERIES + two digits that of the arm of this number.
INK, PAPER, SERIES = "#0a0b0c", "#f8f9fa", "#d1e2"
# By number of the arm, so that lines and points differ without colour too: dashes in points, and markers.
DASHES = (
    *((), (5, 1.5), (1.5, 1.5), (9, 2), (5, 1.5, 1.5, 1.5)),
    *((3, 1), (1.5, 3), (9, 2, 2, 2), (5, 1.5, 1.5, 1.5, 1.5, 1.5)),
)
MARKERS = ("o", "o", "s", "^", "D", "v", "X", "P", "<")
STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6},
    **{"font.size": 10, "axes.titlesize": 9, "axes.titlelocation": "left", "lines.linewidth": 1.5},
    **{"svg.fonttype": "none", "svg.hashsalt": "emoreg"},  # text stays text; the same input gives the same bytes
}


@dataclass(frozen=True)
class Chart:
    """A figure of the page."""

    title: str
    spoken: str  # what it shows, for those who do not see it
    svg: Markup


@dataclass(frozen=True)
class Row:
    """A line of a forest chart: a mean with its interval and seeds, or a heading where there is no interval."""

    label: str
    interval: Interval | None = None
    arm: int = 0  # number of the arm whose colour it has
    is_filled: bool = True


def forest(
    key: str, title: str, unit: str, rows: Sequence[Row], line: float | None, number: Callable[[float], str]
) -> Chart:
    """Means, intervals and seeds, a row each.

    Args:
        key: what the ids of the chart begin with, unlike any other's.
        title: says what is drawn.
        unit: of the axis, in hundredths of the rows' values.
        rows: from top to bottom.
        line: where a dashed one stands; None for none.
        number: how a value is written.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if line is not None:
            axes.axvline(100 * line, color=INK, linewidth=0.6, dashes=(4, 4))
        for place, row in enumerate(rows):
            if row.interval is None:
                continue
            values, places = [100 * value for value in row.interval.values], [place + 0.3] * row.interval.n
            axes.plot(values, places, "o", color=colour(row.arm), markersize=2.5, fillstyle="none")
            point(axes, row.interval, place, row.arm, "D", row.is_filled)
        axes.set_yticks(range(len(rows)), [short(row.label) for row in rows])
        axes.tick_params(axis="y", length=0)
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if row.interval is None else "normal")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(unit)

    told = " ".join(_spoken(row, number) for row in rows).rstrip(";")
    spoken = f"{title}, {unit}, mean and 95 % interval. {told}."
    return Chart(title, spoken, svg(key, 0.65 + 0.27 * len(rows), draw))


def point(axes: Axes, interval: Interval, y: float, arm: int, marker: str, is_filled: bool = True) -> None:
    """A mean, in hundredths, with its interval as a line."""
    if interval.low < interval.high:
        axes.hlines(y, 100 * interval.low, 100 * interval.high, color=colour(arm), linewidth=1.5)
    # What is not filled is of the page's colour, so that the line does not show through.
    face = colour(arm) if is_filled else PAPER
    axes.plot(100 * interval.mean, y, marker, color=colour(arm), markersize=5, markerfacecolor=face)


def small_multiples(
    key: str, titles: Sequence[str], height: float, labels: tuple[str, str], draw: Callable[[Axes, int], None]
) -> Markup:
    """Small panels with the same axes, three in a row, each with a title and `height` inches high.

    Args:
        key: what the ids begin with, unlike any other's.
        titles: of the panels.
        height: of a panel.
        labels: of the horizontal and the vertical axis.
        draw: draws the panel of a number.
    """
    rows = -(-len(titles) // 3)

    def draw_all(figure: Figure) -> None:
        grid = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number < len(titles):
                draw(axes, number)
                axes.set_title(short(titles[number], 16))
                axes.tick_params(labelbottom=number >= len(titles) - 3)  # the lowest of its column
            else:
                axes.set_axis_off()
        figure.supxlabel(labels[0], fontsize=10)
        figure.supylabel(labels[1], fontsize=10)

    return svg(key, 0.5 + height * rows, draw_all)


def svg(key: str, height: float, draw: Callable[[Figure], None]) -> Markup:
    """An inline SVG of one chart (height in inches), its ids unlike those of any other `key`."""
    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # it would hold addresses and the time
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    drawn = re.sub(rf"{SERIES}(\d\d)", lambda match: f"var(--arm-{int(match[1])})", drawn)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", drawn)
    drawn = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), drawn)  # smaller by half
    return Markup(re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn)))


def colour(arm: int) -> str:
    """The stand-in for the colour of the arm of this number."""
    return f"{SERIES}{arm:02}"


def short(label: str, length: int = 24) -> str:
    """A label that leaves room for the chart, and that XML can hold."""
    label = printable(label)
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _spoken(row: Row, number: Callable[[float], str]) -> str:
    if row.interval is None:
        return f"{row.label}:"
    between = bounds(row.interval, number).replace(", ", " to ")
    return f"{row.label} {number(row.interval.mean)}{between and f' ({between})'};"

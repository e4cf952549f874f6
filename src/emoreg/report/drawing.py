"""Draws charts as inline SVG, all of one width so that their text has one size, in the page's colours."""

from __future__ import annotations

import bisect
import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from emoreg.errors import printable
from emoreg.report.formatting import bounds
from emoreg.report.statistics import Interval
from emoreg.runtime.fonts import hush_glyphs

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT, HEIGHT_WITH_NUMBERS = 0.27, 0.36  # of a row of a forest chart, in inches
WIDTH = 3.9  # inches; at 10 points the text stays legible on a phone
# Placeholder colours for matplotlib, replaced by the page's CSS variables, which differ between light and dark: INK for
# text, PAPER for the background, BAND for a pale area, SERIES + two digits for an arm by its number.
INK, PAPER, BAND, SERIES = "#0a0b0c", "#f8f9fa", "#c5c6c7", "#d1e2"
# By the arm's number, so that arms differ without colour too: dashes (in points) and markers.
DASHES = (
    *((), (5, 1.5), (1.5, 1.5), (9, 2), (5, 1.5, 1.5, 1.5)),
    *((3, 1), (1.5, 3), (9, 2, 2, 2), (5, 1.5, 1.5, 1.5, 1.5, 1.5), (12, 3)),
    *((3, 3), (12, 2, 2, 2), (9, 2, 1.5, 2, 1.5, 2), (15, 2, 1.5, 2)),
)
MARKERS = ("o", "o", "s", "^", "D", "v", "X", "P", "<", ">", "p", "h", "*", "d")
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
    spoken: str  # its content as text, for screen readers
    svg: Markup


@dataclass(frozen=True)
class Row:
    """A row of a forest chart: a mean with its interval and seeds, or a heading if there is no interval."""

    label: str
    interval: Interval | None = None
    arm: int = 0  # number of an arm, for the colour
    is_filled: bool = True
    smallest: float = math.nan  # end of a pale band from the line at zero; NaN for none


def forest(
    key: str,
    title: str,
    unit: str,
    rows: Sequence[Row],
    line: float | None,
    number: Callable[[float], str],
    has_numbers: bool = False,
) -> Chart:
    """A forest chart: means, intervals and seeds in rows.

    Args:
        key: unique prefix of the chart's ids.
        title: title of the chart.
        unit: unit of the axis: % or percentage points; the rows' values are fractions.
        rows: from top to bottom.
        line: value of a dashed line; None for none.
        number: formats a value.
        has_numbers: whether means stand above their diamonds.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            if not math.isnan(row.smallest):
                axes.fill_between([0, 100 * row.smallest], place - 0.42, place + 0.42, color=BAND, linewidth=0)
        if line is not None:
            axes.axvline(100 * line, color=INK, linewidth=0.6, dashes=(4, 4))
        for place, row in enumerate(rows):
            if row.interval is None:
                continue
            values, places = [100 * value for value in row.interval.values], [place + 0.3] * row.interval.n
            axes.plot(values, places, "o", color=colour(row.arm), markersize=2.5, fillstyle="none")
            point(axes, row.interval, place, row.arm, "D", row.is_filled)
            if has_numbers:
                axes.annotate(
                    number(row.interval.mean),
                    (100 * row.interval.mean, place),
                    (0, 4.5),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=INK,
                )
        axes.set_yticks(range(len(rows)), [short(row.label, 28) for row in rows])
        axes.tick_params(axis="y", length=0)
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if row.interval is None else "normal")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(unit)

    values = " ".join(_spoken(row, number) for row in rows).rstrip(";")
    spoken = f"{title}, {unit}, mean and interval. {values}."
    height = HEIGHT_WITH_NUMBERS if has_numbers else HEIGHT
    return Chart(title, spoken, svg(key, 0.65 + height * len(rows), draw))


def point(axes: Axes, interval: Interval, y: float, arm: int, marker: str, is_filled: bool = True) -> None:
    """A mean, in hundredths, with its interval as a line; PAPER in an open marker hides the line behind it."""
    if interval.low < interval.high:
        axes.hlines(y, 100 * interval.low, 100 * interval.high, color=colour(arm), linewidth=1.5)
    face = colour(arm) if is_filled else PAPER
    axes.plot(100 * interval.mean, y, marker, color=colour(arm), markersize=5, markerfacecolor=face)


def small_multiples(
    key: str, titles: Sequence[str], height: float, labels: tuple[str, str], draw: Callable[[Axes, int], None]
) -> Markup:
    """Small panels with shared axes, three in a row.

    Args:
        key: unique prefix of the chart's ids.
        titles: one per panel.
        height: of a panel, in inches.
        labels: of the horizontal and the vertical axis.
        draw: draws one panel, given its axes and index.
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
    """An inline SVG of one chart, `height` inches high, whose ids start with `key`."""
    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        hush_glyphs()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # would hold addresses and the time
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawn = buffer.getvalue()
    drawn = (
        drawn[drawn.index("<svg") :]
        .replace(INK, "currentColor")
        .replace(PAPER, "var(--paper)")
        .replace(BAND, "var(--band)")
    )
    drawn = re.sub(rf"{SERIES}(\d\d)", lambda match: f"var(--arm-{int(match[1])})", drawn)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", drawn)
    drawn = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), drawn)  # smaller by half
    return Markup(re.sub(r' (width|height)="[^"]*"', "", drawn[: drawn.index(">")]) + drawn[drawn.index(">") :])


def colour(arm: int) -> str:
    """The placeholder for an arm's colour."""
    return f"{SERIES}{arm:02}"


def short(label: str, length: int = 24) -> str:
    """A label cut to `length` characters, of which wide ones count twice, without those that XML cannot hold."""
    label = printable(label)
    ends = list(itertools.accumulate(2 if east_asian_width(letter) in "WF" else 1 for letter in label))
    if not ends or ends[-1] <= length:
        return label
    return f"{label[: bisect.bisect(ends, length - 1)]}…"


def short_inside(label: str, length: int) -> str:
    """As `short`, but cut in the middle: labels of one study may differ at their ends alone."""
    label = printable(label)
    if len(label) <= length or short(label, len(label)) != label:  # of wide letters the end may be half of one
        return short(label, length)
    behind = length * 3 // 5
    return f"{label[: length - behind - 1]}…{label[len(label) - behind :]}"


def _spoken(row: Row, number: Callable[[float], str]) -> str:
    if row.interval is None:
        return f"{row.label}:"
    limits = bounds(row.interval, number, " to ")
    found = "" if math.isnan(row.smallest) else f", smallest effect with power 0.8: {number(row.smallest)}"
    return f"{row.label} {number(row.interval.mean)}{limits and f' ({limits})'}{found};"

"""Draws charts as inline SVG in the page's colours, all of the same width so that their text has the same size."""

from __future__ import annotations

import bisect
import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
# Dashes (in points) and markers by the arm's number, so that arms differ without colour too.
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
    spoken: str  # the content as text, for screen readers
    svg: Markup


@dataclass(frozen=True)
class Row:
    """A row of a forest chart: a mean with its interval and seeds, or a heading if there is no interval."""

    label: str
    interval: Interval | None = None
    arm: int = 0  # number of the arm, for the colour
    is_filled: bool = True
    smallest: float = math.nan  # end of a pale band that starts at zero; NaN for no band


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
        line: value of a dashed line; None for no line.
        number: formats a value.
        has_numbers: whether to write means above their diamonds.
    """
    values = " ".join(_spoken(row, number) for row in rows).rstrip(";")
    spoken = f"{title}, {unit}, mean and interval. {values}."
    height = HEIGHT_WITH_NUMBERS if has_numbers else HEIGHT
    draw = partial(_draw_forest, unit=unit, rows=rows, line=line, number=number if has_numbers else None)
    return Chart(title, spoken, svg(key, 0.65 + height * len(rows), draw))


def _draw_forest(
    figure: Figure, unit: str, rows: Sequence[Row], line: float | None, number: Callable[[float], str] | None
) -> None:
    axes = figure.add_subplot()
    if line is not None:
        axes.axvline(100 * line, color=INK, linewidth=0.6, dashes=(4, 4))
    for place, row in enumerate(rows):
        if row.interval is None:
            continue
        seeds, mean = [100 * value for value in row.interval.values], 100 * row.interval.mean
        axes.plot(seeds, [place + 0.3] * len(seeds), "o", color=colour(row.arm), markersize=2.5, fillstyle="none")
        point(axes, row.interval, place, row.arm, "D", row.is_filled)
        if number is not None:
            axes.annotate(
                number(row.interval.mean),
                (mean, place),
                (0, 4.5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
            )
    bands = {place: 100 * row.smallest for place, row in enumerate(rows) if not math.isnan(row.smallest)}
    left, right = axes.get_xlim()
    axes.set_xlim(left, max(right, min(1.03 * max(bands.values(), default=-math.inf), 2 * right - left)))
    for place, end in bands.items():  # a long one is cut at the edge, so that means and intervals stay apart
        axes.fill_between([0, end], place - 0.42, place + 0.42, color=BAND, linewidth=0, zorder=0)
    axes.set_yticks(range(len(rows)), [short_inside(row.label, 28) for row in rows])
    axes.tick_params(axis="y", length=0)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.interval is None else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(unit)


def point(axes: Axes, interval: Interval, y: float, arm: int, marker: str, is_filled: bool = True) -> None:
    """Draw a mean, in hundredths, with its interval as a line; PAPER in an open marker hides the line behind it."""
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
        labels: labels of the horizontal and the vertical axis.
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
    """Draw one chart as inline SVG, `height` inches high, with ids that start with `key`."""
    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", STYLE]):  # ignores the user's matplotlibrc
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        hush_glyphs()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # they would hold URLs and the time
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = drawn.replace(INK, "currentColor").replace(PAPER, "var(--paper)").replace(BAND, "var(--band)")
    drawn = re.sub(rf"{SERIES}(\d\d)", lambda match: f"var(--arm-{int(match[1])})", drawn)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", drawn)
    drawn = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), drawn)  # smaller by half
    return Markup(re.sub(r' (width|height)="[^"]*"', "", drawn[: drawn.index(">")]) + drawn[drawn.index(">") :])


def colour(arm: int) -> str:
    """The placeholder for the colour of an arm."""
    return f"{SERIES}{arm:02}"


def short(label: str, length: int = 24) -> str:
    """Cut a label to `length` characters, where wide ones count twice, and drop those that XML cannot hold."""
    label = printable(label)
    ends = list(itertools.accumulate(2 if east_asian_width(letter) in "WF" else 1 for letter in label))
    if not ends or ends[-1] <= length:
        return label
    return f"{label[: bisect.bisect(ends, length - 1)]}…"


def short_inside(label: str, length: int) -> str:
    """Cut a label as `short` does, but in the middle: the labels of a study may differ only at their ends."""
    label = printable(label)
    if len(label) <= length or short(label, len(label)) != label:  # has wide letters
        return short(label, length)
    end = length * 3 // 5
    return f"{label[: length - end - 1]}…{label[len(label) - end :]}"


def _spoken(row: Row, number: Callable[[float], str]) -> str:
    if row.interval is None:
        return f"{row.label}:"
    limits = bounds(row.interval, number, " to ")
    smallest = "" if math.isnan(row.smallest) else f", smallest effect with power 0.8: {number(row.smallest)}"
    return f"{row.label} {number(row.interval.mean)}{limits and f' ({limits})'}{smallest};"

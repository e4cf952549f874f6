"""The results for people: a table for the terminal, and one page that opens anywhere, offline."""

from __future__ import annotations

import importlib.resources
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.run import write_atomically
from emoreg.summary import ArmSummary, Interval, best_control, difference, findings, points

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

Cell = tuple[str, str]  # a value, and below it in small its interval, range or remark

# An arm's colour is a CSS variable of the page, so that it can differ between light and dark. matplotlib draws
# with stand-ins: INK becomes the colour of the text, SERIES + two digits the variable of that number.
INK, SERIES, COLOURS = "#0a0b0c", "#d1e2", 6
# Dashes in points, so that lines differ without colour too. Seven, so that 42 arms differ in one or the other.
DASHES = ((), (5, 1.5), (1.5, 1.5), (5, 1.5, 1.5, 1.5), (3, 1), (8, 2), (5, 1.5, 1.5, 1.5, 1.5, 1.5))
STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6},
    **{"font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "lines.linewidth": 1.4},
    **{"svg.fonttype": "none", "svg.hashsalt": "emoreg"},  # text stays text; the same input gives the same bytes
}


def results_table(summaries: Sequence[ArmSummary]) -> Table:
    """One row an arm, within 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.caption, table.caption_justify = Text(_caption(summaries)), "left"
    for number, header in enumerate(_headers(summaries)):
        table.add_column(Text(header), justify="right" if number else "left", no_wrap=True)
    for cells in _rows(summaries):
        table.add_row(*(Text.assemble(value, *([("\n" + below, "dim")] if below else [])) for value, below in cells))
    return table


def write_report(path: Path, title: str, summaries: Sequence[ArmSummary], facts: Mapping[str, str]) -> Path:
    """Write one self-contained HTML page: what was found, the table, the charts, what ran where.

    Args:
        path: of the page.
        title: its heading.
        summaries: one an arm, in the order in which they are shown.
        facts: what ran where, by name.

    Returns:
        The path.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = importlib.resources.files("emoreg").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title,
        findings=findings(summaries),
        headers=_headers(summaries),
        rows=_rows(summaries),
        caption=_caption(summaries),
        accuracy=_accuracy_chart(summaries),
        curves=_curve_charts(summaries),
        legend=[(s.label, number % COLOURS, _dash(number)) for number, s in enumerate(summaries)],
        facts=facts,
    )
    write_atomically(path, page.encode())
    return path


def _caption(summaries: Sequence[ArmSummary]) -> str:
    control = best_control(summaries)
    best = "" if control is None else f" Control: {control.label}."
    return f"Test accuracy and gains: mean over seeds, below it the 95 % interval. λ: mean and range.{best}"


def _headers(summaries: Sequence[ArmSummary]) -> list[str]:
    control = [] if best_control(summaries) is None else ["Gain over\ncontrol,\npoints"]
    return ["Arm", "Accuracy,\n%", "Gain over\nBackbone,\npoints", *control, "λ at\nend", "s per\nrun", "Seeds"]


def _rows(summaries: Sequence[ArmSummary]) -> list[list[Cell]]:
    control = best_control(summaries)
    rows: list[list[Cell]] = []
    for s in summaries:
        row = [(s.label, "control" if s.is_control else ""), _cell(s.accuracy, _percent), _cell(s.gain, points)]
        if control is not None:
            row.append(_cell(_effect(s, control), points))
        rows.append([*row, _lam_cell(s.lam), (f"{s.seconds:.0f}", ""), (str(s.accuracy.n), "")])
    return rows


def _effect(arm: ArmSummary, control: ArmSummary) -> Interval | None:
    if arm.is_control or arm.name == "backbone":
        return None
    return difference(arm.accuracy, control.accuracy)


def _cell(interval: Interval | None, number: Callable[[float], str]) -> Cell:
    if interval is None:
        return "–", ""
    bounds = "n/a (one seed)" if interval.n == 1 else f"{number(interval.low)}, {number(interval.high)}"
    return number(interval.mean), bounds


def _lam_cell(lam: Sequence[float]) -> Cell:
    if not lam:
        return "–", ""
    low, high = f"{min(lam):.2f}", f"{max(lam):.2f}"
    return f"{sum(lam) / len(lam):.2f}", "" if low == high else f"{low}–{high}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


@dataclass(frozen=True)
class Chart:
    """A figure of the page."""

    spoken: str  # what it shows, for those who do not see it
    svg: Markup


def _accuracy_chart(summaries: Sequence[ArmSummary]) -> Chart:
    def draw(axes: Axes) -> None:
        for row, s in enumerate(summaries):
            values, mean = [100 * value for value in s.accuracy.values], 100 * s.accuracy.mean
            axes.plot(values, [row + 0.22] * len(values), "o", color=_colour(row), markersize=3, fillstyle="none")
            if s.accuracy.n > 1:
                axes.hlines(row, 100 * s.accuracy.low, 100 * s.accuracy.high, color=_colour(row), linewidth=1.4)
            axes.plot(mean, row, "D", color=_colour(row), markersize=4.5)
            if s.name == "backbone":
                axes.axvline(mean, color=INK, linewidth=0.5, dashes=(4, 4))
        labels = [s.label + (" (control)" if s.is_control else "") for s in summaries]
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel("Test accuracy, %")

    told = "; ".join(f"{s.label} {_percent(s.accuracy.mean)}" for s in summaries)
    return Chart(f"Mean test accuracy in %: {told}.", _svg("accuracy", 4.6, 0.7 + 0.36 * len(summaries), draw))


def _curve_charts(summaries: Sequence[ArmSummary]) -> list[Chart]:
    charts = [
        _curve_chart(summaries, "val_accuracy", "Validation accuracy, %", 100),
        _curve_chart(summaries, "train_loss", "Training loss", 1),
        _curve_chart(summaries, "lambda", "λ", 1),
    ]
    return [chart for chart in charts if chart is not None]


def _curve_chart(summaries: Sequence[ArmSummary], column: str, title: str, scale: float) -> Chart | None:
    """Mean and range over seeds against the epoch; None if no arm has this column."""
    from matplotlib.ticker import MaxNLocator

    curves = {number: _curve(s.curves, column, scale) for number, s in enumerate(summaries) if column in s.curves}
    curves = {number: curve for number, curve in curves.items() if len(curve)}
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        for number, curve in curves.items():
            marker = "o" if len(curve) == 1 else ""  # one epoch makes no line
            axes.fill_between(curve.index, curve["min"], curve["max"], color=_colour(number), alpha=0.13, linewidth=0)
            lines = axes.plot(curve.index, curve["mean"], color=_colour(number), marker=marker, markersize=3)
            lines[0].set_linestyle((0, DASHES[number % len(DASHES)]) if _dash(number) else "-")
        axes.set(title=title, xlabel="Epoch", **({"ylim": (0, 1)} if column == "lambda" else {}))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    told = "; ".join(f"{summaries[number].label} {curve['mean'].iloc[-1]:.2f}" for number, curve in curves.items())
    return Chart(f"{title} over the epochs. At the last epoch, mean over seeds: {told}.", _svg(column, 4.2, 3, draw))


def _curve(curves: pd.DataFrame, column: str, scale: float) -> pd.DataFrame:
    """Columns mean, min, max over seeds, one row an epoch."""
    return (curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])) * scale


def _svg(name: str, width: float, height: float, draw: Callable[[Axes], None]) -> Markup:
    """An inline SVG of one chart (sizes in inches), its ids unlike those of any other `name`."""
    from markupsafe import Markup
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # it would hold addresses and the time
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(rf"{SERIES}(\d\d)", lambda match: f"var(--arm-{int(match[1])})", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return Markup(re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)))


def _colour(number: int) -> str:
    return f"{SERIES}{number % COLOURS:02}"


def _dash(number: int) -> str:
    """The dashes of an arm's line as SVG writes them; empty for a solid line."""
    return " ".join(str(length) for length in DASHES[number % len(DASHES)])

"""The charts of a cell. The argument `key` is the prefix of a chart's ids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from emoreg.report.analysis import REFERENCES, ROLES, ArmResult, CellResult
from emoreg.report.contrast_kinds import KINDS
from emoreg.report.contrast_plan import BACKBONE
from emoreg.report.drawing import (
    DASHES,
    INK,
    MARKERS,
    Chart,
    Row,
    colour,
    forest,
    point,
    short,
    short_inside,
    small_multiples,
    svg,
)
from emoreg.report.formatting import capital, percent, points, seconds
from emoreg.report.page_tables import in_groups, name_in_group
from emoreg.report.statistics import Interval

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Curves = list[tuple[ArmResult, pd.DataFrame]]

T = TypeVar("T")

ROW = 28  # characters of a row's label
MAX_CLASSES = 20  # of more, the ten highest and the ten lowest are shown
SHARES = ("lambda", "gradient_share")  # curves in [0, 1]
# The markers of the legend as SVG paths around (18, 5).
MARKER_PATHS = {
    "o": "M14.5 5a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "s": "M15 2h6v6h-6z",
    "^": "M18 1l4 7.5h-8z",
    "D": "M18 .5l4.5 4.5-4.5 4.5-4.5-4.5z",
    "v": "M18 9l4-7.5h-8z",
    "X": "M16 1l2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2-2-2z",
    "P": "M16.7 1h2.6v2.7H22v2.6h-2.7V9h-2.6V6.3H14V3.7h2.7z",
    "<": "M14 5l7.5-4v8z",
    ">": "M22 5l-7.5-4v8z",
    "p": "M18 .8l4 2.9-1.5 4.7h-5l-1.5-4.7z",
    "h": "M18 1l3.5 2v4L18 9l-3.5-2V3z",
    "d": "M18 .5l2.7 4.5-2.7 4.5-2.7-4.5z",
    "*": "M18.0 0.4L19.1 3.7L22.6 3.7L19.8 5.8L20.8 9.1L18.0 7.1L15.2 9.1L16.2 5.8L13.4 3.7L16.9 3.7z",
}


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    label: str
    colour: int
    dashes: str  # as SVG writes them; empty for a solid line
    marker: str  # path around (18, 5)


def legend(arms: Sequence[ArmResult]) -> tuple[Key, ...]:
    """The lines and markers of these arms, by role; arms that differ only in mode look alike, in separate charts."""
    return tuple(
        Key(ROLES[n], n, " ".join(str(length) for length in DASHES[n]), MARKER_PATHS[MARKERS[n]])
        for n in sorted({arm.number for arm in arms})
    )


def contrast_charts(cell: CellResult, key: str) -> list[Chart]:
    """All tested contrasts of a cell in one forest chart, with the references' gains; empty if nothing is tested."""
    rows: list[Row] = []
    for kind in KINDS.values():
        arms = [arm for arm in cell.arms if kind.name in arm.contrasts and arm.contrasts[kind.name].size.n]
        regulated = [arm for arm in arms if arm.arm.is_regulated]
        if not regulated:
            continue
        rows.append(Row(kind.heading.replace("\n", " ")))
        for arm in (*regulated, *(arm for arm in arms if arm.arm.mode in REFERENCES)):
            contrast = arm.contrasts[kind.name]
            versus = contrast.versus and f" {contrast.versus}"
            label = f"{short_inside(arm.label, ROW - len(versus))}{versus}"
            rows.append(Row(label, contrast.size, kind.colour, contrast.is_found, contrast.smallest))
    return [forest(key, cell.title, "points", rows, 0, points, has_numbers=True)] if rows else []


def accuracy_chart(cell: CellResult, key: str) -> Chart:
    """Accuracy or another outcome of every arm; the dashed line is Backbone's mean."""
    rows = _rows(cell, lambda arm: Row(name_in_group(arm), arm.score, arm.number))
    backbone = next((arm.score.mean for arm in cell.arms if arm.arm == BACKBONE), None)
    return forest(key, capital(cell.outcome.words), cell.outcome.unit, rows, backbone, percent)


def twin_charts(cell: CellResult, key: str) -> list[Chart]:
    """Every regulated arm minus each of its twins; empty if there are no twins."""
    rows: list[Row] = []
    for arm in cell.arms:
        if arm.twins:
            rows.append(Row(arm.label))
            rows += [Row(f"vs {twin.against}", twin.size, ROLES.index(str(twin.against))) for twin in arm.twins]
    return [forest(key, "Difference from every twin", "points", rows, 0, points)] if rows else []


def curve_charts(cell: CellResult, key: str, column: str, title: str, scale: float = 1) -> list[Chart]:
    """Mean and range over seeds by epoch, one chart per family with the same axes; empty if no arm has the column."""
    panels = []
    for name, arms in _panels(cell):
        curves = [(arm, curve * scale) for arm in arms if len(curve := _curve(arm.curves, column))]
        if curves:
            panels.append((name, curves))
    if not panels:
        return []
    low = min(curve["min"].min() for _, curves in panels for _, curve in curves)
    high = max(curve["max"].max() for _, curves in panels for _, curve in curves)
    margin = 0.04 * (high - low) or 0.04
    limits = (0.0, 1.0) if column in SHARES else (low - margin, high + margin)
    charts = []
    for number, (name, curves) in enumerate(panels):
        last = "; ".join(f"{arm.label} {curve['mean'].iloc[-1]:.2f}" for arm, curve in curves)
        spoken = f"{title} over the epochs. At the last epoch, mean over seeds: {last}."
        drawn = svg(f"{key}-{number}", 2.6, partial(_draw_curves, curves=curves, limits=limits))
        charts.append(Chart(f"{title}{name}", spoken, drawn))
    return charts


def class_lambda_charts(cell: CellResult, key: str) -> list[Chart]:
    """λ of each class by epoch, one chart per family; empty unless there is one λ per class."""
    classes = range(len(cell.classes))
    charts = []
    for number, (name, arms) in enumerate(_panels(cell)):
        curves = [(arm, by_class) for arm in arms if (by_class := _class_lambdas(arm, len(cell.classes)))]
        if not curves:
            continue
        last = [_mean([by_class[k]["mean"].iloc[-1] for _, by_class in curves]) for k in classes]
        shown = extremes(_falling(last))
        values = "; ".join(f"{cell.classes[k]} {last[k]:.2f}" for k in shown)
        spoken = f"λ of each class over the epochs. At the last epoch, mean over seeds and arms: {values}."
        panels = [[(arm, by_class[k]) for arm, by_class in curves] for k in shown]
        titles, draw = [cell.classes[k] for k in shown], partial(_draw_class_lambdas, panels=panels)
        drawn = small_multiples(f"{key}-{number}", titles, 0.95, ("Epoch", "λ"), draw)
        charts.append(Chart(f"λ of each class{name}", spoken, drawn))
    return charts


def class_gain_charts(cell: CellResult, key: str) -> list[Chart]:
    """Difference from Backbone in each class, one chart per family, all in the same order; empty without gains."""
    regulated = [arm for arm in cell.arms if arm.arm.is_regulated and arm.per_class_gain]
    means = [_mean([arm.per_class_gain[k].mean for arm in regulated]) for k in range(len(cell.classes))]
    shown = extremes(_falling(means))
    charts = []
    for number, family in enumerate(cell.families):
        arms = [arm for arm in family.arms if arm.per_class_gain]
        if not arms or not shown:
            continue
        values = "; ".join(f"{cell.classes[k]} {points(means[k])}" for k in shown)
        spoken = f"Minus Backbone in each class, points, mean over regulated arms: {values}."
        height = 0.65 + len(shown) * (0.1 + 0.1 * len(arms))
        drawn = svg(f"{key}-{number}", height, partial(_draw_class_gains, cell=cell, arms=arms, shown=shown))
        charts.append(Chart(f"Minus Backbone in each class{_suffix(cell, family.title)}", spoken, drawn))
    return charts


def calibration_charts(cell: CellResult, key: str) -> list[Chart]:
    """Expected calibration error of every arm, then reliability diagrams, one chart per group."""
    rows = _rows(cell, lambda arm: None if math.isnan(arm.ece.mean) else Row(name_in_group(arm), arm.ece, arm.number))
    charts = [forest(f"{key}-ece", "Expected calibration error", "%", rows, None, percent)] if rows else []
    for number, (title, group) in enumerate(in_groups(cell)):
        arms = [arm for arm in group if not math.isnan(arm.overconfidence)]
        if not arms:
            continue
        titles, draw = [name_in_group(arm) for arm in arms], partial(_draw_reliability, arms=arms)
        drawn = small_multiples(f"{key}-{number}", titles, 1.25, ("Confidence", "Accuracy"), draw)
        values = "; ".join(f"{arm.label} {points(arm.overconfidence)}" for arm in arms)
        spoken = f"Reliability. Mean confidence minus accuracy, points: {values}."
        charts.append(Chart(f"Reliability, {title}", spoken, drawn))
    return charts


def cost_charts(cell: CellResult, key: str) -> list[Chart]:
    """Difference from Backbone against training time, one chart per family; empty without gains."""
    plain = next((arm.seconds for arm in cell.arms if arm.arm == BACKBONE), math.nan)
    charts = []
    for number, (name, of_panel) in enumerate(_panels(cell)):
        timed = [arm for arm in of_panel if "gain" in arm.contrasts and not math.isnan(arm.seconds)]
        arms = [(arm, arm.contrasts["gain"].size) for arm in timed]
        if not arms:
            continue
        values = "; ".join(f"{a.label} {seconds(a.seconds)} s, {points(g.mean)} points" for a, g in arms)
        spoken = f"Minus Backbone, which takes {seconds(plain)} s, against training time: {values}."
        drawn = svg(f"{key}-{number}", 2.6, partial(_draw_cost, arms=arms, plain=plain))
        charts.append(Chart(f"{capital(cell.outcome.words)} against time{name}", spoken, drawn))
    return charts


def extremes(ordered: Sequence[T]) -> list[T]:
    """All items of a descending order; if there are more than 20, the first ten and the last ten."""
    half = MAX_CLASSES // 2
    return list(ordered) if len(ordered) <= MAX_CLASSES else [*ordered[:half], *ordered[-half:]]


def _falling(values: Sequence[float]) -> list[int]:
    """Indices in descending order of the values, without NaN."""
    return sorted((k for k, value in enumerate(values) if not math.isnan(value)), key=lambda k: -values[k])


def _draw_curves(figure: Figure, curves: Curves, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    for arm, curve in curves:
        axes.fill_between(curve.index, curve["min"], curve["max"], color=colour(arm.number), alpha=0.13, linewidth=0)
        _draw_mean(axes, arm, curve, linewidth=1.5)
    axes.set(xlabel="Epoch", ylim=limits)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_class_lambdas(axes: Axes, number: int, panels: list[Curves]) -> None:
    from matplotlib.ticker import MaxNLocator

    for arm, curve in panels[number]:
        _draw_mean(axes, arm, curve, linewidth=1.2)
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_mean(axes: Axes, arm: ArmResult, curve: pd.DataFrame, linewidth: float) -> None:
    dashes = DASHES[arm.number]
    axes.plot(
        curve.index,
        curve["mean"],
        color=colour(arm.number),
        linewidth=linewidth,
        linestyle=(0, dashes) if dashes else "-",
        marker="o" if len(curve) == 1 else "",  # a single epoch draws no line
        markersize=3,
    )


def _draw_class_gains(figure: Figure, cell: CellResult, arms: list[ArmResult], shown: list[int]) -> None:
    axes = figure.add_subplot()
    axes.axvline(0, color=INK, linewidth=0.6, dashes=(4, 4))
    for place, arm in enumerate(arms):
        for row, k in enumerate(shown):
            y = row + 0.7 * ((place + 0.5) / len(arms) - 0.5)
            point(axes, arm.per_class_gain[k], y, arm.number, MARKERS[arm.number])
    for row in range(1, len(shown)):
        is_gap = len(cell.classes) > len(shown) == MAX_CLASSES and row == MAX_CLASSES // 2
        axes.axhline(row - 0.5, color=INK, linewidth=1 if is_gap else 0.2)
    axes.set_yticks(range(len(shown)), [short(cell.classes[k]) for k in shown])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="points", ylim=(len(shown) - 0.5, -0.5))


def _draw_reliability(axes: Axes, number: int, arms: list[ArmResult]) -> None:
    bins = [entry for entry in arms[number].reliability if entry[2]]
    confidence, accuracy, images = (list(part) for part in zip(*bins, strict=True))
    drawn = colour(arms[number].number)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, dashes=(4, 4))
    axes.plot(confidence, accuracy, color=drawn, linewidth=1)
    axes.scatter(confidence, accuracy, s=[3 + 60 * count / sum(images) for count in images], color=drawn)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    axes.set_xticklabels(["0", ".5", "1"])
    axes.set_yticklabels(["0", ".5", "1"])


def _draw_cost(figure: Figure, arms: list[tuple[ArmResult, Interval]], plain: float) -> None:
    axes = figure.add_subplot()
    axes.axhline(0, color=INK, linewidth=0.6, dashes=(4, 4))
    axes.plot(plain, 0, MARKERS[0], color=colour(0), markersize=6)
    for arm, gain in arms:
        axes.plot(arm.seconds, 100 * gain.mean, MARKERS[arm.number], color=colour(arm.number), markersize=6)
    axes.set(xlabel="Training, s per run", ylabel="Minus Backbone, points")
    axes.set_xlim(left=0)


def _rows(cell: CellResult, to_row: Callable[[ArmResult], Row | None]) -> list[Row]:
    """A row for each arm that has one, under the heading of its group."""
    rows: list[Row] = []
    for title, arms in in_groups(cell):
        group = [row for row in map(to_row, arms) if row is not None]
        if group:
            rows += [Row(title), *group]
    return rows


def _panels(cell: CellResult) -> list[tuple[str, list[ArmResult]]]:
    """The arms of a chart for each family: the references and the family, with a suffix for the chart's title."""
    panels = [(_suffix(cell, family.title), [*cell.references, *family.arms]) for family in cell.families]
    return panels or [("", list(cell.references))]


def _suffix(cell: CellResult, family: str) -> str:
    """A suffix for the titles of charts, if there are several families."""
    return f", {family}" if len(cell.families) > 1 else ""


def _curve(curves: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean, min and max over seeds (columns) by epoch (rows); empty without the column."""
    if column not in curves:
        return curves.iloc[:0]
    return curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])


def _class_lambdas(arm: ArmResult, classes: int) -> list[pd.DataFrame]:
    """The curve of each class's λ; empty unless every class has one."""
    curves = [_curve(arm.curves, f"lambda_{k}") for k in range(classes)]
    return curves if all(len(curve) for curve in curves) else []


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan

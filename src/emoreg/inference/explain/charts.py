"""Charts of `emoreg explain`, in the style of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emoreg.inference.explain.effect import ClassEffect, SplitResponses
from emoreg.inference.explain.projection import Projection
from emoreg.report.charts import extremes
from emoreg.report.drawing import INK, PAPER, Chart, colour, short, svg

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 20  # categories named in a projection
# Medium lightness, for light and dark pages. More categories get evenly spaced hues.
HUES = ("#1f86c9", "#e07b1a", "#2f9e55", "#d4504f", "#9467bd", "#a0705f", "#d66bb3", "#8a8f95", "#a9a624", "#17a9bd")
LOW, MIDDLE, HIGH = "#1f86c9", "#9aa0a6", "#e07b1a"  # values below, at and above 0


@dataclass(frozen=True)
class Colouring:
    """What the colours of a projection show.

    Args:
        title: name of what is shown.
        values: (M,): indices into `names`, or numbers in [-1, 1].
        names: the categories; empty for numbers.
    """

    title: str
    values: NDArray[Any]
    names: tuple[str, ...] = ()


def effect_chart(effects: Sequence[ClassEffect]) -> Chart:
    """Draw the mean change of the true class's probability in each class, with its 95 % interval over the images."""
    rows = extremes(effects)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.6, dashes=(4, 4))
        for y, row in enumerate(rows):
            if row.change.low < row.change.high:
                axes.hlines(y, row.change.low, row.change.high, color=colour(2), linewidth=1.5)
            axes.plot(row.change.mean, y, "D", color=colour(2), markersize=5)
        _label_rows(axes, [row.name for row in rows])
        axes.set_xlabel("change of the true class's probability")
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", scilimits=(-2, 2))

    title = "Effect of the emotional response"
    means = "; ".join(f"{row.name} {row.change.mean:+.3f}" for row in rows)
    return Chart(title, f"{title}, mean and 95 % interval per class: {means}.", svg("leaning", _height(rows), draw))


def lambda_charts(responses: SplitResponses, classes: Sequence[str]) -> list[Chart]:
    """Draw the distribution of λ over the images, of all classes and of each."""
    assert responses.lam is not None
    lam = responses.lam
    by_class = [(name, lam[responses.labels == number]) for number, name in enumerate(classes)]
    with_images = [(name, values) for name, values in by_class if len(values)]
    rows = extremes(sorted(with_images, key=lambda row: -np.median(row[1])))

    def draw_all(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.hist(lam, bins=np.linspace(0, 1, 41).tolist(), color=colour(1))
        axes.set_xlim(0, 1)
        axes.set_xlabel("λ")
        axes.set_ylabel("images")

    def draw_classes(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, (_, values) in enumerate(rows):
            low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
            axes.hlines(y, low, high, color=colour(1), linewidth=1.5)
            axes.plot(median, y, "o", color=colour(1), markersize=5)
        _label_rows(axes, [name for name, _ in rows])
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("λ: median, 5th to 95th percentile")

    low, high = float(lam.min()), float(lam.max())
    medians = "; ".join(f"{name} {np.median(values):.2f}" for name, values in rows)
    return [
        Chart("λ of all images", f"Histogram of λ, from {low:.2f} to {high:.2f}.", svg("lambda-all", 2.4, draw_all)),
        Chart("λ in each class", f"Median λ: {medians}.", svg("lambda-classes", _height(rows), draw_classes)),
    ]


def projection_chart(projection: Projection, by: Colouring, letters: Sequence[str], key: str) -> Chart:
    """Draw projected features, one point per image.

    Args:
        projection: points (M + m, 2); the last m images are marked with letters.
        by: colours of the first M images.
        letters: m letters.
        key: prefix of the ids in the chart.
    """
    from matplotlib.colors import LinearSegmentedColormap

    points, marked = projection.points[: len(by.values)], projection.points[len(by.values) :]
    box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if by.names:
            colours = _hues(len(by.names))
            axes.scatter(points[:, 0], points[:, 1], s=7, c=[colours[value] for value in by.values], linewidths=0)
            for index, name in enumerate(by.names):
                inside = points[by.values == index]
                if len(by.names) <= MAX_NAMED and len(inside):
                    at = np.median(inside, axis=0)
                    axes.annotate(short(name, 14), (at[0], at[1]), size=8, ha="center", va="center", bbox=box)
        else:
            # Not the maximum: outliers must not use up the colours.
            top = round(max(0.1, float(np.quantile(np.abs(by.values), 0.98))), 1)
            x, y = points.T
            colour_map = LinearSegmentedColormap.from_list("felt", [LOW, MIDDLE, HIGH], N=33)
            dots = axes.scatter(x, y, s=7, c=by.values, cmap=colour_map, vmin=-top, vmax=top, linewidths=0)
            bar = figure.colorbar(dots, ax=axes, shrink=0.8, aspect=24, ticks=(-top, 0, top))
            bar.outline.set_visible(False)
        for letter, at in zip(letters, marked, strict=True):
            axes.plot(*at, "o", markersize=8, color=INK, markerfacecolor=PAPER, markeredgewidth=1)
            axes.annotate(letter, at, size=7, weight="bold", ha="center", va="center_baseline")
        axes.set_xticks(())
        axes.set_yticks(())
        axes.spines[:].set_visible(False)

    title = f"{projection.title}, by {by.title}"
    return Chart(title, f"{title}: {len(points)} images as points in two dimensions.", svg(key, 3.1, draw))


def _hues(count: int) -> list[Any]:
    from matplotlib.colors import hsv_to_rgb

    if count <= len(HUES):
        return list(HUES)
    return [tuple(hsv_to_rgb((number / count, 0.65, 0.8))) for number in range(count)]


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _height(rows: Sequence[object]) -> float:
    return 0.75 + 0.27 * len(rows)

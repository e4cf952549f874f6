"""The charts of `emoreg explain`, in the manner of the report's. `key` is what the ids of a chart begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emoreg.inference.explain.leaning import Leaning, Looked
from emoreg.report.drawing import INK, PAPER, Chart, colour, short, svg

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES = 20  # of more than these the ten highest and the ten lowest are shown
MAX_NAMED = 20  # categories that are named in a plane of features
# Of middling lightness, to be seen on light and on dark paper; for more categories the hues of a wheel.
HUES = ("#1f86c9", "#e07b1a", "#2f9e55", "#d4504f", "#9467bd", "#a0705f", "#d66bb3", "#8a8f95", "#a9a624", "#17a9bd")
LOW, MIDDLE, HIGH = "#1f86c9", "#9aa0a6", "#e07b1a"  # of a value below, at and above 0


@dataclass(frozen=True)
class Colouring:
    """What the points of a plane of features are coloured by.

    Args:
        title: its name.
        values: (M,), indices into `names`, or values in [-1, 1].
        names: of the categories; empty for values.
    """

    title: str
    values: NDArray[Any]
    names: tuple[str, ...] = ()


def extremes(ordered: Sequence[Leaning]) -> list[Leaning]:
    """All, or of many the highest and the lowest."""
    half = MAX_CLASSES // 2
    return list(ordered) if len(ordered) <= MAX_CLASSES else [*ordered[:half], *ordered[-half:]]


def leaning_chart(ordered: Sequence[Leaning], key: str) -> Chart:
    """Mean change of the true class's probability in each class, with its interval over the images."""
    rows = extremes(ordered)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.6, dashes=(4, 4))
        for place, row in enumerate(rows):
            if row.change.low < row.change.high:
                axes.hlines(place, row.change.low, row.change.high, color=colour(2), linewidth=1.5)
            axes.plot(row.change.mean, place, "D", color=colour(2), markersize=5)
        _name_rows(axes, [row.name for row in rows])
        axes.set_xlabel("change of the true class's probability")
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", scilimits=(-2, 2))

    told = "; ".join(f"{row.name} {row.change.mean:+.3f}" for row in rows)
    title = "What the emotional response changes"
    return Chart(title, f"{title}, mean of each class and 95 % interval: {told}.", svg(key, _height(rows), draw))


def lambda_charts(looked: Looked, classes: Sequence[str], key: str) -> list[Chart]:
    """λ of each image: how it is distributed, over all and in each class."""
    assert looked.lam is not None
    lam = looked.lam
    found = [(name, lam[looked.labels == number]) for number, name in enumerate(classes)]
    ordered = sorted(((name, values) for name, values in found if len(values)), key=lambda pair: -np.median(pair[1]))
    half = MAX_CLASSES // 2
    rows = ordered if len(ordered) <= MAX_CLASSES else [*ordered[:half], *ordered[-half:]]

    def draw_all(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.hist(lam, bins=np.linspace(0, 1, 41).tolist(), color=colour(1))
        axes.set_xlim(0, 1)
        axes.set_xlabel("λ")
        axes.set_ylabel("images")

    def draw_classes(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (_, values) in enumerate(rows):
            low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
            axes.hlines(place, low, high, color=colour(1), linewidth=1.5)
            axes.plot(middle, place, "o", color=colour(1), markersize=5)
        _name_rows(axes, [name for name, _ in rows])
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("λ: median, and from the 5th to the 95th percentile")

    low, high = float(lam.min()), float(lam.max())
    medians = "; ".join(f"{name} {np.median(values):.2f}" for name, values in rows)
    return [
        Chart("λ of all images", f"Histogram of λ, from {low:.2f} to {high:.2f}.", svg(f"{key}-all", 2.4, draw_all)),
        Chart("λ in each class", f"Median λ: {medians}.", svg(f"{key}-classes", _height(rows), draw_classes)),
    ]


def plane_chart(title: str, plane: NDArray[np.float32], by: Colouring, marked: Sequence[str], key: str) -> Chart:
    """Features on a plane, a point an image.

    Args:
        title: whose features.
        plane: (M + m, 2); the last m are images that are marked with their letters.
        by: the colours of the first M.
        marked: m letters.
        key: of the ids.
    """
    points, letters = plane[: len(by.values)], plane[len(by.values) :]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if by.names:
            colours = _hues(len(by.names))
            axes.scatter(points[:, 0], points[:, 1], s=7, c=[colours[value] for value in by.values], linewidths=0)
            for index, name in enumerate(by.names):
                inside = points[by.values == index]
                if len(by.names) <= MAX_NAMED and len(inside):
                    _write(axes, np.median(inside, axis=0), short(name, 14))
        else:
            top = round(max(0.1, float(np.quantile(np.abs(by.values), 0.98))), 1)  # so that most are told apart
            across, up = points.T
            drawn = axes.scatter(across, up, s=7, c=by.values, cmap=_map(), vmin=-top, vmax=top, linewidths=0)
            bar = figure.colorbar(drawn, ax=axes, shrink=0.8, aspect=24, ticks=(-top, 0, top))
            bar.outline.set_visible(False)
        for letter, at in zip(marked, letters, strict=True):
            axes.plot(*at, "o", markersize=8, color=INK, markerfacecolor=PAPER, markeredgewidth=1)
            axes.annotate(letter, at, size=7, weight="bold", ha="center", va="center_baseline")
        axes.set_xticks(())
        axes.set_yticks(())
        axes.spines[:].set_visible(False)

    named = f"{title}, by {by.title}"
    return Chart(named, f"{named}: {len(points)} images as points on a plane.", svg(key, 3.1, draw))


def _map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("felt", [LOW, MIDDLE, HIGH], N=33)


def _hues(count: int) -> list[Any]:
    from matplotlib.colors import hsv_to_rgb

    if count <= len(HUES):
        return list(HUES)
    return [tuple(hsv_to_rgb((number / count, 0.65, 0.8))) for number in range(count)]


def _write(axes: Axes, at: NDArray[np.float32], text: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75}
    axes.annotate(text, (float(at[0]), float(at[1])), size=8, ha="center", va="center", bbox=box)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _height(rows: Sequence[object]) -> float:
    return 0.75 + 0.27 * len(rows)

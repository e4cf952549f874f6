"""Gains and differences from the twins by dose of experience, as a table and a chart.

A trend is not a contrast that a study plans, and Backbone and `fresh`, which have no experience, are the same runs at
every dose. So the page shows the differences at each dose with their intervals and tests nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from emoreg.report.analysis import ROLES, ArmResult, CellResult
from emoreg.report.doses import Doses
from emoreg.report.drawing import INK, MARKERS, Chart, colour, small_multiples
from emoreg.report.formatting import bounds, points
from emoreg.report.page_tables import Entry, Grid, measured
from emoreg.report.run_frame import MODES, TWINS
from emoreg.report.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKBONE = "Backbone"
BESIDE = 0.08  # distance from a mean to its seeds, as a share of the axis
WIDE = 8  # ratio of largest to smallest dose from which the axis is logarithmic
CAPTION = (
    ", in points, paired by seed: mean with its interval. The twins have had the same dose, except fresh, which has "
    "had none. No trend was tested; intervals at two doses are not independent, as they share Backbone, fresh, seeds "
    "and test images."
)


@dataclass(frozen=True)
class Response:
    """The results of one regulated arm, a mode with a variant, at each dose."""

    title: str  # "Learn-E-Reg, mixture"
    doses: tuple[float, ...]  # ascending
    sizes: tuple[dict[str, Interval], ...]  # at each dose: differences from Backbone and the twins, by their names

    @property
    def others(self) -> tuple[str, ...]:
        """The arms that it is compared with at one dose or more: Backbone first."""
        return tuple(name for name in (BACKBONE, *TWINS) if any(name in size for size in self.sizes))

    def against(self, name: str) -> list[tuple[float, Interval]]:
        """The doses with a difference from this arm, and the differences."""
        return [(dose, size[name]) for dose, size in zip(self.doses, self.sizes, strict=True) if name in size]


def responses(cell: CellResult, doses: Doses) -> list[Response]:
    """The regulated arms of a cell that were trained with at least two doses."""
    by_arm: dict[tuple[str, str | None], list[tuple[float, ArmResult]]] = {}
    for arm in cell.regulated:
        if arm.arm.stimuli in doses.amounts:
            dose = doses.amounts[str(arm.arm.stimuli)]
            by_arm.setdefault((arm.arm.mode, arm.arm.variant), []).append((dose, arm))
    found = []
    for (mode, variant), arms in by_arm.items():
        arms.sort(key=lambda each: each[0])
        title = ", ".join(part for part in (MODES[mode], variant) if part)
        response = Response(title, tuple(dose for dose, _ in arms), tuple(_sizes(arm) for _, arm in arms))
        if len(arms) > 1 and response.others:
            found.append(response)
    return found


def _sizes(arm: ArmResult) -> dict[str, Interval]:
    contrasts = {str(twin.against): twin for twin in arm.twins}
    if "gain" in arm.contrasts:
        contrasts[BACKBONE] = arm.contrasts["gain"]
    return {name: contrast.size for name, contrast in contrasts.items() if contrast.size.n}


def dose_grid(cell: CellResult, doses: Doses | None) -> Grid | None:
    """A row for each dose of each regulated arm; None if the stimuli are no doses."""
    if doses is None or not (found := responses(cell, doses)):
        return None
    others = [name for name in (BACKBONE, *TWINS) if any(name in response.others for response in found)]
    groups = tuple(
        (
            response.title,
            tuple(
                (Entry(f"{dose:g}"), *(measured(size.get(name), points) for name in others))
                for dose, size in zip(response.doses, response.sizes, strict=True)
            ),
        )
        for response in found
    )
    headers = (doses.unit, *(f"Over\n{name}" for name in others))
    return Grid("Dose and response", f"Differences in {cell.outcome.words}{CAPTION}", headers, groups)


def dose_charts(cell: CellResult, doses: Doses | None, key: str) -> list[Chart]:
    """A chart for each regulated arm, with a panel for Backbone and each twin; empty if the stimuli are no doses."""
    if doses is None:
        return []
    charts = []
    for number, response in enumerate(responses(cell, doses)):
        titles, draw = [f"over {name}" for name in response.others], partial(_draw, response=response)
        drawn = small_multiples(f"{key}-{number}", titles, 1.5, (doses.unit, "points"), draw)
        values = " ".join(
            f"Over {name}: {'; '.join(_spoken(dose, size) for dose, size in response.against(name))}."
            for name in response.others
        )
        title = response.title
        charts.append(Chart(title, f"{title}, difference in points by dose ({doses.unit}). {values}", drawn))
    return charts


def _spoken(dose: float, size: Interval) -> str:
    limits = bounds(size, points, " to ")
    return f"{dose:g}: {points(size.mean)}{limits and f' ({limits})'}"


def _draw(axes: Axes, number: int, response: Response) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    name = response.others[number]
    arm = ROLES.index(name)
    axes.axhline(0, color=INK, linewidth=0.6, dashes=(4, 4))
    sizes = response.against(name)
    drawn = colour(arm)
    low, high = response.doses[0], response.doses[-1]
    is_log = 0 < WIDE * low <= high
    axes.plot([dose for dose, _ in sizes], [100 * size.mean for _, size in sizes], color=drawn, linewidth=1)
    for dose, size in sizes:
        beside = dose * (high / low) ** BESIDE if is_log else dose + BESIDE * (high - low)
        seeds = [100 * value for value in size.values]
        axes.plot([beside] * size.n, seeds, "o", color=drawn, markersize=2.5, fillstyle="none", markeredgewidth=0.7)
        if size.low < size.high:
            axes.vlines(dose, 100 * size.low, 100 * size.high, color=drawn, linewidth=1.5)
        axes.plot(dose, 100 * size.mean, MARKERS[arm], color=drawn, markersize=4)
    if is_log:
        axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.xaxis.set_major_locator(FixedLocator([low, high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{low:g}", f"{high:g}"])

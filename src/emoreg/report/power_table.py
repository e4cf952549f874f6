"""How many seeds a study needs, as a table with its explanation for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from emoreg.report.power import needed_seeds, training_hours
from emoreg.report.statistics import ALPHA

if TYPE_CHECKING:
    import pandas as pd


def power_table(table: pd.DataFrame, half_width: float) -> Group:
    """A row per comparison, and what the numbers mean.

    Args:
        table: results of the pilot, one row per run.
        half_width: wanted half width of the 95 % interval, and difference to detect, in percentage points.

    Raises:
        UserError: as `needed_seeds`.
    """
    needs = needed_seeds(table, half_width)
    is_single = len({(need.target, need.backbone) for need in needs}) == 1
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for header in ("Arm", "against"):
        shown.add_column(header)
    for header in ("spread,\npoints", "for the\ninterval", "for the\ndifference", "seeds"):
        shown.add_column(header, justify="right")
    for need in needs:
        name = need.arm if is_single else f"{need.arm}\n{need.target}, {need.backbone}"
        width, power = f"{need.width}–{need.width_safe}", f"{need.power}–{need.power_safe}"
        shown.add_row(Text(name), Text(need.against), f"{need.sd:.2f}", width, power, str(need.seeds))
    most = max(need.seeds for need in needs)
    lines = (
        f"Pilot: {max(need.pilot for need in needs)} seeds. Spread: standard deviation of differences paired by seed.",
        f"For the interval: seeds for a 95 % interval of ±{half_width:g} points.",
        f"For the difference: seeds to detect {half_width:g} points with a power of 80 % at {ALPHA:g}, corrected for "
        "all comparisons.",
        "The first of two numbers is for the pilot's spread, the second for the upper 80 % limit of that spread, since "
        "a pilot estimates it with error.",
        f"The exact test with Holm's correction needs at least {max(need.exact for need in needs)} seeds to reach "
        "significance.",
        f"{most} seeds satisfy every row: about {training_hours(table, most):,.1f} hours of training in all.",
    )
    return Group(shown, *map(Text, lines))

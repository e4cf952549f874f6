"""The power of a study, as a table with its explanation for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.text import Text

from emoreg.report.formatting import capital, count
from emoreg.report.looks import MOST_ARMS
from emoreg.report.power import STUDIES, WANTED, Spread, simulate_power, training_hours
from emoreg.runtime.terminal import Table

if TYPE_CHECKING:
    import pandas as pd

CONTRASTS = {"gain": "gain over Backbone", "label": "label effect", "emotion": "emotion"}


def power_table(
    spread: Spread, effect: float, seeds: Sequence[int], looks: Sequence[int] = (), pilot: pd.DataFrame | None = None
) -> Group:
    """A row for each number of seeds, a column for each contrast, and an explanation.

    Args:
        spread: the spread of differences.
        effect: the true difference, in percentage points.
        seeds: numbers of seeds to try.
        looks: numbers of seeds at which the study looks before its end.
        pilot: table of results to estimate training hours from; None without one.
    """
    powers = simulate_power(spread, effect, sorted(set(seeds)), looks)
    is_estimated = spread.runs > 0
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    per_seed = math.nan if pilot is None else training_hours(pilot, 1)
    hours = [] if math.isnan(per_seed) else ["hours of\ntraining"]
    for header in ("seeds", *(name.replace(" ", "\n", 1) for name in CONTRASTS.values()), *hours):
        shown.add_column(header, justify="right")
    for found, safe in powers:
        cells = [_percent(getattr(found, kind), getattr(safe, kind) if is_estimated else None) for kind in CONTRASTS]
        hours = [] if math.isnan(per_seed) else [f"{per_seed * found.seeds:,.1f}"]
        shown.add_row(str(found.seeds), *cells, *hours)
    enough = [
        f"{name} {next((str(safe.seeds) for _, safe in powers if getattr(safe, kind) >= WANTED), 'none of them')}"
        for kind, name in CONTRASTS.items()
    ]
    safe_spread = (
        f", from {count(spread.runs, 'run')} ({count(spread.freedom, 'degree')} of freedom); at most "
        f"{spread.sd_safe:.2f} with 80 % confidence, in parentheses"
    )
    lines = [
        f"Probability of finding an effect of {effect:g} points, in {STUDIES:,} simulated studies tested as in the "
        "report: against three twins for the label effect and five for emotion, all equally good.",
        f"Spread: {spread.sd:.2f} points, the standard deviation of differences paired by seed"
        f"{safe_spread if is_estimated else ''}.",
        f"Fewest of these numbers of seeds with at least {WANTED:.0%}{' in parentheses' if is_estimated else ''}: "
        f"{', '.join(enough)}.",
    ]
    if spread.collapsed:
        are = "is" if spread.collapsed == 1 else "are"
        left_out = f"{capital(count(spread.collapsed, 'run'))} of the pilot collapsed and {are} not in the spread."
        lines.append(
            f"{left_out} A contrast in which a run collapses gets no verdict, which these probabilities do not count."
        )
    if spread.image_sd:
        lines.append(
            f"The choice of test images adds {spread.image_sd:.2f} points to the error of a difference, however many "
            "seeds there are."
        )
    if spread.arms > 1:
        lines.append(f"Each of {spread.arms} regulated arms is tested at a level of 0.025 / {spread.arms}.")
    if spread.arms > MOST_ARMS:
        lines.append(f"With more than {MOST_ARMS} no test can pass, however many seeds they have.")
    if looks:
        lines.append(f"The study looks after {', '.join(map(str, sorted(set(looks))))} seeds and at its end.")
    title: list[RenderableType] = [Text(spread.label)] if spread.label else []
    return Group(*title, shown, *map(Text, lines))


def _percent(power: float, safe: float | None) -> str:
    return f"{power:.0%}" if safe is None else f"{power:.0%} ({safe:.0%})"

"""A study's plan and its results, as tables for the terminal and for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from emoreg.errors import printable
from emoreg.runtime.progress import duration
from emoreg.study.plan import PlannedRun

if TYPE_CHECKING:
    import pandas as pd


def plan_table(planned: Sequence[PlannedRun], seconds: Mapping[str, float], jobs: int) -> Group:
    """The number of runs, planned and done, for each arm on each target, backbone and experience; and the time left.

    Args:
        planned: from `plan_runs`.
        seconds: estimated duration of each run, by id.
        jobs: parallel runs.
    """
    names = ("stage", "target", "backbone", "arm", "experience", "runs", "done", "each")
    table = Table(*names, box=None, header_style="bold")
    rows: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in sorted(planned, key=lambda run: run.mode is not None):  # stage 1 first
        stage, arm = ("1", f"({run.experience})") if run.mode is None else ("2", f"{run.mode} {run.experience or ''}")
        rows.setdefault((stage, run.target or "–", run.backbone, arm, run.stimuli or "–"), []).append(run)
    for key, runs in rows.items():
        done = [run for run in runs if run.run.is_finished]
        cells = (*key, str(len(runs)), str(len(done)), duration(seconds[runs[0].id]))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    left = [run for run in planned if not run.run.is_finished]
    total = duration(sum(seconds[run.id] for run in left) / jobs)
    parallel = f" with {jobs} at a time" if jobs > 1 else ""
    line = f"{len(planned)} runs, {len(planned) - len(left)} done, {len(left)} to do: about {total}{parallel}"
    return Group(table, Text(line))


def rows_text(table: pd.DataFrame, style: Literal["csv", "json", "markdown"]) -> str:
    """All rows of a table of results as text that ends with a line break."""
    if style == "csv":
        return table.to_csv(index=False)
    if style == "json":
        return f"{table.to_json(orient='records', indent=2, force_ascii=False)}\n"
    lines = [list(table.columns), ["---"] * table.shape[1], *_cells(table)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rows_table(table: pd.DataFrame) -> Table:
    """All rows of a table of results for the terminal."""
    shown = Table(box=None, header_style="bold")
    for name in table.columns:
        shown.add_column(Text(name))
    for row in _cells(table):
        shown.add_row(*map(Text, row))
    return shown


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_cell(value) for value in row] for row in table.itertuples(index=False)]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))

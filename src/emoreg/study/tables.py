"""Show a study's plan and its results as tables, for the terminal and for other programs."""

from __future__ import annotations

import base64
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Group
from rich.text import Text

from emoreg.config.recipe import TrainRecipe
from emoreg.errors import printable
from emoreg.models.gradient_budget import describe_budget
from emoreg.runs.catalogue import is_missing
from emoreg.runtime.progress import about, figure, in_words
from emoreg.runtime.terminal import Table
from emoreg.study.arms import LABELS, REGULATED
from emoreg.study.conform import without_nan
from emoreg.study.costs import Costs
from emoreg.study.definition import Study
from emoreg.study.plan import PlannedRun, left_out
from emoreg.study.scheduler import left_to_do
from emoreg.training.fabric import is_available

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = ("stage", "target", "backbone", "arm", "variant", "experience", "stimuli", "runs", "done", "each")
MAX_ROWS = 24  # in the table of a plan


def plan_table(
    study: Study,
    planned: Sequence[PlannedRun],
    costs: Costs,
    jobs: int,
    elsewhere: Set[str] = frozenset(),
    whole: int | None = None,
    on_gpu: str | None = None,
) -> Group:
    """Show the plan of a study: numbers of runs, planned and done, per arm; what is left out; the remaining time.

    If there are more than `MAX_ROWS` rows, the arms of a target and backbone are grouped: regulated arms, references.

    Args:
        study: of the plan.
        planned: from `plan_runs`, or a part of it.
        costs: estimated duration of each run, by id.
        jobs: parallel runs.
        elsewhere: ids of runs that other machines have done.
        whole: number of runs of the whole plan, if this is a part.
        on_gpu: from `gpu_estimate`, of the remaining runs.
    """
    variants: dict[tuple[str | None, ...], dict[str, None]] = {}
    for run in planned:
        labels = variants.setdefault(_run_of_arm(run), {})
        if run.variant:
            labels[run.variant] = None
    # A run that several variants share is listed once, with all their labels; one that several arms share, in each.
    listed = [
        dataclasses.replace(run, variant=", ".join(variants[key]) or None)
        for key, run in {_run_of_arm(run): run for run in planned}.items()
    ]
    once = list({run.id: run for run in listed}.values())
    left = left_to_do(once, elsewhere)
    table = Table(*COLUMNS, box=None, header_style="bold")
    rows, to_do = _rows(listed, _arm), {run.id for run in left}
    if len(rows) > MAX_ROWS:
        rows = _rows(listed, _kind)
    for key, runs in rows.items():
        experiences, stimuli = (_listed(getattr(run, name) for run in runs) for name in ("experience", "stimuli"))
        done = sum(run.id not in to_do for run in runs)
        times = [costs.seconds[run.id] for run in runs if run.id in costs.seconds]
        each = in_words(statistics.fmean(times)) if times else "–"
        cells = (*key, experiences, stimuli, f"{len(runs):,}", f"{done:,}", each)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    lines = [*_lines(study, listed, once, left, costs, jobs, whole), *([on_gpu] if on_gpu else [])]
    return Group(table, Text("\n".join(map(printable, lines))))


def _rows(
    planned: Sequence[PlannedRun], kind_of: Callable[[PlannedRun], tuple[str, str]]
) -> dict[tuple[str, ...], list[PlannedRun]]:
    """Group runs by stage, target, backbone and kind."""
    rows: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in sorted(planned, key=lambda run: run.mode is not None):  # stage 1 first
        stage = "1" if run.mode is None else "2"
        rows.setdefault((stage, run.target or "–", run.backbone, *kind_of(run)), []).append(run)
    return rows


def _run_of_arm(run: PlannedRun) -> tuple[str | None, ...]:
    """What tells apart the runs that a plan lists: an arm has each of its runs once, whatever their variants."""
    return run.id, run.mode, run.experience


def _arm(run: PlannedRun) -> tuple[str, str]:
    return "(encoder)" if run.mode is None else LABELS[run.mode], run.variant or "–"


def _kind(run: PlannedRun) -> tuple[str, str]:
    if run.mode is None:
        return "(encoder)", run.variant or "–"
    return ("regulated", run.variant or "–") if run.mode in REGULATED else ("references", "–")


def _lines(
    study: Study,
    listed: Sequence[PlannedRun],
    once: Sequence[PlannedRun],
    left: Sequence[PlannedRun],
    costs: Costs,
    jobs: int,
    whole: int | None,
) -> Iterator[str]:
    """Yield the plan in sentences; `listed` has the runs of every arm, `once` every run once."""
    seeds = study.seed_numbers
    looks = " and ".join(map(str, study.looks or (study.seeds,)))
    what = f"{study.purpose}: " if study.purpose else ""
    verdicts = "no verdicts" if study.purpose == "exploration" else f"verdicts at {looks} seeds"
    extra = len(seeds) - study.seeds
    more = f", {extra} more than planned" if extra > 0 else ""
    if extra < 0:
        more = f" of {study.seeds} planned"
    yield f"{what}{len(seeds)} seeds{more}, {seeds[0]} to {seeds[-1]}; {verdicts}"
    for line, arms in _budgets(listed).items():
        yield f"gradient budget, {', '.join(arms)}: {line}"
    yield from left_out(study)
    if shared := len(listed) - len(once):
        yield f"{shared:,} of the listed runs are those of another arm with the same recipe, and are not done again"
    if whole is not None:
        yield f"a part of the study: {len(once):,} of {whole:,} runs; its plan and the families of its tests stay whole"
    stage_1 = sum(run.mode is None for run in once)
    yield f"stage 1: {stage_1:,} runs; stage 2: {len(once) - stage_1:,} runs"
    untimed = [run for run in left if run.id not in costs.seconds]
    total = about(sum(costs.seconds.get(run.id, 0.0) for run in left) / jobs)
    parallel = f", {jobs} at a time" if jobs > 1 else ""
    cost = f"{total} on this machine ({costs.machine}){parallel}"
    if len(untimed) == len(left):
        cost = f"no estimate, {_why_untimed(untimed)}" if untimed else "nothing to do"
    elif untimed:
        cost += f", without {len(untimed):,} runs, {_why_untimed(untimed)}"
    yield f"{len(once):,} runs, {len(once) - len(left):,} done, {len(left):,} to do: {cost}"
    if len(untimed) < len(left):
        yield costs.sources


def _why_untimed(untimed: Sequence[PlannedRun]) -> str:
    devices = dict.fromkeys(run.recipe.training.device for run in untimed)
    absent = [device for device in devices if device != "auto" and not is_available(device)]
    if absent:
        return f"as there is no {' or '.join(absent)} here"
    return "as the number of their images is not known"


def _budgets(planned: Sequence[PlannedRun]) -> dict[str, dict[str, None]]:
    """The arms and variants of each gradient budget, by its description."""
    budgets: dict[str, dict[str, None]] = {}
    for run in planned:
        if run.mode is None or not isinstance(run.recipe, TrainRecipe) or not run.recipe.has_two_responses:
            continue
        arm = LABELS[run.mode] + (f" ({run.variant})" if run.variant else "")
        budgets.setdefault(describe_budget(run.recipe), {})[arm] = None
    return budgets


def _listed(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value)) or "–"


def rows_text(table: pd.DataFrame, style: Literal["csv", "json", "markdown"]) -> str:
    """Write all rows of a table of results as text; bytes in base64, lists in a CSV as JSON."""
    table = table.map(lambda value: base64.b64encode(value).decode() if isinstance(value, bytes) else value)
    if style == "csv":
        return table.map(_as_json).to_csv(index=False, lineterminator="\n")
    if style == "json":
        return f"{table.to_json(orient='records', indent=2, force_ascii=False)}\n"
    lines = [list(table.columns), ["---"] * table.shape[1], *_cells(table)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _as_json(value: Any) -> Any:
    """Convert a list to JSON, with null for NaN; keep any other value."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return json.dumps(without_nan(value)) if isinstance(value, list) else value


def rows_table(table: pd.DataFrame) -> Table:
    """Show all rows of a table of results in the terminal."""
    shown = Table(box=None, header_style="bold")
    for name in table.columns:
        shown.add_column(Text(name))
    for row in _cells(table):
        shown.add_row(*map(Text, row))
    return shown


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_cell(value) for value in row] for row in table.itertuples(index=False)]


def _cell(value: Any) -> str:
    if is_missing(value):
        return "–"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return figure(value) if isinstance(value, float) else printable(str(value))

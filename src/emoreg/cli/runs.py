"""The commands that look after run folders: emoreg runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from emoreg.cli.parser import Group, Shown
from emoreg.config.outcomes import OUTCOMES
from emoreg.errors import UserError

RunFolders = Annotated[Sequence[Path], Shown("RUN", "run folders")]
VALIDATED = tuple(f"validation_{outcome.name}" for outcome in OUTCOMES.values())
SHOWN = (
    *("run", "stage", "status", "mode", "data", "backbone", "seed"),
    *("epochs", *VALIDATED, "train_loss"),
)
SCORES = ("status", "epochs", *VALIDATED, "train_loss", "seconds")
TEST = tuple(f"test_{outcome.name}" for outcome in OUTCOMES.values())


def list_runs(
    folders: Annotated[Sequence[Path], Shown("DIR", "run folders, or folders that hold some. Default: runs")] = (),
    *,
    where: Annotated[str, Shown("CONDITION")] | None = None,
    columns: Annotated[str, Shown("NAMES")] | None = None,
    test: bool = False,
    format: Literal["table", "csv", "json", "markdown"] = "table",
) -> None:
    """List the runs in folders and below them: what each is, how far it is, its scores.

    Scores are on validation images, where a run held some out. Settings are columns too, such as
    recipe.training.epochs; in a condition their names stand in backticks, and the condition in single quotes.

    Args:
        where: runs to list, as pandas.DataFrame.query takes them
        columns: names separated by commas; all for every column
        test: show accuracies on the test split too; whoever chooses a run by them has no test left
        format: of the output

    Examples:
        emoreg runs list
        emoreg runs list runs/mine --where "mode == 'learned' and seed < 3"
        emoreg runs list --where '`recipe.training.epochs` > 20' --columns run,validation_accuracy
    """
    from emoreg.runs.catalogue import catalogue, damage, find_runs
    from emoreg.runtime.streams import tell
    from emoreg.runtime.terminal import show
    from emoreg.study.results_table import select
    from emoreg.study.tables import rows_table, rows_text

    table = catalogue(find_runs(folders or [Path("runs")]))
    damaged = damage(table)
    chosen = None if columns is None else list(table.columns) if columns == "all" else columns.split(",")
    table = select(table, where, chosen)
    if chosen is None:
        wanted = [*SHOWN, *(TEST if test else ())]
        table = table[[name for name in wanted if name in ("run", "status") or table[name].notna().any()]]
    if format == "table":
        show(rows_table(table))
    else:
        print(rows_text(table, format), end="")
    for line in damaged:
        tell(f"emoreg: damaged: {line}")


def compare(runs: RunFolders, *, test: bool = False) -> None:
    """Show in which settings runs differ, and their scores.

    Args:
        test: show accuracies on the test split too; whoever chooses a run by them has no test left

    Examples:
        emoreg runs compare runs/one runs/other
    """
    from emoreg.runs.catalogue import SETTINGS, catalogue, damage, differing_settings, find_runs
    from emoreg.runtime.terminal import Table, show

    table = catalogue(find_runs(runs))
    if len(table) < 2:
        raise UserError(f"{table['run'].iloc[0]} is one run; give two or more to compare")
    if damaged := damage(table):
        raise UserError(damaged[0])
    settings = differing_settings(table)
    shown = Table("setting", *table["run"], box=None, header_style="bold")
    for name in settings:
        shown.add_row(name.removeprefix(SETTINGS), *(_cell(value) for value in table[name]))
    if not settings:
        shown.add_row("(none differs)", *[""] * len(table))
    shown.add_section()
    for name in (*SCORES, *(TEST if test else ())):
        if table[name].notna().any():
            shown.add_row(name.replace("_", " "), *(_score(value) for value in table[name]))
    show(shown)


def delete(runs: RunFolders, *, yes: bool = False) -> int:
    """Delete run folders, after asking.

    Refused are folders that are no run's, that hold anything else, that a process works on, and a stage-1 run that an
    unfinished run beside it needs. Then nothing is deleted.

    Args:
        yes: do not ask

    Examples:
        emoreg runs delete runs/mine
        emoreg runs delete runs/mine runs/other --yes
    """
    from emoreg.runs.catalogue import size_of, status_of
    from emoreg.runs.delete import check_deletable, delete_run

    found = check_deletable(runs)
    size = f"{size_of([run.folder for run in found]) / 1e6:,.1f} MB"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nobody can be asked here; give --yes to delete")
        for run in found:
            print(f"{run.folder}: stage {run.stage}, {status_of(run)}")
        print(f"Delete {len(found)} run folder{'s' if len(found) > 1 else ''}, {size}? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return 1
    for run in found:
        delete_run(run)
        print(f"deleted: {run.folder}")
    return 0


def _cell(value: object) -> str:
    """A setting or a count. Whole numbers have no decimals: where a run lacks the setting, pandas makes them floats."""
    from emoreg.runs.catalogue import is_missing

    if is_missing(value):
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _score(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) and not math.isnan(value) else _cell(value)


RUNS = Group(
    "Look after run folders: list, compare, delete.\n\nA run is the folder of one training, of stage 1 or stage 2.",
    {"list": list_runs, "compare": compare, "delete": delete},
    (
        "emoreg runs list",
        "emoreg runs list --where \"mode == 'learned' and seed < 3\"",
        "emoreg runs compare runs/one runs/other",
        "emoreg runs delete runs/one",
    ),
)

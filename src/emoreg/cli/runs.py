"""The commands that manage run folders: emoreg runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from emoreg.cli.parser import Group, Shown
from emoreg.cli.report import ColumnNames, Condition, Format, print_rows
from emoreg.config.outcomes import TEST, VALIDATION
from emoreg.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

RunFolders = Annotated[Sequence[Path], Shown("RUN", "run folders")]
SHOWN = ("run", "stage", "status", "mode", "data", "backbone", "seed", "epochs", *VALIDATION, "train_loss")
SCORES = ("status", "epochs", *VALIDATION, "train_loss", "seconds")


def list_runs(
    folders: Annotated[Sequence[Path], Shown("DIR", "run folders, or folders that contain some. Default: runs")] = (),
    *,
    where: Condition | None = None,
    columns: ColumnNames | None = None,
    test: bool = False,
    format: Format = "table",
) -> None:
    """List the runs in folders and their subfolders, with status and scores.

    Scores are on validation images, if a run held some out. Settings are columns too, such as recipe.training.epochs;
    in a condition, put their names in backticks and the condition in single quotes.

    Args:
        where: condition on the runs to list, as in pandas.DataFrame.query
        columns: names separated by commas; all for every column
        test: show scores on the test split too; if you choose a run by them, they are no longer a test
        format: format of the output

    Examples:
        emoreg runs list
        emoreg runs list runs/mine --where "mode == 'learned' and seed < 3"
        emoreg runs list --where '`recipe.training.epochs` > 20' --columns run,validation_accuracy
    """
    from emoreg.runs.catalogue import catalogue, damage, find_runs
    from emoreg.runtime.streams import print_line

    def by_default(rows: pd.DataFrame) -> pd.DataFrame:
        names = (*SHOWN, *TEST) if test else SHOWN
        return rows[[name for name in names if name in ("run", "status") or rows[name].notna().any()]]

    table = catalogue(find_runs(folders or [Path("runs")]))
    print_rows(table, where, columns, format, by_default)
    for line in damage(table):
        print_line(f"emoreg: damaged: {line}")


def compare(runs: RunFolders, *, test: bool = False) -> None:
    """Show the settings in which runs differ, and their scores.

    Args:
        test: show scores on the test split too; if you choose a run by them, they are no longer a test

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
    printed = Table("setting", *table["run"], box=None, header_style="bold")
    for name in settings:
        printed.add_row(name.removeprefix(SETTINGS), *(_cell(value) for value in table[name]))
    if not settings:
        printed.add_row("(none differs)", *[""] * len(table))
    printed.add_section()
    for name in (*SCORES, *TEST) if test else SCORES:
        if table[name].notna().any():
            printed.add_row(name.replace("_", " "), *(_score(value) for value in table[name]))
    show(printed)


def delete(runs: RunFolders, *, yes: bool = False) -> int:
    """Delete run folders, after confirmation.

    Deletes nothing if one of the folders is not a run folder, contains other files, is in use by a process, or is a
    stage-1 run that an unfinished run in the same folder needs.

    Args:
        yes: delete without confirmation

    Examples:
        emoreg runs delete runs/mine
        emoreg runs delete runs/mine runs/other --yes
    """
    from emoreg.runs.catalogue import size_of, status_of
    from emoreg.runs.delete import check_deletable, delete_run

    deletable = check_deletable(runs)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("stdin is not a terminal; give --yes to delete without confirmation")
        for run in deletable:
            print(f"{run.folder}: stage {run.stage}, {status_of(run)}")
        folders = f"{len(deletable)} run folder{'s' if len(deletable) > 1 else ''}"
        size = f"{size_of([run.folder for run in deletable]) / 1e6:,.1f} MB"
        print(f"Delete {folders}, {size}? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return 1
    for run in deletable:
        delete_run(run)
        print(f"deleted: {run.folder}")
    return 0


def _cell(value: object) -> str:
    """Format a setting or count. Whole floats lose their decimals: pandas turns integers with gaps into floats."""
    from emoreg.runs.catalogue import is_missing

    if is_missing(value):
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _score(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) and not math.isnan(value) else _cell(value)


RUNS = Group(
    "Manage run folders: list, compare, delete.\n\nA run is the folder of one training, of stage 1 or stage 2.",
    {"list": list_runs, "compare": compare, "delete": delete},
    (
        "emoreg runs list",
        "emoreg runs list --where \"mode == 'learned' and seed < 3\"",
        "emoreg runs compare runs/one runs/other",
        "emoreg runs delete runs/one",
    ),
)

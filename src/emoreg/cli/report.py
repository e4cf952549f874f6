"""The commands for the results of studies: print them, write reports, and estimate power."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from emoreg.cli.parser import File, Folder, Shown
from emoreg.config.outcomes import VALIDATION
from emoreg.errors import UserError, printable
from emoreg.runtime.streams import print_line

if TYPE_CHECKING:
    import pandas as pd

    from emoreg.report.method_notes import MethodNotes
    from emoreg.report.own_report import Results

StudyOrTable = Annotated[Path, Shown("STUDY", "a study's folder, its YAML file, or a table of results")]
RunsFolder = Annotated[Path, Shown("DIR", "folder of the run folders, for studies that share runs. Default: OUT/runs")]
Condition = Annotated[str, Shown("CONDITION")]
ColumnNames = Annotated[str, Shown("NAMES")]
Format = Literal["table", "csv", "json", "markdown"]
TABLES = (".parquet", ".csv")
COLUMNS = (  # printed by default
    *("target", "backbone", "mode", "experience", "variant", "stimuli", "seed", "status"),
    *(*VALIDATION, "train_loss", "lambda", "seconds"),
)


def print_report(
    name: str,
    table: pd.DataFrame,
    out: Path,
    left_out: Sequence[str],
    is_requested: bool = True,
    own_notes: MethodNotes | None = None,
) -> None:
    """Write the report, and print its table and, last, the verdict.

    Between looks, a report that was not requested explicitly is written, but not printed.
    """
    from emoreg.report.analyse_table import analyse
    from emoreg.report.contrast_plan import between_looks
    from emoreg.report.files import write_reports
    from emoreg.report.findings import findings
    from emoreg.report.paper_tables import results_table
    from emoreg.report.read_runs import read_runs
    from emoreg.runtime.terminal import show

    analysis = analyse(name, table, left_out, own_notes)
    sentences = findings(analysis)
    page = write_reports(out, analysis, sentences)
    interim = between_looks(read_runs(table))
    is_shown = interim is None or is_requested
    if is_shown:
        show(results_table(analysis))
    print(f"page: {page.resolve()}")
    if interim is not None:
        show(interim)
    if is_shown:
        show(f"\n{sentences[0]}")


def report(study: StudyOrTable, *, out: Folder | None = None, runs: RunsFolder | None = None) -> None:
    """Write the report of a study's current results, or of your own: a page, Markdown, LaTeX, JSON.

    report.html is a single page that opens in any browser, offline; report.md and report.tex hold its tables,
    report.json every contrast.

    Results of your own training loop are a CSV or Parquet file with a row per run: mode, experience, seed and accuracy,
    or arm, seed and accuracy. All columns: docs/own-results.md.

    Args:
        out: folder to write. Default: the study's folder, or FILE for FILE.parquet or FILE.csv

    Examples:
        emoreg report runs/cifar10-pilot
        emoreg report recipes/studies/cifar10-pilot.yaml
        emoreg report results/cifar10-cpu.parquet --out build/cifar10-cpu    # from a table alone, without its runs
        emoreg report mine.csv    # of your own loop
    """
    from emoreg.runtime.safe_io import make_folder
    from emoreg.runtime.terminal import show

    opened = _open(study, runs)
    make_folder(out or opened.folder, "report's folder")
    results = opened.results
    if results is not None and results.own is not None:
        from emoreg.report.own_table import own_table

        show(own_table(results.own))
    notes = None if results is None else results.notes
    print_report(opened.name, opened.table, out or opened.folder, opened.left_out, own_notes=notes)


def results(
    studies: Annotated[Sequence[Path], Shown("STUDY", "studies' folders, YAML files or results.parquet")],
    *,
    merge: File | None = None,
    runs: RunsFolder | None = None,
    where: Condition | None = None,
    columns: ColumnNames | None = None,
    format: Format = "table",
) -> None:
    """Print, filter, join and export the current tables of runs of studies.

    Also writes results.parquet into the study's folder. Several tables are joined, with every run once. By default the
    test split is not shown; its scores are in the report.

    Args:
        merge: write the complete joined table to this Parquet file, and stop
        where: condition on the rows to print, as in pandas.DataFrame.query
        columns: names separated by commas; all for every column

    Examples:
        emoreg results runs/cifar10-pilot
        emoreg results runs/cifar10-pilot gpu/results.parquet --merge all.parquet
        emoreg results runs/cifar10-pilot --where "mode == 'learned' and seed < 3"
        emoreg results runs/cifar10-pilot --columns mode,experience,seed,recipe.training.epochs --format csv
    """
    if merge is not None:
        if merge.suffix.lower() != ".parquet":
            raise UserError(f"--merge: {merge} must end in .parquet")
        given = {"where": where is not None, "columns": columns is not None, "format": format != "table"}
        for option, is_given in given.items():
            if is_given:
                raise UserError(f"--merge writes whole tables; leave out --{option}")

    from emoreg.study.columns import each_once
    from emoreg.study.elsewhere import merged
    from emoreg.study.results_table import write_results

    if runs is not None and len(studies) > 1:
        raise UserError("--runs is for one study; give the folders of several")
    tables = [(str(path), _table(path, runs)) for path in studies]
    table = tables[0][1] if len(tables) == 1 else merged(tables)
    if merge is not None:
        write_results(merge, table)
        print(f"{merge}: {len(each_once(table))} runs of {len(tables)} tables")
    else:
        print_rows(table, where, columns, format, _default_columns)


def print_rows(
    table: pd.DataFrame,
    where: str | None,
    columns: str | None,
    format: Format,
    by_default: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    """Print the rows of a table that meet a condition: the named columns, or the part that `by_default` returns."""
    from emoreg.runtime.terminal import show
    from emoreg.study.results_table import select
    from emoreg.study.tables import rows_table, rows_text

    rows = select(table, where, None if columns is None or columns == "all" else columns.split(","))
    if columns is None:
        rows = by_default(rows)
    if format == "table":
        show(rows_table(rows))
    else:
        print(rows_text(rows, format), end="")


def _default_columns(table: pd.DataFrame) -> pd.DataFrame:
    table = table[table.stage == 2]
    known = [name for name in COLUMNS if name in table and table[name].notna().any()]
    if "validation_accuracy" in known and table["validation_accuracy"].count() == table["train_loss"].count():
        known.remove("train_loss")  # shown for runs without validation images
    return table[known]


def _refuse_runs(path: Path, runs: Path | None) -> None:
    """Raise UserError for --runs with a table of results, which needs no runs."""
    if runs is not None:
        raise UserError(f"--runs is for a study; leave it out for the table {path}")


def _table(path: Path, runs: Path | None) -> pd.DataFrame:
    """Read a table of results, or make the table of a study's current results and write it into the study's folder."""
    from emoreg.study.columns import has_result
    from emoreg.study.read_study import TABLE
    from emoreg.study.results_table import read_results, write_results
    from emoreg.study.run_study import RUNS, open_study

    if path.suffix.lower() in TABLES:
        _refuse_runs(path, runs)
        return read_results(path)
    opened = open_study(path, runs=runs)
    table = opened.table()
    if opened.out.is_dir():
        file, lost = opened.out / TABLE, set[str]()
        with contextlib.suppress(UserError):  # no table yet, or a damaged one
            before = read_results(file)
            lost = set(before.id[has_result(before)]) - set(table.id[has_result(table)])
        if lost:
            lacking = (
                f"{runs or opened.out / RUNS} lacks {len(lost)} of its runs; give --runs, or delete the table if they "
                "are gone"
            )
            print_line(f"emoreg: {file} is left as it is: {opened.fallen_out or lacking}")
            return table
        try:
            write_results(file, table)
        except UserError as error:  # the disk may be read-only
            print_line(f"emoreg: {error}")
    return table


def power(
    study: StudyOrTable | None = None,
    *,
    runs: RunsFolder | None = None,
    effect: Annotated[float, Shown("POINTS")] = 0.5,
    seeds: Annotated[Sequence[int], Shown("N")] = (6, 8, 12, 16),
    looks: Annotated[Sequence[int], Shown("N")] = (),
    sd: Annotated[float | None, Shown("POINTS")] = None,
    correlation: float = 0.0,
    arms: int | None = None,
) -> None:
    """Estimate how likely a study is to find an effect, for several numbers of seeds.

    Simulates exactly the test that the report uses, with the spread between the finished seeds of a pilot (at least
    two, better five), or with a given spread.

    Args:
        effect: difference to find, in percentage points
        seeds: numbers of seeds to try
        looks: numbers of seeds at which the study is looked at before its end
        sd: standard deviation of an arm's accuracy between seeds, in points, instead of a pilot
        correlation: with --sd, the correlation between two arms with the same seed; 0 for independent arms
        arms: number of regulated arms tested together. Default: as in the pilot, or 1

    Examples:
        emoreg power runs/cifar10-pilot
        emoreg power runs/cifar10-pilot --effect 1 --seeds 4 8 12 --looks 4
        emoreg power --sd 0.3 --seeds 8 12
    """
    for is_allowed, message in (
        (0 < effect < 100, f"--effect is {effect}; it must be a number of points above 0"),
        (
            seeds and all(2 <= number <= 100 for number in seeds),
            f"--seeds is {' '.join(map(str, seeds)) or 'empty'}; give numbers from 2 to 100",
        ),
        (min(looks, default=1) >= 1, f"--looks is {min(looks, default=1)}; it must be at least 1"),
        (sd is None or 0 < sd < 100, f"--sd is {sd}; it must be a number of points above 0"),
        (-1 < correlation < 1, f"--correlation is {correlation}; it must be above -1 and below 1"),
        (arms is None or arms >= 1, f"--arms is {arms}; it must be at least 1"),
        ((study is None) != (sd is None), "give either a pilot (STUDY) or its numbers (--sd)"),
        (sd is not None or correlation == 0, "--correlation is for --sd; a pilot has its own"),
        (sd is None or runs is None, "--runs is for a pilot (STUDY); leave it out with --sd"),
    ):
        if not is_allowed:
            raise UserError(message)

    from emoreg.report.power import given_spread, spreads_of, without_spread
    from emoreg.report.power_table import power_table
    from emoreg.runtime.terminal import show

    if study is None:
        spreads, pilot = [given_spread(sd or 0.0, correlation)], None
    else:
        pilot = _open(study, runs).table
        spreads = spreads_of(pilot)
    reasons = [without_spread(spread) for spread in spreads]
    if None not in reasons:
        raise UserError("; ".join(reason for reason in reasons if reason is not None))
    for spread, reason in zip(spreads, reasons, strict=True):
        if reason is not None:
            show(printable(reason))
            continue
        family = spread if arms is None else dataclasses.replace(spread, arms=arms)
        show(power_table(family, effect, seeds, looks, pilot))


class _Opened(NamedTuple):
    """The results of a study or of a table."""

    name: str
    table: pd.DataFrame
    folder: Path
    left_out: Sequence[str]  # arms that the study leaves out; unknown, so empty, for a table
    results: Results | None = None  # of a table


def _open(path: Path, runs: Path | None) -> _Opened:
    """Return the current results of a study or the results in a table; raise UserError if there are none yet."""
    from emoreg.report.own_report import read_results_file
    from emoreg.report.own_results import SUFFIXES

    if path.suffix.lower() in SUFFIXES:
        _refuse_runs(path, runs)
        results = read_results_file(path)
        return _Opened(path.stem, results.table, path.with_suffix(""), [], results)
    from emoreg.study.plan import left_out
    from emoreg.study.run_study import RUNS, open_study

    opened = open_study(path, runs=runs)
    if opened.fallen_out:
        print_line(f"emoreg: {opened.fallen_out}")
    table = opened.table()
    if not has_results(table):
        where = runs or opened.out / RUNS
        raise UserError(f"no run of this study is finished in {where}; run 'emoreg study' first, or give --runs")
    return _Opened(opened.study.name, table, opened.out, left_out(opened.study))


def has_results(table: pd.DataFrame) -> bool:
    """Whether any run of stage 2 has ended. Diverged runs count: they are reported as collapsed."""
    from emoreg.study.columns import has_result

    return bool((has_result(table) & (table.stage == 2)).any())

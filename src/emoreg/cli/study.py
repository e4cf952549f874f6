"""The commands of a study: run it, print its results, write its report, say how many seeds it needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.cli.parser import command_parser
from emoreg.errors import UserError, printable
from emoreg.runtime.progress import Progress, duration

if TYPE_CHECKING:
    import pandas as pd

    from emoreg.study.plan import PlannedRun
    from emoreg.study.ray_pool import Ray

STUDY_EXAMPLES = """\
examples:
  emoreg study recipes/studies/cifar10-pilot.yaml --dry-run
  emoreg study recipes/studies/cifar10-pilot.yaml --jobs 2
  emoreg study recipes/studies/cifar10-pilot.yaml --smoke
  emoreg study recipes/studies/cifar10-pilot.yaml --seeds 10     # ten in all: those that are done stay
  emoreg study recipes/studies/cifar10-pilot.yaml --ray auto --gpus-per-run 0.25
"""
RESULTS_EXAMPLES = """\
examples:
  emoreg results runs/cifar10-pilot
  emoreg results runs/cifar10-pilot --where "arm == 'learned' and seed < 3"
  emoreg results runs/cifar10-pilot --columns arm,seed,test_accuracy,recipe.training.epochs --format csv
"""
REPORT_EXAMPLES = """\
examples:
  emoreg report runs/cifar10-pilot
  emoreg report recipes/studies/cifar10-pilot.yaml
  emoreg report results/cifar10-cpu.parquet --out build/cifar10-cpu    # of a table alone, without its runs
"""
POWER_EXAMPLES = """\
examples:
  emoreg power runs/cifar10-pilot
  emoreg power runs/cifar10-pilot --half-width 0.25
"""
# What is printed unless columns are named.
COLUMNS = ["target", "backbone", "arm", "experience", "seed", "status", "test_accuracy", "validation_accuracy"]
COLUMNS += ["lambda", "seconds"]


def study(arguments: Sequence[str]) -> int:
    """The command `emoreg study`. 1 if a run failed."""
    parser = command_parser(
        "emoreg study",
        "Train every arm on every target, backbone and experience with every seed; then the table and the report.\n"
        "What is done already is never done again; a study that was stopped goes on with the same command.",
        STUDY_EXAMPLES,
    )
    parser.add_argument(
        "study", metavar="STUDY", type=Path, help="a YAML file, see recipes/studies/, or a study's folder"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="the study's folder; default: runs/<name of the file>")
    _add_runs(parser)
    parser.add_argument("--seeds", metavar="N", type=int, help="in place of the file's")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="runs at a time, on one machine (%(default)s)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help="do the runs on a Ray cluster: auto or HOST:PORT, or neither for this machine; all share the folder",
    )
    parser.add_argument("--gpus-per-run", metavar="N", type=float, help="with --ray; 0.25 puts four runs on a GPU")
    parser.add_argument("--cpus-per-run", metavar="N", type=int, help="with --ray (1)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and how long it will take, and stop")
    parser.add_argument(
        "--smoke", action="store_true", help="one seed of one epoch over few images: does all of it run?"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}; it must be at least 1")
    ray = _ray(options)

    from emoreg.study.definition import find_study, read_study
    from emoreg.study.plan import plan_runs
    from emoreg.study.run_study import RUNS, default_folder, run_study

    asked = read_study(find_study(options.study), options.seeds, options.smoke)
    folder = default_folder(options.study)
    beside = folder.resolve()  # "." has no name
    out = options.out or (beside.with_name(f"{beside.name}-smoke") if options.smoke else folder)
    progress = Progress(quiet=options.quiet, details=False)
    if options.dry_run:
        _print_plan(plan_runs(asked, options.runs or out / RUNS), options.jobs, progress)
        return 0
    table = run_study(asked, out, options.runs, options.jobs, progress, ray)
    failed = table[table.status == "failed"]
    if len(table[(table.stage == 2) & (table.status == "finished")]):
        _report(asked.name, table, out)
    for run in failed.itertuples():
        print(printable(f"emoreg: failed: {run.run}: {run.error}"), file=sys.stderr)
    if len(failed):
        print(
            f"emoreg: {len(failed)} of {len(table)} runs failed; their tracebacks are in {out}/failures.json; "
            "the same command tries them again",
            file=sys.stderr,
        )
    return 1 if len(failed) else 0


def _ray(options: argparse.Namespace) -> Ray | None:
    given = {
        key: getattr(options, key) for key in ("gpus_per_run", "cpus_per_run") if getattr(options, key) is not None
    }
    if options.ray is None:
        if given:
            raise UserError(f"--{next(iter(given)).replace('_', '-')} is for --ray")
        return None
    if options.jobs > 1:
        raise UserError("--jobs is for this machine without Ray; with --ray, say --cpus-per-run and --gpus-per-run")

    from emoreg.study.ray_pool import Ray

    return Ray(options.ray, **given)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs",
        metavar="DIR",
        type=Path,
        help="folder of the run folders, to share runs between studies; default: OUT/runs",
    )


def _print_plan(planned: Sequence[PlannedRun], jobs: int, progress: Progress) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from emoreg.study.calibrate import estimate_seconds

    seconds = estimate_seconds(planned, progress, jobs)
    table = Table(
        "stage", "target", "backbone", "arm", "experience", "runs", "done", "each", box=None, header_style="bold"
    )
    rows: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in planned:
        arm = run.arm or f"({getattr(run.recipe, 'pretext', '')})"
        stage = "1" if run.arm is None else "2"
        rows.setdefault((stage, run.target or "–", run.backbone, arm, run.experience or "–"), []).append(run)
    for key, runs in sorted(rows.items(), key=lambda row: row[0][0]):
        done = sum(run.run.is_finished for run in runs)
        table.add_row(
            *(Text(printable(part)) for part in key), str(len(runs)), str(done), duration(seconds[runs[0].id])
        )
    left = [run for run in planned if not run.run.is_finished]
    console = Console()
    console.print(table)
    total = sum(seconds[run.id] for run in left) / jobs
    console.print(
        f"{len(planned)} runs, {len(planned) - len(left)} done, {len(left)} to do: about {duration(total)}"
        + (f" with {jobs} at a time" if jobs > 1 else ""),
        highlight=False,
    )


def _report(name: str, table: pd.DataFrame, out: Path) -> None:
    from rich.console import Console

    from emoreg.report.analysis import analyse
    from emoreg.report.files import write_reports
    from emoreg.report.findings import findings
    from emoreg.report.paper_tables import results_table

    analysis = analyse(name, table)
    page = write_reports(out, analysis)
    console = Console()
    console.print(results_table(analysis))
    console.print(findings(analysis)[0], highlight=False, markup=False)
    console.print(f"page: {page.resolve()}", highlight=False, markup=False, soft_wrap=True)


def report(arguments: Sequence[str]) -> None:
    """The command `emoreg report`."""
    parser = command_parser(
        "emoreg report",
        "Write report.html (one page that opens anywhere, offline), report.md and report.tex of a study as it now is.",
        REPORT_EXAMPLES,
    )
    parser.add_argument(
        "study", metavar="STUDY", type=Path, help="a study's folder, its YAML file, or a results.parquet"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where to write; default: the study's folder, FILE for FILE.parquet"
    )
    _add_runs(parser)
    options = parser.parse_args(arguments)

    name, table, folder = _open(options.study, options.runs)
    folder = options.out or folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report's folder {folder}: {error.strerror or error}") from None
    _report(name, table, folder)


def results(arguments: Sequence[str]) -> None:
    """The command `emoreg results`."""
    parser = command_parser(
        "emoreg results", "Print a study's results as they now are, and write them as Parquet.", RESULTS_EXAMPLES
    )
    parser.add_argument(
        "study", metavar="STUDY", type=Path, help="a study's folder, its YAML file, or a results.parquet"
    )
    _add_runs(parser)
    parser.add_argument("--where", metavar="CONDITION", help="rows, as pandas.DataFrame.query takes it")
    parser.add_argument("--columns", metavar="NAMES", help="separated by commas; 'all' for all of them")
    parser.add_argument("--format", default="table", choices=["table", "csv", "json", "markdown"], help="(%(default)s)")
    options = parser.parse_args(arguments)

    from emoreg.study.definition import TABLE
    from emoreg.study.results import read_results, select, write_results
    from emoreg.study.run_study import open_study

    if options.study.suffix == ".parquet":
        table = read_results(options.study)
    else:
        found = open_study(options.study, runs=options.runs)
        table = found.table()
        if found.out.is_dir():
            try:
                write_results(found.out / TABLE, table)
            except UserError as error:  # of a study on a read-only disk the results can be read all the same
                print(f"emoreg: {error}", file=sys.stderr)
    if options.columns is None:
        table = select(table, options.where, None)
        table = table.loc[table.stage == 2, [name for name in COLUMNS if name in table]]
    else:
        names = list(table.columns) if options.columns == "all" else options.columns.split(",")
        table = select(table, options.where, names)
    _print_rows(table, options.format)


def _print_rows(table: pd.DataFrame, style: str) -> None:
    if style == "csv":
        print(table.to_csv(index=False), end="")
    elif style == "json":
        print(table.to_json(orient="records", indent=2, force_ascii=False))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        cells = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
        if style == "markdown":
            print(
                *("| " + " | ".join(row) + " |" for row in [list(table.columns), ["---"] * table.shape[1], *cells]),
                sep="\n",
            )
            return
        shown = Table(box=None, header_style="bold")
        for name in table.columns:
            shown.add_column(Text(name))
        for row in cells:
            shown.add_row(*(Text(cell) for cell in row))
        Console().print(shown)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 (NaN)
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def power(arguments: Sequence[str]) -> None:
    """The command `emoreg power`."""
    parser = command_parser(
        "emoreg power",
        "How many seeds a study needs, from the spread of those that are done (a pilot: two or more, better five).",
        POWER_EXAMPLES,
    )
    parser.add_argument(
        "study", metavar="STUDY", type=Path, help="a study's folder, its YAML file, or a results.parquet"
    )
    _add_runs(parser)
    parser.add_argument(
        "--half-width",
        metavar="POINTS",
        type=float,
        default=0.5,
        help="wanted half width of the 95 %% interval, and the difference to be seen, in points (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if not 0 < options.half_width < 100:
        raise UserError(f"--half-width is {options.half_width}; it must be a number of points above 0")

    _, table, _ = _open(options.study, options.runs)
    _print_power(table, options.half_width)


def _open(path: Path, runs: Path | None) -> tuple[str, pd.DataFrame, Path]:
    """A study's name, its results so far and its folder. UserError where there are no results yet."""
    if path.suffix == ".parquet":
        from emoreg.study.results import read_external_results

        name, table, folder = path.stem, read_external_results(path), path.with_suffix("")
    else:
        from emoreg.study.run_study import open_study

        found = open_study(path, runs=runs)
        name, table, folder = found.study.name, found.table(), found.out
    if not ((table.stage == 2) & (table.status == "finished")).any():
        raise UserError(f"no run of this study is finished in {folder}; run 'emoreg study' first")
    return name, table, folder


def _print_power(table: pd.DataFrame, half_width: float) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from emoreg.report.power import needed_seeds, training_hours
    from emoreg.report.statistics import ALPHA

    needs = needed_seeds(table, half_width)
    cells = {(need.target, need.backbone) for need in needs}
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for number, header in enumerate(
        ("Arm", "against", "spread,\npoints", "for the\ninterval", "for the\ndifference", "seeds")
    ):
        shown.add_column(header, justify="right" if number > 1 else "left")
    for need in needs:
        name = need.arm if len(cells) == 1 else f"{need.arm}\n{need.target}, {need.backbone}"
        width, power = f"{need.width}–{need.width_safe}", f"{need.power}–{need.power_safe}"
        shown.add_row(Text(name), Text(need.against), f"{need.sd:.2f}", width, power, str(need.seeds))
    most = max(need.seeds for need in needs)
    console = Console()
    console.print(shown)
    for line in (
        f"Pilot: {max(need.pilot for need in needs)} seeds. Spread: standard deviation of differences paired by seed.",
        f"For the interval: seeds for a 95 % interval of ±{half_width:g} points.",
        f"For the difference: seeds to see one of {half_width:g} points with a power of 80 % at {ALPHA:g}, corrected "
        "for all comparisons.",
        "Of each two numbers the first is for the pilot's spread, the second for its upper 80 % limit, as a pilot's "
        "spread is uncertain itself.",
        f"The exact test with Holm's correction needs {max(need.exact for need in needs)} seeds to decide anything.",
        f"With {most} seeds every row is served: about {training_hours(table, most):,.1f} hours of training in all.",
    ):
        console.print(line, highlight=False)

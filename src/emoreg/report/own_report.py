"""The report of any results: of a study, or of anybody's own training loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.config.setting_types import path_of
from emoreg.errors import UserError, shortened
from emoreg.report.analyse_table import analyse
from emoreg.report.files import write_reports
from emoreg.report.findings import findings
from emoreg.report.method_notes import MethodNotes
from emoreg.report.own_notes import TakenArm, not_checked, own_notes, taken_arms
from emoreg.report.own_results import OwnResults, as_table, own_results, read_own_results
from emoreg.report.read_runs import ArrowFrame, in_pandas
from emoreg.runtime.safe_io import make_folder
from emoreg.study.columns import RunStatus
from emoreg.study.conform import conform
from emoreg.study.first_edition import with_modes
from emoreg.study.results_table import check_content, read_external_results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """What `report_results` wrote.

    Args:
        page: path of report.html; report.md, report.tex and report.json lie beside it.
        findings: in sentences, the most important first.
        contrasts: as `emoreg.analyse` returns them.
        taken: of results of an own loop, what each arm's runs were taken for; empty for a study's table.
        not_checked: of results of an own loop, what the verdicts rest on and the table does not show.
    """

    page: Path
    findings: tuple[str, ...]
    contrasts: pd.DataFrame
    taken: tuple[TakenArm, ...]
    not_checked: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """Results for a report, in the form of a study's table."""

    table: pd.DataFrame
    own: OwnResults | None  # None for a study's

    @property
    def notes(self) -> MethodNotes | None:
        """In place of a study's settings; None for a study's table, which has them."""
        return None if self.own is None else own_notes(self.own)


def read_results_file(path: Path) -> Results:
    """Read a table of results: a study's, or one of an own loop.

    Raises:
        UserError: as `read_own_results` and `read_external_results`; no run has a result.
    """
    own = read_own_results(path)
    return _with_results(Results(read_external_results(path) if own is None else as_table(own), own), str(path))


def report_results(results: pd.DataFrame | ArrowFrame | Path | str, folder: Path | str, name: str = "") -> Report:
    """Write the report of results: of a study, or of a training loop of one's own.

    Results of an own loop have a row per run, with the columns `mode`, `experience`, `seed` and `accuracy`, or `arm`,
    `seed` and `accuracy`, where arms have the names that a report prints. All columns: docs/own-results.md. Contrasts,
    twins and verdicts are those of a study; that arms differ in nothing but mode and experience is the author's word,
    and the report says so.

    Args:
        results: a frame of pandas, polars, DuckDB or pyarrow, or a CSV or Parquet file.
        folder: where to write report.html, report.md, report.tex and report.json; made if it is not there.
        name: title of the report. Default: the name of the file, or "results".

    Raises:
        UserError: a file that cannot be read, an unknown or missing column, a wrong value (with its row), no result, or
            a folder that cannot be made or written to.
    """
    if isinstance(results, str | Path):
        path = path_of(results, "results")
        read, title = read_results_file(path), path.stem
    else:
        own, title = own_results(results), "results"
        read = _with_results(Results(_of_study(results) if own is None else as_table(own), own), "the frame")
    analysis = analyse(name or title, read.table, own_notes=read.notes)
    folder = path_of(folder, "folder")
    make_folder(folder, "report's folder")
    sentences = findings(analysis)
    page = write_reports(folder, analysis, sentences)
    taken = () if read.own is None else tuple(taken_arms(read.own))
    unchecked = () if read.own is None else tuple(not_checked(read.own))
    return Report(page, tuple(sentences), analysis.contrasts, taken, unchecked)


def _of_study(frame: pd.DataFrame | ArrowFrame) -> pd.DataFrame:
    """A study's table in memory, whichever library has it, with all columns. UserError if it holds anything else."""
    import pyarrow as pa

    try:
        plain = pa.Table.from_pandas(in_pandas(frame), preserve_index=False)
        table: pd.DataFrame = with_modes(conform(plain).to_pandas())
        check_content(table)
    except (ValueError, TypeError) as error:  # Arrow's own are of both kinds
        raise UserError(f"the frame cannot be read as a table of results: {shortened(str(error), 250)}") from None
    return table


def _with_results(results: Results, source: str) -> Results:
    table = results.table
    if not ((table["stage"] == 2) & (table["status"] == RunStatus.FINISHED)).any():
        raise UserError(f"no run has a result in {source}")
    return results

"""Reports on any results: those of a study, or of a user's own training loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.config.setting_types import path_of
from emoreg.errors import UserError
from emoreg.report.analyse_table import analyse
from emoreg.report.files import write_reports
from emoreg.report.findings import findings
from emoreg.report.method_notes import MethodNotes
from emoreg.report.own_notes import TakenArm, not_checked, own_notes, taken_arms
from emoreg.report.own_results import OwnResults, as_table, own_results, read_own_results, study_table
from emoreg.report.read_runs import ArrowFrame, in_pandas
from emoreg.runtime.safe_io import make_folder
from emoreg.study.columns import RunStatus
from emoreg.study.results_table import read_external_results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """The report that `report_results` wrote.

    Args:
        page: path of report.html; report.md, report.tex and report.json are in the same folder.
        findings: the findings in sentences, the most important first.
        contrasts: all contrasts, as `emoreg.analyse` returns them.
        taken: how the runs of each arm were interpreted, for results of your own loop; empty for a study's table.
        not_checked: what the verdicts rely on but the table does not show, for results of your own loop.
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
    own: OwnResults | None  # None for a study's table

    @property
    def notes(self) -> MethodNotes | None:
        """Notes that replace those on a study's settings; None for a study's table."""
        return None if self.own is None else own_notes(self.own)


def read_results_file(path: Path) -> Results:
    """Read a table of results, either a study's or a user's own.

    Raises:
        UserError: as for `read_own_results` and `read_external_results`, or no run has a result.
    """
    own = read_own_results(path)
    return _with_results(Results(read_external_results(path) if own is None else as_table(own), own), str(path))


def report_results(results: pd.DataFrame | ArrowFrame | Path | str, folder: Path | str, name: str = "") -> Report:
    """Write a report on results, either of a study or of your own training loop.

    Results of your own loop have a row per run, with the columns `mode`, `experience`, `seed` and `accuracy`, or `arm`,
    `seed` and `accuracy`, where arms have the names that a report prints. All columns: docs/own-results.md. Contrasts,
    twins and verdicts are those of a study. That arms differ only in mode and experience cannot be checked, and the
    report says so.

    Args:
        results: a frame of pandas, polars, DuckDB or pyarrow, or a CSV or Parquet file.
        folder: folder for report.html, report.md, report.tex and report.json; created if it does not exist.
        name: title of the report. Default: the name of the file, or "results".

    Raises:
        UserError: an unreadable file, an unknown or missing column, a wrong value (with its row), no result, or a
            folder that cannot be created or written to.
    """
    if isinstance(results, str | Path):
        path = path_of(results, "results")
        read, title = read_results_file(path), path.stem
    else:
        frame, title = in_pandas(results), "results"
        own = own_results(frame)
        table = study_table(frame, "the frame") if own is None else as_table(own)
        read = _with_results(Results(table, own), "the frame")
    analysis = analyse(name or title, read.table, own_notes=read.notes)
    folder = path_of(folder, "folder")
    make_folder(folder, "report's folder")
    sentences = findings(analysis)
    page = write_reports(folder, analysis, sentences)
    taken = () if read.own is None else tuple(taken_arms(read.own))
    unchecked = () if read.own is None else tuple(not_checked(read.own))
    return Report(page, tuple(sentences), analysis.contrasts, taken, unchecked)


def _with_results(results: Results, source: str) -> Results:
    table = results.table
    if not ((table["stage"] == 2) & (table["status"] == RunStatus.FINISHED)).any():
        raise UserError(f"no run has a result in {source}")
    return results

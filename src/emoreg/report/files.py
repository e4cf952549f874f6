"""The files of a report: a page for people, tables for papers."""

from __future__ import annotations

from pathlib import Path

from emoreg.report.analysis import Analysis
from emoreg.report.findings import findings
from emoreg.report.page import write_report
from emoreg.report.paper_tables import latex_table, markdown_table
from emoreg.runtime.safe_io import write_atomically


def write_reports(folder: Path, analysis: Analysis) -> Path:
    """Write report.html, report.md and report.tex.

    Returns:
        Path of report.html.
    """
    write_atomically(folder / "report.md", markdown_table(analysis).encode("utf-8", "backslashreplace"))
    write_atomically(folder / "report.tex", latex_table(analysis).encode("utf-8", "backslashreplace"))
    return write_report(folder / "report.html", analysis, findings(analysis))

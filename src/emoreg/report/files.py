"""The files of a report: a page for people, tables for papers, and all contrasts for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emoreg.errors import UserError
from emoreg.report.analysis import Analysis
from emoreg.report.page import write_report
from emoreg.report.paper_tables import latex_report, markdown_report
from emoreg.report.suite_tables import markdown_suites, suite_records
from emoreg.runs.run import RECIPE
from emoreg.runtime.safe_io import write_atomically, writing


def write_reports(folder: Path, analysis: Analysis, sentences: Sequence[str]) -> Path:
    """Write report.html, report.md, report.tex and report.json with a study's findings, the most important first.

    Returns the path of report.html.

    Raises:
        UserError: the folder is a run's, or a file cannot be written.
    """
    if (folder / RECIPE).exists():
        raise UserError(f"{folder} is a run folder; choose another for the report")
    parts = markdown_report(analysis, sentences[0]).rstrip(), markdown_suites(analysis)
    texts = {
        "report.md": "\n\n".join(parts).rstrip() + "\n",
        "report.tex": latex_report(analysis, sentences[0]),
        "report.json": json.dumps(_content(analysis, sentences), indent=1, ensure_ascii=False, allow_nan=False),
    }
    for name, text in texts.items():
        with writing(folder / name):
            write_atomically(folder / name, text.encode("utf-8", "backslashreplace"))
    return write_report(folder / "report.html", analysis, sentences)


def _content(analysis: Analysis, sentences: Sequence[str]) -> dict[str, Any]:
    """The findings and the contrast frame as records, with null for missing values."""
    records = analysis.contrasts.astype(object).where(analysis.contrasts.notna(), None).to_dict("records")
    return {
        "study": analysis.name,
        "editions": list(analysis.notes.editions),
        "runs": {
            "planned": analysis.planned,
            "finished": analysis.finished,
            "diverged": len(analysis.diverged),
            "failed": len(analysis.failures),
        },
        "findings": list(sentences),
        "contrasts": records,
        "suites": suite_records(analysis),
    }

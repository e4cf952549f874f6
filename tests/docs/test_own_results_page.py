"""docs/own-results.md lists every column, and its file and code work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from emoreg.report.own_columns import COLUMNS
from emoreg.report.own_report import read_results_file

PAGE = (Path(__file__).parents[2] / "docs" / "own-results.md").read_text(encoding="utf-8")


def test_every_column_is_on_the_page_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \| ", PAGE, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(COLUMNS)


def test_the_file_on_the_page_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```csv.*?\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "results.csv").write_text(text, encoding="utf-8")
    own = read_results_file(tmp_path / "results.csv").own
    assert own is not None and len(own.places) == 6


def test_the_code_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(compile(code, "docs/own-results.md", "exec"), space)
    assert (tmp_path / "report" / "report.html").is_file()
    assert space["report"].contrasts.query("contrast == 'gain' and experience == 'affect'")["verdict"].item() == "above"

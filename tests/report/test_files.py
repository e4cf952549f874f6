from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from emoreg.report.files import write_reports
from emoreg.report.findings import findings
from refusing import refusal
from report.made_up import FEW, made_up


def test_a_report_is_a_page_two_kinds_of_tables_and_json(tmp_path: Path) -> None:
    analysis = made_up(epochs=1, arms=FEW)
    sentences = findings(analysis)
    assert write_reports(tmp_path, analysis, sentences) == tmp_path / "report.html"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md", "report.tex", "report.json"}
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["study"] == "A study" and content["editions"] == [2]
    assert content["findings"] == sentences
    assert content["runs"] == {"planned": analysis.planned, "finished": analysis.finished, "diverged": 0, "failed": 1}


def test_a_run_folder_is_refused_for_a_report(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    assert "is a run folder; choose another" in refusal(
        lambda: write_reports(tmp_path, made_up(epochs=1, arms=FEW), [])
    )
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_file_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    message = refusal(lambda: write_reports(tmp_path, made_up(epochs=1, arms=FEW), ["No verdict."]))
    assert message.startswith(f"cannot write {tmp_path / name}: ")


def test_json_has_the_contrast_frame_as_records_with_null_for_missing_values(tmp_path: Path) -> None:
    analysis = made_up(epochs=1, arms=FEW)
    write_reports(tmp_path, analysis, findings(analysis))
    records = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["contrasts"]
    assert len(records) == len(analysis.contrasts)
    assert list(records[0]) == list(analysis.contrasts.columns)
    emotion = next(record for record in records if record["contrast"] == "emotion")
    assert (emotion["verdict"], emotion["missing"], emotion["p"]) == (
        "missing_twin",
        "moments, neutral, rotation",
        None,
    )
    row = analysis.contrasts[analysis.contrasts["contrast"] == "emotion"].iloc[0]
    assert math.isclose(emotion["point"], row.point)

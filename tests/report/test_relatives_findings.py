from __future__ import annotations

import pandas as pd

from emoreg.report.analyse_table import analyse
from emoreg.report.contrasts import analyse as contrasts_of
from emoreg.report.findings import findings
from emoreg.report.page_tables import accuracy_grid, contrasts_grid, in_groups
from emoreg.report.relatives_findings import relatives_findings
from result_rows import RELATIVES, results, stage_2

ACCURACIES = {
    "none": [0.90, 0.91, 0.92, 0.93],
    "learned": [0.92, 0.93, 0.94, 0.95],
    "learned fresh": [0.91, 0.92, 0.93, 0.94],
    "embp": [0.90, 0.92, 0.92, 0.93],
    "bel": [0.89, 0.90, 0.91, 0.92],
}


def study(**accuracies: list[float]) -> pd.DataFrame:
    return results(stage_2(ACCURACIES | accuracies))


def test_relatives_are_compared_with_backbone_and_not_tested() -> None:
    analysis = analyse("a study", study())
    (sentence,) = relatives_findings(analysis)
    assert "EmBP +0.25" in sentence and "BEL −1.00" in sentence and "LiAENN" not in sentence
    assert "not tested" in sentence and sentence in findings(analysis)
    frame = contrasts_of(study())
    own = frame[frame["mode"].isin(RELATIVES)]
    assert set(own["contrast"]) == {"accuracy", "gain"} and own["verdict"].isna().all()
    assert (frame["family"].max(), set(frame.loc[frame["family"] > 0, "mode"])) == (1, {"learned"})


def test_relatives_are_references_and_not_twins() -> None:
    analysis = analyse("a study", study())
    (cell,) = analysis.cells
    groups = {title: [arm.label for arm in arms] for title, arms in in_groups(cell)}
    assert groups == {"References": ["Backbone", "EmBP", "BEL"], "Learn-E-Reg": ["Learn-E-Reg", "Learn-E-Reg, fresh"]}
    assert [arm.role for arm in cell.references] == ["Backbone", "EmBP", "BEL"]
    grid = contrasts_grid(cell)
    assert grid is not None and [row[0].value for _, rows in grid.groups for row in rows] == ["Learn-E-Reg"]
    assert "EmBP" in str(accuracy_grid(cell))


def test_without_relatives_no_sentence_mentions_them() -> None:
    plain = {name: values for name, values in ACCURACIES.items() if name not in RELATIVES}
    assert relatives_findings(analyse("a study", results(stage_2(plain)))) == []


def test_a_study_with_only_relatives_is_reported() -> None:
    alone = {name: values for name, values in ACCURACIES.items() if not name.startswith("learned")}
    first, second = findings(analyse("a study", results(stage_2(alone))))
    assert "No regulated arm" in first and "BEL" in second

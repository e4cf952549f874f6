from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoreg.report.analyse_table import analyse
from emoreg.report.dose_response import dose_charts, dose_grid
from emoreg.report.doses import Doses, doses_of
from emoreg.report.page import write_report
from result_rows import results, stage_1, stage_2

BASE = {"recipe.stimuli.name": "oasis", "recipe.stimuli.share": math.nan, "recipe.training.epochs": 20}
SEEDS = (0.70, 0.71, 0.69, 0.72)


def encoders(**by_label: dict[str, Any]) -> list[dict[str, Any]]:
    return [row | BASE | own for label, own in by_label.items() for row in stage_1("affect", [0.5] * 4, label)]


def table(**by_label: dict[str, Any]) -> pd.DataFrame:
    return results(encoders(**by_label))


def share(value: float) -> dict[str, Any]:
    return {"recipe.stimuli.share": value}


def of_shares(twins: bool = True) -> pd.DataFrame:
    rows = encoders(all=share(math.nan), tenth=share(0.1))
    rows += stage_2({"none": SEEDS, "learned fresh": [a + 0.01 for a in SEEDS]}, stimuli=None)
    for label, gain in (("all", 0.03), ("tenth", 0.02)):
        arms = {"learned": [a + gain + 0.001 * n for n, a in enumerate(SEEDS)]}
        if twins:
            arms["learned shuffled"] = [a + 0.01 + 0.001 * (n % 2) for n, a in enumerate(SEEDS)]
        rows += stage_2(arms, stimuli=label)
    return results(rows)


def test_stimuli_that_differ_in_one_amount_are_doses_in_ascending_order() -> None:
    assert doses_of(table(long={"recipe.training.epochs": 40}, short={"recipe.training.epochs": 5})) == Doses(
        "training.epochs", {"short": 5, "long": 40}
    )
    doses = doses_of(table(all=share(math.nan), tenth=share(0.1)))
    assert doses == Doses("stimuli.share", {"tenth": 10, "all": 100})  # null means all of them


@pytest.mark.parametrize(
    "by_label",
    [
        {"one": {}},
        {"one": share(0.1), "two": share(0.2) | {"recipe.training.epochs": 5}},  # two amounts
        {"one": {"recipe.stimuli.name": "emod"}, "two": {}},
        {"one": {"recipe.optimizer.lr": 0.1}, "two": {"recipe.optimizer.lr": 0.2}},  # not an amount of experience
        {"one": {"recipe.stimuli.limit": 50.0}, "two": {"recipe.stimuli.limit": math.nan}},  # null is not a number
    ],
)
def test_other_stimuli_are_no_doses(by_label: dict[str, dict[str, Any]]) -> None:
    assert doses_of(table(**by_label)) is None


def test_a_table_without_settings_of_stage_1_has_no_doses() -> None:
    assert doses_of(results(stage_2({"none": SEEDS, "learned": SEEDS}))) is None


def test_the_table_has_a_row_for_each_dose_and_a_column_for_backbone_and_each_twin() -> None:
    analysis = analyse("A study", of_shares())
    (cell,) = analysis.cells
    grid = dose_grid(cell, analysis.doses)
    assert grid is not None and grid.headers == (
        "Share of the stimuli, %",
        "Over\nBackbone",
        "Over\nfresh",
        "Over\nshuffled",
    )
    ((title, rows),) = grid.groups
    assert title == "Learn-E-Reg"
    assert [[entry.value for entry in row] for row in rows] == [
        ["10", "+2.15", "+1.15", "+1.10"],
        ["100", "+3.15", "+2.15", "+2.10"],
    ]
    assert "No trend was tested" in grid.caption


def test_the_picture_has_a_panel_for_each_and_says_what_it_shows() -> None:
    analysis = analyse("A study", of_shares())
    (cell,) = analysis.cells
    (chart,) = dose_charts(cell, analysis.doses, "d")
    assert chart.title == "Learn-E-Reg" and "over shuffled" in chart.svg
    assert "Over Backbone: 10: +2.15" in chart.spoken and "100: +3.15" in chart.spoken


def test_without_twins_gains_alone_are_shown_and_without_doses_nothing() -> None:
    analysis = analyse("A study", of_shares(twins=False).query("experience != 'fresh'"))
    (cell,) = analysis.cells
    grid = dose_grid(cell, analysis.doses)
    assert grid is not None and grid.headers == ("Share of the stimuli, %", "Over\nBackbone")
    assert dose_grid(cell, None) is None and dose_charts(cell, None, "d") == []


def test_the_page_has_the_section_only_if_stimuli_are_doses(tmp_path: Path) -> None:
    analysis = analyse("A study", of_shares())
    assert "Dose and response" in write_report(tmp_path / "a.html", analysis, ["Found."]).read_text(encoding="utf-8")
    without = dataclasses.replace(analysis, doses=None)
    assert "Dose and response" not in write_report(tmp_path / "b.html", without, ["Found."]).read_text(encoding="utf-8")

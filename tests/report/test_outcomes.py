"""Studies whose targets have several labels or values are compared by other outcomes than accuracy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emoreg.errors import UserError
from emoreg.report.analyse_table import analyse as analysis_of
from emoreg.report.contrasts import analyse
from emoreg.report.files import write_reports
from emoreg.report.findings import findings
from emoreg.report.own_results import read_own_results
from emoreg.report.read_runs import read_runs
from emoreg.study.results_table import check_content
from result_rows import results, stage_1, stage_2

NAN = math.nan
CCC = {
    "none": (-0.10, 0.02, 0.05, 0.01, 0.03),
    "learned": (0.21, 0.33, 0.35, 0.30, 0.33),
    "learned fresh": (0.11, 0.12, 0.15, 0.12, 0.13),
    "learned moments": (0.10, 0.12, 0.14, 0.12, 0.14),
    "learned shuffled": (0.12, 0.12, 0.15, 0.11, 0.13),
}


def rated(labels: str = "dimensions", column: str = "ccc", target: str = "oasis") -> pd.DataFrame:
    """A study's table whose runs have a CCC and no accuracy."""
    rows = stage_2({arm: [0.5] * len(values) for arm, values in CCC.items()}, target=target)
    for row, value in zip(rows, (value for values in CCC.values() for value in values), strict=True):
        row |= {"test_accuracy": NAN, "validation_accuracy": NAN, f"test_{column}": value}
        row |= {"recipe.target.labels": labels, "classes": ["valence", "arousal"], "test_ece": NAN}
        row |= {f"train_{column}_{branch}": 0.4 for branch in ("non_emotional", "emotional")}
    return results(rows)


def test_the_contrasts_are_those_of_the_outcome_and_it_may_be_negative() -> None:
    frame = analyse(rated())
    alone = frame[(frame["mode"] == "none") & (frame["contrast"] == "ccc")].iloc[0]
    assert alone["point"] == pytest.approx(np.mean(CCC["none"])) and alone["low"] < 0
    gain = frame[(frame["experience"] == "affect") & (frame["contrast"] == "gain")].iloc[0]
    assert gain["point"] == pytest.approx(np.mean(np.subtract(CCC["learned"], CCC["none"])))
    assert gain["verdict"] == "above" and gain["images"] == 0 and "accuracy" not in set(frame["contrast"])


def test_few_labels_and_a_low_score_are_no_collapse() -> None:
    runs = read_runs(rated())
    assert not runs.is_collapsed.any() and runs.starved[-1] == ""
    lost = rated()
    lost.loc[0, "test_ccc"] = NAN
    assert read_runs(lost).is_collapsed.tolist() == [True] + [False] * (len(lost) - 1)


def test_a_branch_with_less_than_half_the_concordance_has_starved() -> None:
    table = rated()
    table["train_ccc_emotional"] = 0.1
    assert set(read_runs(table).starved) == {"emotional"}


def test_of_two_branches_that_learned_nothing_none_has_starved() -> None:
    table = rated()
    table["train_ccc_non_emotional"], table["train_ccc_emotional"] = -0.01, -0.011
    assert set(read_runs(table).starved) == {""}


def test_the_page_and_the_tables_name_the_outcome(tmp_path: Path) -> None:
    table = pd.concat([rated(), results(stage_1("affect", [0.3] * 5))], ignore_index=True)
    analysis = analysis_of("ratings", table)
    sentences = findings(analysis)
    assert any("For concordance (CCC) there is no right or wrong per test image" in line for line in sentences)
    page = write_reports(tmp_path, analysis, sentences).read_text(encoding="utf-8")
    assert "Differences in concordance (CCC)" in page and "Calibration" not in page and "Accuracies" not in page
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "concordance" in markdown and "CCC, hundredths" in markdown and "Accuracy, %" not in markdown


def test_a_table_is_checked_against_its_outcome() -> None:
    table = rated()
    check_content(table)
    table.loc[0, "test_ccc"] = NAN
    with pytest.raises(ValueError, match="a finished run lacks its test_ccc"):
        check_content(table)
    of_classes = rated(labels="majority")
    with pytest.raises(ValueError, match="a finished run lacks its test_accuracy"):
        check_content(of_classes)


def test_results_of_an_own_loop_may_have_another_outcome(tmp_path: Path) -> None:
    path, lines = tmp_path / "own.csv", ["mode,experience,seed,ccc"]
    for arm, values in CCC.items():
        mode, _, experience = arm.partition(" ")
        experience = experience or ("" if mode == "none" else "affect")
        lines += [f"{mode},{experience},{seed},{value}" for seed, value in enumerate(values)]
    path.write_text("\n".join(lines))
    own = read_own_results(path)
    assert own is not None and {outcome.name for outcome in own.runs.outcomes.values()} == {"ccc"}
    assert own.runs.scores[0] == -0.1
    path.write_text("arm,seed,ccc\nBackbone,0,1.5")
    with pytest.raises(UserError, match=r"row 2: ccc holds 1\.5; it must lie in \[-1, 1\]"):
        read_own_results(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("accuracy,ccc", "the table has accuracy and ccc: runs are compared by one of them"),
        ("ccc,correct", "ccc has no right or wrong for each image: leave out correct"),
        ("cccc", r"no column is called 'cccc' \(did you mean 'ccc'\?\)"),
        ("mean_average_precison", r"no column is called .* \(did you mean 'mean_average_precision'\?\)"),
    ],
)
def test_a_table_has_one_outcome(tmp_path: Path, columns: str, message: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"arm,seed,{columns}\nBackbone,0,{','.join('1' for _ in columns.split(','))}\n")
    with pytest.raises(UserError, match=message):
        read_own_results(path)


def test_runs_of_one_target_have_one_outcome() -> None:
    table = pd.concat([rated(), results(stage_2({"fixed": (0.5,)}, target="oasis", first_seed=9))])
    table["recipe.target.labels"] = table["recipe.target.labels"].fillna("majority")
    with pytest.raises(UserError, match=r"runs of one target have concordance \(CCC\) and accuracy: name two targets"):
        read_runs(table)

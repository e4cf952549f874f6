"""A report on results of an own loop says how it interpreted them, and what it could not check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import emoreg
from emoreg.report.own_notes import AUTHORS_WORD, not_checked, own_notes, taken_arms, taken_values
from emoreg.report.own_report import Report, read_results_file
from emoreg.report.own_results import OwnResults, own_results
from refusing import refusal
from report.own_tables import own_frame, written
from result_rows import results, stage_2


def own(frame: pd.DataFrame) -> OwnResults:
    found = own_results(frame)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("own") / "report"
    return folder, emoreg.report_results(own_frame(), folder, "My loop")


def test_the_report_of_an_own_loop_has_the_verdicts_of_a_study(report: tuple[Path, Report]) -> None:
    folder, made = report
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md", "report.tex"]
    assert made.findings[0].startswith("An effect specific to emotion is found. Above every twin with 8 seeds: ")
    contrasts = emoreg.analyse(own_frame().assign(target="unnamed target", backbone="unnamed backbone"))
    pd.testing.assert_frame_equal(made.contrasts.drop(columns="smallest_effect"), contrasts)
    page = made.page.read_text(encoding="utf-8")
    assert "<h1>My loop</h1>" in page and "own training loop, 64 runs in the frame" in page
    assert "Each run was scored on the test images once" not in page  # a table cannot show it
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["editions"] == []


def test_the_author_s_word_stands_among_the_findings(report: tuple[Path, Report]) -> None:
    _, made = report
    assert AUTHORS_WORD in made.findings and made.not_checked[0] == AUTHORS_WORD
    for file in ("report.md", "report.tex"):
        assert "the word of the table's author" in (made.page.parent / file).read_text(encoding="utf-8")
    assert not any("first edition" in sentence for sentence in made.findings)


def test_seeds_that_an_arm_lacks_are_reported_with_their_contrasts(tmp_path: Path) -> None:
    frame = own_frame()
    made = emoreg.report_results(frame[~((frame["arm"] == "Learn-E-Reg, shuffled") & (frame["seed"] > 4))], tmp_path)
    expected = (
        "Only 5 of 8 seeds are in the label effect and the emotion effect of Learn-E-Reg: shuffled is missing in 3."
    )
    assert expected in made.findings
    assert expected in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["findings"]
    assert expected in made.page.read_text(encoding="utf-8")
    assert any("the seeds that all arms of a contrast have" in sentence for sentence in made.not_checked)
    made = emoreg.report_results(frame[~((frame["arm"] == "Learn-E-Reg") & (frame["seed"] == 0))], tmp_path)
    (expected,) = [sentence for sentence in made.findings if sentence.startswith("Only ")]
    assert expected.startswith("Only 7 of 8 seeds are in the label effect, the emotion effect, the gain over Backbone")
    assert expected.endswith("of Learn-E-Reg: Learn-E-Reg is missing in 1.")
    planned = emoreg.report_results(frame.assign(planned_seeds=9), tmp_path)
    assert not any(
        sentence.startswith("Only ")
        for sentence in (*planned.findings, *emoreg.report_results(frame, tmp_path).findings)
    )


def test_seeds_that_an_arm_lacks_are_reported_if_they_prevent_a_verdict(tmp_path: Path) -> None:
    frame = own_frame()
    made = emoreg.report_results(frame[~((frame["arm"] == "Learn-E-Reg, shuffled") & (frame["seed"] > 0))], tmp_path)
    assert made.findings[0].startswith("No verdict on ") and "with one seed no test can pass" in made.findings[0]
    expected = (
        "Only one of 8 seeds is in the label effect and the emotion effect of Learn-E-Reg: shuffled is missing in 7."
    )
    assert expected in made.findings
    alone = {"Learn-E-Reg, shuffled": (0,), "Learn-E-Reg": range(1, 8)}
    is_there = [seed in alone.get(arm, (seed,)) for arm, seed in zip(frame["arm"], frame["seed"], strict=True)]
    made = emoreg.report_results(frame[is_there], tmp_path)
    expected = "None of 8 seeds are in the label effect and the emotion effect of Learn-E-Reg: "
    assert f"{expected}Learn-E-Reg is missing in 1; shuffled is missing in 7." in made.findings


def test_being_below_a_twin_relies_on_the_author_s_word_even_without_a_verdict(tmp_path: Path) -> None:
    made = emoreg.report_results(own_frame({"Learn-E-Reg": 0.70, "Learn-E-Reg, rotation": 0.72}), tmp_path / "report")
    assert "Learn-E-Reg is below rotation, −" in made.findings[0]
    assert made.findings[0].startswith("No verdict on")
    assert made.findings[0].endswith(
        "). That the arms differ in nothing else was not checked: it is the word of the table's author."
    )


def test_the_interpretation_of_each_arm_is_reported() -> None:
    frame = pd.DataFrame(
        [
            ("none", None, 0, 0.7),
            ("Learned", "affect", 0, 0.7),
            ("learn-e-reg", "affect", 1, 0.7),
            ("wide", None, 3, 0.7),
            ("learned", "fresh", 0, 0.7),
        ],
        columns=["mode", "experience", "seed", "accuracy"],
    )
    assert [(arm.given, arm.label, arm.role, arm.seeds) for arm in taken_arms(own(frame))] == [
        ("none", "Backbone", "reference", (0,)),
        ("Learned, affect or learn-e-reg, affect", "Learn-E-Reg", "regulated arm", (0, 1)),
        ("wide", "Wide", "reference", (3,)),
        ("learned, fresh", "Learn-E-Reg, fresh", "twin", (0,)),
    ]


def test_the_interpretation_of_other_columns_is_reported() -> None:
    frame = own_frame({"Backbone": 0.5}, seeds=2, planned_seeds=2, device="cuda")
    frame["correct"] = pd.Series([[1, 0, 1, 0], None])
    assert taken_values(own(frame.assign(accuracy=[0.5, np.nan]))) == [
        "Accuracies are shares of test images, calculated from correct in 1 of 2 runs.",
        "Without an accuracy, so counted as collapsed: row 1.",
        "Right or wrong is known for each of 4 images in 1 of 2 runs.",
        "Planned: 2 seeds from 0 on, looks at 2.",
        "Interpreted by their names: device.",
    ]


def test_a_plan_is_reported_with_its_first_seed() -> None:
    frame = own_frame({"Backbone": 0.5}, seeds=2, planned_seeds=2, first_seed=10)
    assert "Planned: 2 seeds from 10 on, looks at 2." in taken_values(own(frame.assign(seed=frame["seed"] + 10)))


def test_a_target_without_a_plan_is_said_beside_one_with_a_plan() -> None:
    frame = own_frame({"Backbone": 0.5, "Learn-E-Reg": 0.5}, seeds=2)
    both = pd.concat([frame.assign(target="pets", planned_seeds=2), frame.assign(target="cars")], ignore_index=True)
    assert any(line.startswith("For a target and backbone without planned_seeds") for line in not_checked(own(both)))
    planned = both[both["target"] == "pets"].reset_index(drop=True)
    assert not any("planned_seeds" in line for line in not_checked(own(planned)))


def test_an_exploration_needs_no_plan() -> None:
    frame = own_frame({"Backbone": 0.5, "Learn-E-Reg": 0.5}, seeds=2, purpose="exploration")
    planned = frame.assign(purpose="confirmation", planned_seeds=2)
    for table in (frame, pd.concat([planned, frame], ignore_index=True)):
        assert not any("planned_seeds" in line for line in not_checked(own(table)))


def test_what_is_not_checked_depends_on_the_columns() -> None:
    least = own_frame({"Learn-E-Reg": 0.5}, seeds=2)
    assert len(not_checked(own(least))) == 3
    assert "classes; train_accuracy_non_emotional, train_accuracy_emotional" in not_checked(own(least))[-1]
    assert any("checksum" in line for line in not_checked(own(least.assign(correct="1010", accuracy=0.5))))
    more = {"train_accuracy_non_emotional": 0.5, "train_accuracy_emotional": 0.5, "classes": 2, "planned_seeds": 2}
    assert not_checked(own(least.assign(**more, correct="1010", accuracy=0.5, checksum="a"))) == [AUTHORS_WORD]


def test_notes_name_cells_where_there_are_several() -> None:
    frame = pd.concat([own_frame({"Backbone": 0.5}, seeds=1, target=target) for target in ("pets", "cars")])
    assert dict(own_notes(own(frame)).facts)["Interpretation"] == (
        "Backbone as Backbone (reference, pets, one seed); Backbone as Backbone (reference, cars, one seed)"
    )


def test_a_study_s_table_is_reported_as_before(tmp_path: Path) -> None:
    table = results(stage_2({"none": [0.5, 0.6], "learned": [0.7, 0.8]}))
    made = emoreg.report_results(table, tmp_path / "out")
    assert not made.taken and not made.not_checked and AUTHORS_WORD not in made.findings
    assert (
        refusal(lambda: emoreg.report_results(pd.DataFrame({"stage": [2], "status": ["finished"]}), tmp_path))
        == "the frame cannot be read as a table of results: a run has no seed"
    )


def test_files_without_results_are_refused(tmp_path: Path) -> None:
    nothing = written(tmp_path / "r.csv", "arm,seed,accuracy\nBackbone,0,nan\n")
    assert refusal(lambda: read_results_file(nothing)) == f"no run has a result in {nothing}"
    assert "cannot read" in refusal(lambda: emoreg.report_results(tmp_path / "none.csv", tmp_path))
    (tmp_path / "r.parquet").write_bytes(b"PAR1 no")
    assert "r.parquet cannot be read as a table of results" in refusal(
        lambda: read_results_file(tmp_path / "r.parquet")
    )

"""The columns and values that a frame of runs must have, and the messages if it does not."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from emoreg.report.contrasts import analyse
from emoreg.report.read_runs import read_runs
from emoreg.report.run_frame import MODES, Arm, Plan
from emoreg.study.tables import rows_text
from refusing import refusal
from report.study_rows import arms, study
from result_rows import results, stage_2


def test_modes_may_have_their_report_names_in_any_case() -> None:
    frame = study(arms(0.92, 0.90))
    named = frame.assign(mode=[MODES[mode] for mode in frame["mode"]])
    pd.testing.assert_frame_equal(analyse(named), analyse(frame))


def test_backbone_and_ensemble_belong_to_no_stimuli_and_have_no_variant() -> None:
    frame = study({("none", None): 0.9, ("ensemble", None): 0.9}, stimuli="oasis")
    (cell,) = read_runs(frame).cells.values()
    assert list(cell) == [Arm("none", None, None, None), Arm("ensemble", None, None, None)]
    assert "a run of mode 'none' has the variant 'mixture'" in refusal(
        lambda: read_runs(frame.assign(variant="mixture"))
    )


def test_rows_of_stage_1_and_unfinished_runs_do_not_count() -> None:
    frame = study(arms(0.92, 0.90)).rename(columns={"accuracy": "test_accuracy"}).assign(stage=2, status="finished")
    other = pd.DataFrame([{"stage": 1, "status": "finished", "seed": 0}, {"stage": 1, "status": "failed", "seed": 1}])
    waiting = frame.assign(status="waiting", test_accuracy=math.nan, seed=frame["seed"] + 8)
    whole = pd.concat([frame, other, waiting], ignore_index=True).astype({"seed": int})
    pd.testing.assert_frame_equal(analyse(whole), analyse(frame))


def test_a_missing_column_is_reported_with_the_closest_one() -> None:
    frame = study(arms(0.92, 0.90))
    assert "no column 'accuracy' (rename 'accuracys' if that is it)" in refusal(
        lambda: analyse(frame.rename(columns={"accuracy": "accuracys"}))
    )
    assert "no column 'seed' (rename 'seeds' if that is it)" in refusal(
        lambda: analyse(frame.rename(columns={"seed": "seeds"}))
    )


def test_a_table_of_the_first_edition_is_refused_with_how_to_open_it() -> None:
    assert "first edition" in refusal(lambda: analyse(study(arms(0.9, 0.9)).rename(columns={"mode": "arm"})))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"mode": "learnt"}, "mode 'learnt' is unknown (did you mean 'learned'?)"),
        ({"mode": None}, "a run has no mode; Backbone's is 'none'"),
        ({"experience": "shufled"}, "experience 'shufled' is unknown (did you mean 'shuffled'?)"),
        ({"experience": None}, "a run of mode 'learned' has no experience"),
        ({"mode": "none"}, "a run of mode 'none' has the experience 'affect'; Backbone has none"),
        ({"purpose": "explore"}, "purpose 'explore' is unknown (did you mean 'exploration'?)"),
        ({"seed": 0.5}, "a seed is 0.5; it must be a whole number"),
        ({"accuracy": 91.2}, "accuracy holds 91.2; accuracies are shares in [0, 1], not in percent: divide it by 100"),
        ({"accuracy": -0.1}, "accuracy holds -0.1; accuracies are shares in [0, 1]"),
        ({"accuracy": "high"}, "accuracy holds 'high'; it must be a number"),
        (
            {"planned_seeds": 8, "looks": [8, 4]},
            "looks are [8, 4]; they must ascend, and end with all planned seeds, 8",
        ),
        (
            {"planned_seeds": 8, "looks": "4, 8"},
            "planned_seeds is 8, first_seed None and looks 4, 8; give a number, a number or nothing, and a list",
        ),
        ({"classes": "10"}, "classes holds '10'; give the number of classes, or a list of their names"),
        ({"classes": 1}, "classes holds '1'; give the number of classes"),
        ({"planned_seeds": 8, "looks": [4, 6]}, "looks are [4, 6]; they must ascend"),
    ],
)
def test_wrong_values_are_refused(row: dict[str, Any], message: str) -> None:
    right = {"mode": "learned", "experience": "affect", "seed": 0, "accuracy": 0.9, "purpose": None}
    assert message in refusal(lambda: analyse(pd.DataFrame([right | row])))


def test_a_run_that_occurs_twice_is_refused() -> None:
    frame = study(arms(0.92, 0.90), target="digits")
    assert "digits has the run Learn-E-Reg, affect, seed 0 twice" in refusal(
        lambda: analyse(pd.concat([frame, frame.iloc[:1]]))
    )


@pytest.mark.parametrize("images", [9993, 9999, 10_000])
def test_the_number_of_images_is_inferred_from_the_accuracy(images: int) -> None:
    right = np.random.default_rng(0).random((4, images)) < 0.7
    frame = study({("none", None): 0.5}, seeds=4)
    frame["accuracy"], frame["correct"] = right.mean(axis=1), [np.packbits(of_run).tobytes() for of_run in right]
    correct = read_runs(frame).correct_of((0, 1, 2, 3))
    assert correct is not None
    assert correct.images == images
    assert (correct.right[:images] == right.sum(axis=0)).all()


def test_an_empty_frame_has_no_contrasts() -> None:
    assert analyse(study(arms(0.9, 0.9)).iloc[:0]).empty


def test_runs_of_one_arm_with_different_plans_are_refused_whatever_their_order() -> None:
    frame = study({("learned", "affect"): 0.8, ("none", None): 0.8}, seeds=8)
    frame["planned_seeds"] = frame["seed"].map(lambda seed: 4 if seed < 4 else 8)
    messages = [refusal(lambda: read_runs(frame)), refusal(lambda: read_runs(frame.iloc[::-1]))]
    assert all("have different plans (planned_seeds, first_seed, looks)" in message for message in messages)
    plans = ["8 seeds from 0 on, looks at 8", "4 seeds from 0 on, looks at 4"]
    assert "; but ".join(plans) in messages[0] and "; but ".join(reversed(plans)) in messages[1]


def test_looks_as_a_text_of_digits_are_one_number() -> None:
    frame = study({("none", None): 0.9}).assign(looks="12")
    assert set(read_runs(frame).plans.values()) == {Plan(12, (12,), 0)}


def in_csv(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(rows_text(frame, "csv")))


@pytest.mark.parametrize(
    "change",
    [
        pa.Table.from_pandas,
        lambda frame: pa.Table.from_pandas(frame.astype({"mode": "category"})),
        lambda frame: frame.set_index(["mode", "seed"]),
        lambda frame: frame.convert_dtypes(),
        in_csv,
    ],
    ids=["arrow", "categories", "index", "nullable", "csv"],
)
def test_a_frame_of_another_library_gives_the_same_runs(change: Callable[[pd.DataFrame], Any]) -> None:
    rows = stage_2({"none": [0.5, 0.75], "learned": [0.75, 0.25]}, classes=["a", "b"], test_correct=b"\xf0")
    frame = results(rows).assign(looks=pd.Series([[2]] * 4), planned_seeds=2)
    before, after = read_runs(frame), read_runs(change(frame))
    assert after.cells == before.cells and after.plans == before.plans and after.correct == before.correct
    assert after.scores.tolist() == before.scores.tolist() and after.is_collapsed.any() == before.is_collapsed.any()


def test_an_object_that_is_not_a_frame_is_refused() -> None:
    nothing: Any = []
    assert "runs are given as a list" in refusal(lambda: read_runs(nothing))


def test_bits_that_a_csv_file_has_spoiled_are_refused() -> None:
    frame = results(stage_2({"none": [0.5]}, test_correct="b'\\xf0'"))
    assert "column 'test_correct' holds text instead of bytes, as after a CSV file" in refusal(lambda: read_runs(frame))


def test_a_csv_to_print_has_plain_line_ends_on_any_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "linesep", "\r\n")  # Windows prints "\n" as this, and would print two "\r"
    assert rows_text(pd.DataFrame({"seed": [1, 2]}), "csv") == "seed\n1\n2\n"

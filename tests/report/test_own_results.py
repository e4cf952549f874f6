"""Results of a user's own training loop are checked row by row and analysed like a study's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import emoreg
from emoreg.report.contrasts import COLUMNS as CONTRASTS
from emoreg.report.own_columns import COLUMNS, STORED
from emoreg.report.own_results import as_table, own_results, read_own_results
from emoreg.report.run_frame import Arm, Plan
from emoreg.study.columns import RunStatus
from refusing import refusal
from report.own_tables import own_frame, written
from report.study_rows import arms, study
from result_rows import results, stage_2

SMALL = "mode,experience,target,backbone,seed,accuracy\nnone,,pets,mine,0,0.7\nlearned,affect,pets,mine,0,0.72\n"


def read(path: Path) -> Any:
    own = read_own_results(path)
    assert own is not None
    return own


def test_arm_seed_and_accuracy_alone_give_every_contrast_of_mode_and_experience() -> None:
    frame = study(arms(0.92, 0.90))
    named = frame["mode"].map({"none": "Backbone", "ensemble": "Ensemble", "learned": "Learn-E-Reg"})
    experiences = frame["experience"].fillna("affect")  # that of an arm without a twin's
    arm = [
        name if experience == "affect" else f"{name}, {experience}"
        for name, experience in zip(named, experiences, strict=True)
    ]
    alone = pd.DataFrame({"arm": arm, "seed": frame["seed"], "accuracy": frame["accuracy"]})
    pd.testing.assert_frame_equal(emoreg.analyse(alone), emoreg.analyse(frame))


def test_a_file_gives_the_contrasts_of_its_frame(tmp_path: Path) -> None:
    frame = own_frame(seeds=2, classes=10, device="cuda", target="pets", backbone="mine")
    frame.to_csv(tmp_path / "one.csv", index=False)
    frame.to_csv(tmp_path / "two.tsv", index=False, sep=";", decimal=",")
    frame.to_parquet(tmp_path / "three.parquet")
    expected = emoreg.analyse(frame)
    for name in ("one.csv", "two.tsv", "three.parquet"):
        pd.testing.assert_frame_equal(
            emoreg.analyse(as_table(read(tmp_path / name))).drop(columns="backbone"), expected.drop(columns="backbone")
        )


def test_a_table_of_an_own_loop_becomes_a_study_s_table(tmp_path: Path) -> None:
    own = read(written(tmp_path / "r.csv", SMALL))
    assert own.source == "r.csv" and own.columns == ("mode", "experience", "target", "backbone", "seed", "accuracy")
    table = as_table(own)
    like = results(stage_2({"none": [0.7], "learned": [0.72]}, "pets", "mine", stimuli=None))
    same = ["stage", "status", "mode", "experience", "target", "backbone", "seed", "test_accuracy"]
    pd.testing.assert_frame_equal(table[same], like[same], check_dtype=False)
    assert table["run"].tolist() == [f"{tmp_path / 'r.csv'}, row 2", f"{tmp_path / 'r.csv'}, row 3"]


def test_known_columns_may_be_written_in_any_case(tmp_path: Path) -> None:
    first, rest = SMALL.split("\n", 1)
    table = as_table(read(written(tmp_path / "r.csv", f"{first.title()}\n{rest}")))
    pd.testing.assert_frame_equal(table, as_table(read(written(tmp_path / "r.csv", SMALL))))
    frame = own_frame()
    pd.testing.assert_frame_equal(emoreg.analyse(frame.rename(columns=str.upper)), emoreg.analyse(frame))


def test_a_study_s_table_is_recognised(tmp_path: Path) -> None:
    table = results(stage_2({"none": [0.7]}))
    table.to_csv(tmp_path / "r.csv", index=False)
    table.to_parquet(tmp_path / "r.parquet")
    assert (
        read_own_results(tmp_path / "r.csv") is read_own_results(tmp_path / "r.parquet") is own_results(table) is None
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SMALL.replace("accuracy", "acuracy"),
            "row 1: the table has no column 'accuracy' (rename 'acuracy' if that is it)",
        ),
        ("arm,seed,acc\nBackbone,0,0.7\n", "row 1: the table has no column 'accuracy' (rename 'acc' if that is it)"),
        ("arm,seed,Seed,accuracy\nBackbone,0,0,0.7\n", "row 1: the column 'seed' occurs twice; keep one"),
        (SMALL.replace("target", "tarjet"), "row 1: no column is called 'tarjet' (did you mean 'target'?)"),
        (SMALL.replace("target", "lr"), "row 1: no column is called 'lr'; leave it out, or"),
        (SMALL.replace("target", "arm"), "row 1: the columns arm and mode say the same"),
        (SMALL.replace("target", "test_accuracy"), "row 1: the columns accuracy and test_accuracy are the same"),
        (SMALL.replace("affect", "efect"), "row 3: experience 'efect' is unknown (did you mean 'affect'?)"),
        (SMALL.replace("learned", "learnt"), "row 3: mode 'learnt' is unknown (did you mean 'learned'?)"),
        (SMALL.replace("affect", ""), "row 3: a run of mode 'learned' has no experience"),
        (SMALL.replace("0.72", "72"), "row 3: accuracy holds 72.0; accuracies are shares in [0, 1], not in percent"),
        (
            SMALL.replace("0.72", "0,72"),
            "row 3: 7 fields, but the header has 6; put a value that contains ',' in quotes",
        ),
        (SMALL.replace("0.72", "good"), "row 3: accuracy holds 'good'; it must be a number"),
        (SMALL.replace("0.72", ""), "row 3: accuracy is empty; write nan for a run that diverged"),
        (SMALL.replace("mine,0,0.72", "mine,0.5,0.72"), "row 3: a seed is 0.5; it must be a whole number"),
        (SMALL.replace("mine,0,0.72", "mine,,0.72"), "row 3: a run has no seed"),
        (SMALL + "none,,pets,mine,0,0.7\n", "row 4: pets, mine has the run Backbone, seed 0 twice ("),
        ("arm,seed,accuracy\nLearn-E-Rag,0,0.7\n", "row 2: no arm is called 'Learn-E-Rag' (did you mean 'Learn-E-Reg'"),
        ("arm,seed,accuracy,lambda\nBackbone,0,0.7,2\n", "row 2: lambda holds 2; it must be a share in [0, 1]"),
        ("arm,seed,accuracy,classes\nBackbone,0,0.7,1\n", "row 2: classes holds '1'; give the number of classes"),
        ("arm,seed,accuracy,purpose\nBackbone,0,0.7,explore\n", "row 2: purpose 'explore' is unknown (did you mean"),
        ("arm,seed,accuracy,validation_accuracy\nBackbone,0,,0.7\n", "row 2: accuracy is empty; write nan for a run"),
        ("arm,seed,validation_ccc\nBackbone,0,0.7\n", "row 2: validation_ccc is compared only in an exploration: "),
        ("arm,seed,accuracy,correct\nBackbone,0,0.7,0120\n", "row 2: correct holds '0120'; give 1 (right) or 0"),
        ("arm,seed,accuracy,correct\nBackbone,0,0.7,0101\n", "row 2: accuracy is 0.7, but 2 of 4 images in correct"),
        ("arm,seed,accuracy,planned_seeds,looks\nBackbone,0,0.7,8,8 4\n", "row 2: looks are [8, 4]; they must ascend"),
        ("arm,seed,accuracy,first_seed\nBackbone,9,0.7,9\n", "row 2: first_seed is 9, but the number of seeds is not"),
        (
            "arm,seed,accuracy,planned_seeds\nBackbone,0,0.7,8\nE-Reg,0,0.8,\nE-Reg,1,0.8,12\n",
            "row 4: the runs of one target and backbone have different plans (planned_seeds, first_seed, looks): "
            "12 seeds from 0 on, looks at 12; but 8 seeds from 0 on, looks at 8 in ",
        ),
        (
            "arm,seed,correct\nBackbone,0,1101\nLearn-E-Reg,0,11011\n",
            "row 3: 5 test images, but 4 in ",
        ),
        (
            "mode,experience,seed,accuracy,variant\nnone,,0,0.5,a\nnone,,1,0.6,b\n",
            "row 2: a run of mode 'none' has the variant 'a'",
        ),
        ("arm,seed,accuracy,id\nBackbone,0,0.7,a\nE-Reg,0,0.8,a\n", "row 3: the id 'a' is also that of "),
        ("arm,seed,accuracy,id\nBackbone,0,0.7,a\nBackbone,1,0.7,a\n", "row 3: the id 'a' is also that of "),
        ("", "has no rows"),
        ("arm,seed,accuracy\n", "has no rows"),
    ],
)
def test_wrong_columns_and_values_are_refused_with_their_row(tmp_path: Path, text: str, message: str) -> None:
    error = refusal(lambda: read_own_results(written(tmp_path / "r.csv", text)))
    assert message in error and "r.csv" in error


def test_rows_of_a_frame_are_named_by_its_index() -> None:
    frame = own_frame().set_index(pd.Index([f"run {number}" for number in range(64)]))
    frame.loc["run 3", "accuracy"] = 70
    assert "row run 3: accuracy holds 70" in refusal(lambda: emoreg.analyse(frame))
    assert "no column is called 'sead' (did you mean 'seed'?)" in refusal(lambda: own_results(own_frame(sead=1)))


def answered(**more: Any) -> pd.DataFrame:
    """Runs with right or wrong for 40 images."""
    frame = own_frame(seeds=3, **more)
    draw = np.random.default_rng(1)
    correct = pd.Series([draw.random(40) < accuracy for accuracy in frame["accuracy"]])
    return frame.assign(correct=correct, accuracy=[of_run.mean() for of_run in correct])


@pytest.mark.parametrize(
    "change",
    [
        lambda of_run: of_run,
        lambda of_run: of_run.astype(int).tolist(),
        lambda of_run: "".join("01"[int(right)] for right in of_run),
        lambda of_run: str(of_run.astype(int).tolist()),
        lambda of_run: np.packbits(of_run).tobytes(),
    ],
    ids=["truth values", "numbers", "text", "JSON", "packed"],
)
def test_right_or_wrong_per_image_is_read_in_every_form(change: Any, tmp_path: Path) -> None:
    frame = answered()
    other = frame.assign(correct=frame["correct"].map(change))
    expected = emoreg.analyse(frame)
    assert set(expected["images"]) == {40}
    pd.testing.assert_frame_equal(emoreg.analyse(other), expected)
    if isinstance(other["correct"][0], str):
        other.to_csv(tmp_path / "r.csv", index=False)
        pd.testing.assert_frame_equal(emoreg.analyse(read(tmp_path / "r.csv").frame), expected)
    other.to_parquet(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(emoreg.analyse(read(tmp_path / "r.parquet").frame), expected)


def test_right_or_wrong_per_image_replaces_rounded_or_missing_accuracies() -> None:
    frame = answered()
    expected = emoreg.analyse(frame)
    pd.testing.assert_frame_equal(emoreg.analyse(frame.assign(accuracy=frame["accuracy"].round(2))), expected)
    pd.testing.assert_frame_equal(emoreg.analyse(frame.drop(columns="accuracy")), expected)
    assert "they come from different runs" in refusal(
        lambda: emoreg.analyse(frame.assign(accuracy=frame["accuracy"] - 0.02))
    )


@pytest.mark.parametrize("images", [10_000, 9_997])
def test_packed_right_or_wrong_is_read_with_rounded_accuracies(images: int) -> None:
    frame = own_frame(seeds=3)
    draw = np.random.default_rng(1)
    correct = [draw.random(images) < accuracy for accuracy in frame["accuracy"]]
    rounded = frame.assign(accuracy=[round(float(of_run.mean()), 3) for of_run in correct])
    unpacked = emoreg.analyse(rounded.assign(correct=correct))
    packed = rounded.assign(correct=[np.packbits(of_run).tobytes() for of_run in correct])
    found = emoreg.analyse(packed)
    assert set(abs(found["images"] - images)) <= {0, 1, 2}
    pd.testing.assert_series_equal(found["point"], unpacked["point"], atol=3e-4)
    own = own_results(packed)
    assert own is not None
    pd.testing.assert_frame_equal(emoreg.analyse(as_table(own))[["point", "low"]], found[["point", "low"]])
    assert "they come from different runs" in refusal(
        lambda: emoreg.analyse(packed.assign(accuracy=packed["accuracy"] - 0.02))
    )


def test_packed_right_or_wrong_needs_an_accuracy() -> None:
    frame = answered()
    packed = frame.assign(correct=frame["correct"].map(lambda of_run: np.packbits(of_run).tobytes()))
    error = refusal(lambda: emoreg.analyse(packed.drop(columns="accuracy")))
    assert error.startswith("row 0: correct is packed, which hides the number of images: give the accuracy")
    lost = own_results(packed.assign(accuracy=packed["accuracy"].mask(packed.index == 0)))
    assert lost is not None and lost.runs.is_collapsed.tolist() == [True, *[False] * (len(packed) - 1)]


def test_a_run_without_an_accuracy_has_diverged(tmp_path: Path) -> None:
    own = read(written(tmp_path / "r.csv", SMALL.replace("0.72", "nan")))
    assert own.runs.is_collapsed.tolist() == [False, True] and math.isnan(own.runs.scores[1])
    assert as_table(own)["status"].tolist() == [RunStatus.FINISHED, RunStatus.DIVERGED]


def test_the_accuracies_of_an_exploration_are_of_validation_images(tmp_path: Path) -> None:
    own = read(written(tmp_path / "r.csv", "arm,seed,accuracy,purpose\nBackbone,0,0.7,exploration\nBackbone,0,0.8,\n"))
    table = as_table(own)
    assert table["validation_accuracy"].tolist()[0] == 0.7 and math.isnan(table["test_accuracy"][0])
    assert table["test_accuracy"].tolist()[1] == 0.8 and math.isnan(table["validation_accuracy"][1])


def test_a_plan_of_seeds_and_looks_is_read(tmp_path: Path) -> None:
    text = 'arm,seed,accuracy,planned_seeds,looks\nBackbone,0,0.7,8,5 8\nE-Reg,0,0.8,8,"[5, 8]"\n'
    plans = set(read(written(tmp_path / "r.csv", text)).runs.plans.values())
    assert plans == {Plan(8, (5, 8))}
    text = "arm,seed,accuracy,planned_seeds,first_seed\nBackbone,100,0.7,8,100\n"
    assert set(read(written(tmp_path / "own.csv", text)).runs.plans.values()) == {Plan(8, (8,), 100)}


def test_an_exploration_may_have_only_its_own_accuracies(tmp_path: Path) -> None:
    text = "arm,seed,validation_accuracy,purpose\nBackbone,0,0.7,exploration\n"
    assert read(written(tmp_path / "r.csv", text)).runs.scores.tolist() == [0.7]
    frame = pd.DataFrame({"arm": ["Backbone"], "seed": [0], "validation_accuracy": [0.7]})
    assert "row 0: validation_accuracy is compared only in an exploration" in refusal(lambda: own_results(frame))


@pytest.mark.parametrize(
    ("column", "value", "verdict"), [("planned_seeds", 12, "between_looks"), ("looks", "[8, 12]", "above")]
)
def test_a_plan_that_only_one_row_gives_is_that_of_every_arm(
    tmp_path: Path, column: str, value: Any, verdict: str
) -> None:
    frame = own_frame({"Backbone": 0.70, "Learn-E-Reg": 0.76}).astype(object)
    alone, whole = frame.assign(**{column: None}), frame.assign(**{"planned_seeds": 12, column: value})
    alone.loc[3, column] = value
    alone.to_csv(tmp_path / "alone.csv", index=False)
    whole.to_csv(tmp_path / "whole.csv", index=False)
    table, expected = (as_table(read(tmp_path / f"{name}.csv")) for name in ("alone", "whole"))
    pd.testing.assert_frame_equal(table.drop(columns="run"), expected.drop(columns="run")[table.columns.drop("run")])
    found = emoreg.analyse(table)
    assert found.loc[(found["contrast"] == "gain") & (found["mode"] == "learned"), "verdict"].tolist() == [verdict]


def test_a_run_that_variants_share_may_have_one_id_in_the_rows_of_both(tmp_path: Path) -> None:
    text = 'arm,seed,accuracy,id\n"E-Reg, fresh, a",0,nan,x\n"E-Reg, fresh, b",0,nan,x\nBackbone,0,0.8,\n'
    assert read(written(tmp_path / "own.csv", text)).runs.ids == ["x", "x", None]


def test_targets_may_have_plans_of_their_own() -> None:
    frame = own_frame({"Backbone": 0.70, "Learn-E-Reg": 0.76}, seeds=4).astype(object)
    pets, cars = frame.assign(target="pets", planned_seeds=None), frame.assign(target="cars", planned_seeds=4)
    pets.loc[0, "planned_seeds"] = 8
    own = own_results(pd.concat([pets, cars], ignore_index=True))
    assert own is not None
    assert {(cell.target, plan.seeds) for (cell, _), plan in own.runs.plans.items()} == {("pets", 8), ("cars", 4)}
    assert as_table(own)["planned_seeds"].tolist() == [8] * 8 + [4] * 8


def test_every_column_is_one_of_a_study_s_table_or_the_arm() -> None:
    from emoreg.study.columns import type_of

    assert [name for name in COLUMNS if type_of(STORED.get(name, name)) is None] == ["arm"]


def test_further_columns_of_a_study_s_table_are_read_as_they_are(tmp_path: Path) -> None:
    text = 'arm,seed,accuracy,test_ece,recipe.training.epochs,epochs.train_loss\nBackbone,0,0.7,0.1,5,"[2.0, 1.0]"\n'
    own = read(written(tmp_path / "r.csv", text))
    (row,) = as_table(own).to_dict("records")
    assert (row["test_ece"], row["recipe.training.epochs"], [*row["epochs.train_loss"]]) == (0.1, 5, [2.0, 1.0])
    assert own.runs.cells and [*own.runs.cells.values()] == [{Arm("none", None, None, None): {0: 0}}]
    assert set(emoreg.analyse(own.frame)) == set(CONTRASTS)

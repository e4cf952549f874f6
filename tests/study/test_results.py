from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import emoreg
import emoreg.runs.run
from emoreg.config.read_recipe import build
from emoreg.errors import UserError
from emoreg.runs import readers
from emoreg.study.columns import RunStatus
from emoreg.study.definition import Study
from emoreg.study.plan import plan_runs
from emoreg.study.results import of_validation, results_of
from emoreg.study.results_table import read_external_results, read_results, select, write_results
from emoreg.study.run_one import RunOutcome


@pytest.fixture
def table(tiny_study: Study, tmp_path: Path, finish: Callable[..., None]) -> pd.DataFrame:
    planned = plan_runs(tiny_study, tmp_path / "runs")
    for number, run in enumerate(planned[:6]):
        finish(run, 0.5 + number / 100)
    failed = RunOutcome(planned[8], RunStatus.FAILED, "the disk is full")
    blocked = RunOutcome(
        planned[9], RunStatus.BLOCKED, "its encoder is not there"
    )  # the text of the error does not matter
    return results_of(tiny_study, planned, {planned[8].id: failed, planned[9].id: blocked})


def test_every_run_has_a_row_with_its_identity_and_status(table: pd.DataFrame) -> None:
    assert table.status.tolist() == ["finished"] * 6 + ["waiting", "waiting", "failed", "blocked"]
    assert table.error[8] == "the disk is full" and pd.isna(table.error[0])
    assert table[table.stage == 1].experience.tolist() == ["affect", "shuffled"] * 2
    assert table[table.stage == 1]["mode"].isna().all() and table.variant.isna().all()
    assert table[table.stage == 2]["mode"].tolist() == ["none", "learned", "learned"] * 2
    assert table.edition.eq(2).all() and table.purpose.eq("confirmation").all()
    assert table.planned_seeds.eq(2).all() and table.looks.tolist() == [[2]] * 10
    assert table.id.is_unique and table.run.is_unique


def test_metrics_are_flat_columns(table: pd.DataFrame) -> None:
    learned = table[(table["mode"] == "learned") & (table.experience == "affect") & (table.seed == 0)].iloc[0]
    assert learned.test_accuracy == pytest.approx(0.52) and learned["lambda"] == 0.5
    assert learned.lambda_per_class == [0.25, 0.75] and learned.classes == ["a", "b"]
    assert learned.test_per_class[0] == 0.5 and pd.isna(learned.test_per_class[1])
    assert learned.test_reliability_count == [0, 9] and pd.isna(learned.test_reliability_accuracy[0])
    assert (learned.images_train, learned.images_test) == (18, 9)
    first = table[table.stage == 1].iloc[0]
    assert first.validation_ccc == 0.1 and first.images_train == 18


def test_the_curves_of_a_run_are_read_once(
    tiny_study: Study, tmp_path: Path, finish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def read_metrics(path: Path) -> pd.DataFrame:
        read.append(path)
        return readers.read_metrics(path)

    monkeypatch.setattr(emoreg.runs.run, "read_metrics", read_metrics)
    run = next(run for run in plan_runs(tiny_study, tmp_path / "runs") if run.mode == "none")
    finish(run)
    row = results_of(tiny_study, [run], {}).iloc[0]
    assert row.train_loss == 1.0 and row["epochs.train_loss"] == [2.0, 1.0]
    assert read == [run.folder / "metrics.csv"]


def test_every_setting_is_a_column(table: pd.DataFrame) -> None:
    assert table["recipe.training.epochs"].eq(1).all()
    assert table["recipe.regulation.mode"].dropna().tolist() == ["none", "learned", "learned"] * 2


def test_the_table_is_unchanged_after_parquet(table: pd.DataFrame, tmp_path: Path) -> None:
    write_results(tmp_path / "results.parquet", table)
    again = read_results(tmp_path / "results.parquet")
    assert again.columns.tolist() == table.columns.tolist()
    assert again.test_accuracy.dropna().tolist() == table.test_accuracy.dropna().tolist()
    assert again.test_per_class[2][0] == 0.5 and again.error[8] == "the disk is full"
    assert not list(tmp_path.glob(".*"))


def test_a_missing_or_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("nothing.parquet", "broken.parquet"):
        with pytest.raises(UserError, match=f"{name} cannot be read as a table of results"):
            read_results(tmp_path / name)


def test_rows_are_selected_by_a_condition_and_columns_by_name(table: pd.DataFrame) -> None:
    got = select(
        table,
        "mode == 'learned' and experience == 'affect' and seed < 1 and `recipe.training.epochs` == 1",
        ["seed", "test_accuracy"],
    )
    assert got.columns.tolist() == ["seed", "test_accuracy"] and len(got) == 1
    assert select(table, None, None) is table


@pytest.mark.parametrize(
    ("where", "columns", "message"),
    [
        ("modes == 'learned'", None, r"no column is called 'modes' \(did you mean 'mode'\?\)"),
        ("mode ==", None, "--where cannot be read: .*an example: mode == 'learned'"),
        (None, ["test_acuracy"], r"no column is called 'test_acuracy' \(did you mean 'test_accuracy'\?\)"),
        ("mode < 3", None, "--where cannot be read"),
        ("seed + 1", None, "--where cannot be read"),
        (
            "`recipe.training.epoch` > 1",
            None,
            r"no column is called 'recipe.training.epoch' \(did you mean 'recipe.tra",
        ),
        ("mode.str.len() > 3 and sqrt(sead) > 1", None, r"no column is called 'sead' \(did you mean 'seed'\?\)"),
        ("mode = 'learned'", None, "--where cannot be read"),
    ],
)
def test_an_unknown_column_is_refused_with_the_closest_match(
    table: pd.DataFrame, where: str | None, columns: list[str] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        select(table, where, columns)


def test_a_damaged_run_is_reported_in_its_row_and_the_others_are_kept(
    tiny_study: Study, tmp_path: Path, finish: Callable[..., None]
) -> None:
    planned = plan_runs(tiny_study, tmp_path / "runs")
    for run in planned:
        finish(run)
    (planned[1].folder / "final.json").write_text("{")
    (planned[2].folder / "environment.json").write_text("{")
    table = results_of(tiny_study, planned, {})
    assert table.status.value_counts().to_dict() == {"finished": len(planned) - 1, "failed": 1}
    assert "final.json is damaged" in table.error[1] and "delete it" in table.error[1]


def test_a_run_without_an_accuracy_in_final_json_counts_as_failed(
    tiny_study: Study, tmp_path: Path, finish: Callable[..., None]
) -> None:
    planned = plan_runs(tiny_study, tmp_path / "runs")
    for run in planned:
        finish(run)
    wrong = next(run for run in planned if run.mode == "learned")
    (wrong.folder / "final.json").write_text('{"test": {"loss": 1.0}}')
    table = results_of(tiny_study, planned, {})
    assert table.loc[table.status == "failed", "id"].tolist() == [wrong.id]
    assert "it has no accuracy on the test split" in table.error[table.status == "failed"].iloc[0]


@pytest.mark.parametrize(
    "session",
    [{"cores": "many", "threads": [1]}, {"packages": "x", "started": 7, "gpu": {"a": 1}}, {"command": "caf\udce9"}],
)
def test_environment_values_of_the_wrong_type_are_left_out(
    session: dict[str, object], tiny_study: Study, tmp_path: Path, finish: Callable[..., None]
) -> None:
    planned = plan_runs(tiny_study, tmp_path / "runs")
    for run in planned:
        finish(run)
    (planned[0].folder / "environment.json").write_text(json.dumps({"sessions": [session]}))
    (planned[1].folder / "environment.json").write_text('{"sessions": [{"cores": 2, "started": "2024"}]}')
    write_results(tmp_path / "results.parquet", results_of(tiny_study, planned, {}))
    table = read_results(tmp_path / "results.parquet")
    assert table["env.cores"].dropna().tolist() == [2] and table["env.started"].dropna().tolist() == ["2024"]


def test_a_parquet_file_that_is_not_a_table_of_results_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet cannot be read as a table of results: it has no column 'stage'"):
        read_results(tmp_path / "x.parquet")


@pytest.mark.parametrize("first", [None, 100])
def test_the_table_of_a_replication_has_its_first_seed_and_gets_a_verdict(
    first: int | None, tiny_study: Study, tmp_path: Path, finish: Callable[..., None]
) -> None:
    study = dataclasses.replace(tiny_study, seeds=3, first_seed=first)
    planned = plan_runs(study, tmp_path / "runs")
    for run in planned:
        finish(run)
    table = results_of(study, planned, {})
    assert set(table["seed"]) == set(range(first or 0, (first or 0) + 3))
    contrasts = emoreg.analyse(table.drop(columns="test_correct"))
    gain = contrasts[contrasts.contrast == "gain"].iloc[0]
    assert (gain.n, gain.verdict != "between_looks") == (3, True)


def test_an_exploration_needs_no_accuracy_on_the_test_split(
    tiny_study: Study, tmp_path: Path, finish: Callable[..., None]
) -> None:
    (cell,) = tiny_study.grid
    untested = build(cell.recipe, {"target": {"test": False, "validation": 0.1}})
    point = dataclasses.replace(cell, recipe=untested)
    study = dataclasses.replace(tiny_study, grid=(point,), purpose="exploration")
    planned = plan_runs(study, tmp_path / "runs")
    for run in planned:
        finish(run)
        final = json.loads((run.folder / "final.json").read_text())
        (run.folder / "final.json").write_text(json.dumps(final | {"test": None}))
    table = results_of(study, planned, {})
    assert table["status"].eq("finished").all() and table["test_accuracy"].isna().all()
    assert table["seed"].min() == 1000
    write_results(tmp_path / "results.parquet", table)
    assert len(read_external_results(tmp_path / "results.parquet")) == len(table)


def test_stage_1_has_validation_images_and_chance_for_each_set_with_metrics() -> None:
    one: dict[str, dict[str, Any]] = {"oasis": {"validation": 90, "chance": None}}
    assert of_validation({"sets": one}, is_shared=False) == {"validation_images": 90}
    two = one | {"fi": {"validation": 200, "chance": 0.25}, "abstract": {"validation": 0, "chance": None}}
    assert of_validation({"sets": two}, is_shared=False) == {
        "validation_oasis_images": 90,
        "validation_fi_images": 200,
        "validation_fi_chance": 0.25,
    }
    turns = {name: facts | {"chance": 0.25} for name, facts in two.items()}
    assert of_validation({"sets": turns}, is_shared=True) == {"validation_images": 290, "validation_chance": 0.25}
    assert of_validation({}, is_shared=False) == {}  # as in the first edition

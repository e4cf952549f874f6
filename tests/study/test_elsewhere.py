from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import emoreg.stages.classify
import emoreg.stages.pretrain
from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.study.definition import Study
from emoreg.study.differences import BEFORE_ADDED
from emoreg.study.elsewhere import finished_elsewhere, merged
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.results import results_of
from emoreg.study.results_table import read_results, write_results
from emoreg.study.run_study import run_study
from emoreg.study.scheduler import left_to_do
from refusing import refusal

FIRST_EDITION = Path(__file__).parents[1] / "first_edition" / "results.parquet"


@pytest.fixture
def planned(tiny_study: Study, tmp_path: Path) -> list[PlannedRun]:
    return plan_runs(tiny_study, tmp_path / "runs")


@pytest.fixture
def table_of(tiny_study: Study, tmp_path: Path, finish: Callable[..., None]) -> Callable[..., pd.DataFrame]:
    """A table of another machine, which has finished the runs with these numbers."""

    def made(name: str, *numbers: int, accuracy: float = 0.5, study: Study | None = None) -> pd.DataFrame:
        runs = plan_runs(study or tiny_study, tmp_path / name)
        for number in numbers:
            finish(runs[number], accuracy)
        write_results(tmp_path / f"{name}.parquet", results_of(study or tiny_study, runs, {}))
        return read_results(tmp_path / f"{name}.parquet")

    return made


def test_joined_tables_have_every_run_once_with_finished_rows_preferred(table_of: Callable[..., pd.DataFrame]) -> None:
    one, two = table_of("one", 0, 1, 2), table_of("two", 2, 3)
    both = merged([("one", one), ("two", two)])
    assert both["id"].is_unique and len(both) == len(one)
    assert set(both.loc[both.status == "finished", "id"]) == {*one["id"][:3], one["id"][3]}
    correct = both.loc[both["mode"] == "none", "test_correct"].dropna()
    assert correct.tolist() == [b"\xaa\x00"]  # unchanged


def test_joining_keeps_every_arm_that_shares_a_run(table_of: Callable[..., pd.DataFrame]) -> None:
    one = table_of("one", 0, 1, 2)
    shared = one[one["stage"] == 2].head(1)
    twin = shared.assign(mode="ensemble", experience=None)
    both = merged([("one", one), ("two", twin), ("three", twin)])
    assert len(both) == len(one) + 1
    assert both.loc[both["id"] == shared["id"].item(), "mode"].tolist() == [shared["mode"].item(), "ensemble"]


def test_joining_keeps_the_row_in_which_a_run_has_come_furthest(
    table_of: Callable[..., pd.DataFrame],
) -> None:
    table = table_of("one", 1).iloc[[1]]  # an encoder, for which divergence is not a result
    ends = ("finished", "diverged", "failed", "blocked", "waiting")
    tables = {end: table.assign(status=end, error=end) for end in ends}
    for further, end in itertools.combinations(ends, 2):
        for pair in ((further, end), (end, further)):
            assert merged([(name, tables[name]) for name in pair])["status"].tolist() == [further]


@pytest.mark.parametrize("status", [None, "unheard of"])
def test_joining_prefers_any_known_status_to_another(table_of: Callable[..., pd.DataFrame], status: str | None) -> None:
    table = table_of("one", 0).iloc[[0]]
    tables = ("one", table.assign(status=status)), ("two", table.assign(status="waiting"))
    for pair in (tables, tables[::-1]):
        assert merged(pair)["status"].tolist() == ["waiting"]


def test_suites_scored_later_are_joined_with_earlier_ones(table_of: Callable[..., pd.DataFrame]) -> None:
    table = table_of("one", 0).iloc[[0]]

    def scored(**suites: float) -> pd.DataFrame:
        scored = {name: {"options": {}, "images": "all"} for name in suites}
        figures = {f"suite.{name}.mean": value for name, value in suites.items()}
        return table.assign(**figures, suites=json.dumps(scored))

    tables = [("old", table), ("one", scored(calibration=0.1)), ("two", scored(calibration=0.2, corruptions=0.3))]
    (row,) = merged(tables).to_dict("records")
    assert (row["suite.calibration.mean"], row["suite.corruptions.mean"]) == (0.1, 0.3)
    assert list(json.loads(row["suites"])) == ["calibration", "corruptions"]


def test_a_run_with_two_results_is_refused(table_of: Callable[..., pd.DataFrame]) -> None:
    one, two = table_of("one", 0), table_of("two", 0, accuracy=0.6)
    error = refusal(lambda: merged([("one.parquet", one), ("two.parquet", two)]))
    assert "one.parquet and two.parquet have different results of the run digits-resnet8-backbone-seed0" in error
    assert "test_accuracy (0.5 there, 0.6 here)" in error


def test_a_classifier_that_diverged_in_one_table_and_finished_in_another_has_two_results(
    table_of: Callable[..., pd.DataFrame],
) -> None:
    one = table_of("one", 0).iloc[[0]]
    two = table_of("two").iloc[[0]].assign(status="diverged", error="the loss is not finite")
    assert merged([("one", two), ("two", two)])["status"].tolist() == ["diverged"]
    error = refusal(lambda: merged([("one.parquet", one), ("two.parquet", two)]))
    assert "different results of the run digits-resnet8-backbone-seed0" in error
    assert "status (finished there, diverged here)" in error
    assert "status (diverged there, finished here)" in refusal(lambda: merged([("two", two), ("one", one)]))


def test_tables_of_both_editions_are_joined(table_of: Callable[..., pd.DataFrame]) -> None:
    old = read_results(FIRST_EDITION)
    both = merged([("new", table_of("new", 0)), ("old", old)])
    assert both["edition"].value_counts().to_dict() == {1: len(old), 2: len(both) - len(old)}
    assert {"learned", "none", "ensemble"} <= set(both["mode"].dropna()) and "arm" not in both


def test_a_table_without_ids_is_not_joined(table_of: Callable[..., pd.DataFrame]) -> None:
    table = table_of("one", 0).drop(columns="id")
    assert "mine cannot be joined: a run has no id" in refusal(lambda: merged([("mine", table)]))


def test_finished_runs_of_another_machine_count_as_done_and_are_in_the_table(
    tiny_study: Study, planned: list[PlannedRun], table_of: Callable[..., pd.DataFrame]
) -> None:
    done = finished_elsewhere([("other", table_of("other", 0, 2))], planned)
    assert done["id"].tolist() == [planned[0].id, planned[2].id]
    table = results_of(tiny_study, planned, {}, done)
    assert table["status"].tolist()[:4] == ["finished", "waiting", "finished", "waiting"]
    assert table["test_accuracy"][0] == 0.5 and pd.isna(table["folder"][0]) and table["run"][0] == planned[0].name
    assert table["test_correct"][0] == b"\xaa\x00" and list(table["epochs.train_loss"][0]) == [2.0, 1.0]


def test_a_classifier_that_diverged_elsewhere_is_not_trained_again_here(
    tiny_study: Study, planned: list[PlannedRun], table_of: Callable[..., pd.DataFrame]
) -> None:
    other = table_of("other", 0, 2)
    other.loc[[0, 1], ["status", "error"]] = "diverged", "the loss is not finite"  # Backbone, and an encoder
    done = finished_elsewhere([("other", other)], planned)
    assert done["id"].tolist() == [planned[0].id, planned[2].id]
    table = results_of(tiny_study, planned, {}, done)
    assert table["status"].tolist()[:3] == ["diverged", "waiting", "finished"]
    assert table["error"][0] == "the loss is not finite"
    assert planned[0] not in left_to_do(planned, set(done["id"]))


def test_stage_1_is_repeated_only_for_a_remaining_run(planned: list[PlannedRun]) -> None:
    """The plan of each seed is Backbone, an encoder and its arm, a shuffled encoder and its arm."""
    names = [run.mode or "encoder" for run in planned[:5]]
    assert names == ["none", "encoder", "learned", "encoder", "learned"]
    ids = [run.id for run in planned]
    assert left_to_do(planned) == planned
    assert left_to_do(planned[:5], set(ids[:3])) == planned[3:5]  # all arms of the first encoder are done
    assert left_to_do(planned[:5], {ids[2]}) == [planned[0], *planned[3:5]]  # whether or not the encoder has a row
    assert (
        left_to_do(planned[:5], {ids[0], ids[1]}) == planned[1:5]
    )  # the encoder's weights are needed, and are not here


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cuda"}, "its closest run differs in training.device (cuda there, cpu here)"),
        ({"precision": "bf16-mixed"}, "training.precision (bf16-mixed there, 32-true here)"),
        ({"epochs": 9}, "training.epochs (9 there, 1 here)"),
    ],
)
def test_a_table_of_another_study_is_refused_with_the_differences_of_its_closest_run(
    change: dict[str, object],
    message: str,
    tiny_study: Study,
    planned: list[PlannedRun],
    table_of: Callable[..., pd.DataFrame],
) -> None:
    (cell,) = tiny_study.grid
    other = dataclasses.replace(cell, recipe=build(cell.recipe, {"training": change}))
    table = table_of("other", 0, study=dataclasses.replace(tiny_study, grid=(other,)))
    alone = table[table["mode"] == "none"]
    error = refusal(lambda: finished_elsewhere([("other.parquet", alone)], planned))
    assert error.startswith("other.parquet has no run of this study: ") and message in error


def test_settings_added_after_a_table_was_written_are_not_differences(
    tiny_study: Study, planned: list[PlannedRun], table_of: Callable[..., pd.DataFrame]
) -> None:
    (cell,) = tiny_study.grid
    other = dataclasses.replace(cell, recipe=build(cell.recipe, {"training": {"epochs": 9}}))
    table = table_of("other", 0, study=dataclasses.replace(tiny_study, grid=(other,)))
    unused = [name for name, value in BEFORE_ADDED.items() if table[name].dropna().eq(value).all()]
    earlier = table[table["mode"] == "none"].assign(**dict.fromkeys(unused))
    error = refusal(lambda: finished_elsewhere([("other.parquet", earlier)], planned))
    assert error == (
        "other.parquet has no run of this study: its closest run differs in training.epochs (9 there, 1 here)"
    )


def test_if_only_images_have_changed_the_error_says_so(
    tiny_study: Study, tmp_path: Path, table_of: Callable[..., pd.DataFrame]
) -> None:
    (cell,) = tiny_study.grid
    fewer = dataclasses.replace(cell, target="few", recipe=build(cell.recipe, {"target": {"limit": 32}}))
    study = dataclasses.replace(tiny_study, grid=(cell, fewer))
    table = table_of("other", 0, study=study)
    table["id"] = [f"other{number}" for number in range(len(table))]
    error = refusal(lambda: finished_elsewhere([("other", table)], plan_runs(study, tmp_path / "runs")))
    assert "its settings are the same, but its images have other names" in error


def test_a_table_of_the_first_edition_or_of_other_arms_is_refused_as_such(planned: list[PlannedRun]) -> None:
    old = read_results(FIRST_EDITION)
    assert "edition (1 there, 2 here)" in refusal(lambda: finished_elsewhere([("old", old)], planned[:1]))
    none = old[old["mode"] == "ensemble"]
    assert "none has the mode, experience and seed" in refusal(lambda: finished_elsewhere([("old", none)], planned))


def test_a_study_continues_where_another_machine_stopped_and_keeps_its_runs(
    tiny_study: Study, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = run_study(dataclasses.replace(tiny_study, run_seeds=1), tmp_path / "there", progress=quiet)
    trained: list[str] = []
    pretrain, train = emoreg.stages.pretrain.pretrain, emoreg.stages.classify.train

    def noted_pretrain(recipe: PretrainRecipe, out: Path, progress: Progress) -> None:
        trained.append(out.name)
        pretrain(recipe, out, progress=progress)

    def noted_train(recipe: TrainRecipe, out: Path, progress: Progress) -> None:
        trained.append(out.name)
        train(recipe, out, progress=progress)

    monkeypatch.setattr(emoreg.stages.pretrain, "pretrain", noted_pretrain)
    monkeypatch.setattr(emoreg.stages.classify, "train", noted_train)
    handed_on = [tmp_path / "there" / "results.parquet"]
    table = run_study(tiny_study, tmp_path / "here", progress=quiet, elsewhere=handed_on)
    assert len(trained) == 5 and all("seed1" in name for name in trained)
    assert table["status"].eq("finished").all() and len(table) == 10
    columns = ["id", "test_accuracy", "test_correct", "test_checksum", "validation_ccc"]
    pd.testing.assert_frame_equal(table[table.seed == 0][columns].reset_index(drop=True), there[columns])
    again = run_study(tiny_study, tmp_path / "here", progress=quiet)  # the other table need not be given again
    assert len(trained) == 5
    pd.testing.assert_frame_equal(again[columns], table[columns])


def test_a_table_of_another_study_is_refused_before_any_training(
    tiny_study: Study, tmp_path: Path, quiet: Progress
) -> None:
    with pytest.raises(UserError, match=r"results\.parquet has no run of this study"):
        run_study(tiny_study, tmp_path / "here", progress=quiet, elsewhere=[FIRST_EDITION])
    assert not (tmp_path / "here" / "runs").exists() and not (tmp_path / "here" / "elsewhere.parquet").exists()

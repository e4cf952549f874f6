from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from emoreg.config.recipe import flatten
from emoreg.config.schema import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.study.columns import CURVES, FIXED, RunStatus, fits, in_order, type_of
from emoreg.study.definition import Study
from emoreg.study.plan import plan_runs
from emoreg.study.results import read_external_results, read_results, results_of, write_results
from emoreg.study.run_one import RunOutcome
from refusing import refusal
from study_arms import BACKBONE

RESULTS = sorted(Path(__file__).parents[2].glob("results/*.parquet"))


@pytest.fixture
def written(tiny_study: Study, tmp_path: Path, finish: Callable[..., None]) -> Path:
    """The results of a study: a run of each stage is finished, one has failed."""
    planned = plan_runs(tiny_study, tmp_path / "runs")
    for run in planned[:6]:
        finish(run)
    path = tmp_path / "results.parquet"
    failure = RunOutcome(planned[7], RunStatus.FAILED, "the disk is full")
    write_results(path, results_of(tiny_study, planned, {planned[7].id: failure}))
    return path


def test_every_setting_of_both_recipes_has_a_column_of_its_type() -> None:
    for recipe in (TrainRecipe(), PretrainRecipe()):
        for key, value in flatten(dataclasses.asdict(recipe)):
            if key != "encoder.backbone":  # none by default; its own settings have columns
                assert fits(f"recipe.{key}", str(value) if isinstance(value, tuple) else value), key
    assert type_of("recipe.training.epochs") == pa.int64() and type_of("recipe.optimizer.ema") == pa.float64()
    assert type_of("recipe.augment.flip") == pa.bool_() and type_of("recipe.training.trackers") == pa.string()
    assert type_of("recipe.encoder.backbone.patch_size") == pa.int64() and type_of("recipe.also") == pa.string()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test_ece", pa.float64()),
        ("test_per_class", pa.list_(pa.float64())),
        ("test_reliability_count", pa.list_(pa.int64())),
        ("validation_reliability_confidence", pa.list_(pa.float64())),
        ("validation_ccc_valence", pa.float64()),
        ("test_images", pa.int64()),
        ("epochs.train_loss", pa.list_(pa.float64())),
        ("env.gpu", pa.string()),
        ("env.threads", pa.int64()),
        ("mine", None),
    ],
)
def test_a_column_has_its_type_by_its_name(name: str, kind: pa.DataType | None) -> None:
    assert type_of(name) == kind


def test_all_columns_are_there_with_the_same_types_whatever_the_runs_have(
    written: Path, tiny_study: Study, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing.parquet"
    alone = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1)  # no stage 1, and no run is finished
    write_results(nothing, results_of(alone, plan_runs(alone, tmp_path / "elsewhere"), {}))
    full, empty = parquet.read_schema(written), parquet.read_schema(nothing)
    assert set(FIXED) <= set(empty.names) <= set(full.names)
    assert all(full.field(name).type == type_of(name) for name in full.names)
    assert [full.field(name).type for name in empty.names] == empty.types
    assert empty.field("lambda").type == pa.float64() and empty.field("error").type == pa.string()
    together = pa.concat_tables([parquet.read_table(path) for path in (written, nothing)], promote_options="default")
    assert len(together) == 11
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in (written, nothing):
        path.rename(folder / path.name)
    assert len(pd.read_parquet(folder)) == 11


def test_curves_come_last_and_metrics_that_not_all_runs_have_before_the_settings() -> None:
    names = in_order(["epochs.lr", "test_ece", "seed", "mine"])
    assert names[-1] == "epochs.lr" and names.index("test_ece") < names.index("recipe.seed") < names.index("env.git")
    assert sorted(names) == sorted({*FIXED, "epochs.lr", "test_ece", "mine"})


def indexed(table: pa.Table) -> pa.Table:
    """As pandas writes rows that were selected, with text of few values as categories."""
    frame = table.to_pandas().sort_values("seed", kind="stable")
    return pa.Table.from_pandas(frame.astype({"mode": "category", "status": "category"}), preserve_index=True)


def reordered(table: pa.Table) -> pa.Table:
    return table.select(table.column_names[::-1])


def as_polars_writes(table: pa.Table) -> pa.Table:
    """Large text and lists, categories, NaN for what is missing, small integers."""
    large = {pa.string(): pa.large_string(), pa.list_(pa.float64()): pa.large_list(pa.float64())}
    large[pa.binary()] = pa.large_binary()
    columns = [column.cast(large.get(column.type, column.type)) for column in table.columns]
    made = pa.table(columns, names=table.column_names)
    gaps = pa.array(np.where(table["lambda"].is_null(), np.nan, table["lambda"].to_numpy()))
    made = made.set_column(made.column_names.index("lambda"), "lambda", gaps)
    parameters = pa.array(table["parameters"].to_pandas().to_numpy())  # with NaN
    made = made.set_column(made.column_names.index("parameters"), "parameters", parameters)
    made = made.set_column(made.column_names.index("seed"), "seed", made["seed"].cast(pa.uint8()))
    return made.set_column(made.column_names.index("target"), "target", made["target"].dictionary_encode())


def with_own_columns(table: pa.Table) -> pa.Table:
    return table.append_column("note", pa.array(["mine"] * len(table))).append_column("rank", pa.nulls(len(table)))


@pytest.mark.parametrize("change", [indexed, reordered, as_polars_writes, with_own_columns])
def test_a_table_that_another_library_has_written_is_read_as_it_was(
    written: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    before = read_external_results(written)
    parquet.write_table(change(parquet.read_table(written)), written)
    after = read_external_results(written).sort_values("id").reset_index(drop=True)
    before = before.sort_values("id").reset_index(drop=True)
    pd.testing.assert_frame_equal(after[before.columns], before)
    assert set(after) - set(before) in (set(), {"note", "rank"})


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_of_either_edition_are_read_with_todays_types(path: Path, tmp_path: Path) -> None:
    table = read_results(path)
    pd.testing.assert_frame_equal(table[["run", "seed"]], pd.read_parquet(path)[["run", "seed"]])
    assert not {"arm", "pretext"} & set(table)
    assert table["edition"].eq(2 if path.stem.startswith("second-") else 1).all()
    write_results(tmp_path / "again.parquet", table)
    schema = parquet.read_schema(tmp_path / "again.parquet")
    assert all(field.type == type_of(field.name) for field in schema if type_of(field.name) is not None)
    assert any(name.startswith(CURVES) for name in schema.names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.rename(columns={"seed": "sead"}), r"no column is called 'sead' \(did you mean 'seed'\?\)"),
        (lambda table: table.rename(columns={"lambda": "lamda"}), r"'lamda' \(did you mean 'lambda'\?\)"),
        (lambda table: table.drop(columns="status"), "it has no column 'status'"),
        (lambda table: table.assign(seed="one"), "column 'seed' holds text in place of numbers"),
        (lambda table: table.assign(seed=0.5), "a number in column 'seed' is not a whole number"),
        (lambda table: table.assign(status="done"), "no status is called 'done'"),
        (
            lambda table: table.assign(mode=table["mode"].replace("learned", "learnt")),
            r"no mode is called 'learnt' \(did you mean 'learned'",
        ),
        (lambda table: table.assign(**{"lambda": 2.0}), r"a number in column 'lambda' is not in \[0, 1\]"),
    ],
)
def test_any_other_table_is_refused_with_its_column(
    written: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    change(pd.read_parquet(written)).to_parquet(written)
    with pytest.raises(UserError, match=message) as caught:
        read_external_results(written)
    assert refusal(lambda: read_external_results(written)) == str(caught.value)
    assert str(caught.value).startswith(f"{written} cannot be read as a table of results: ")


def test_two_columns_of_one_name_are_refused(written: Path) -> None:
    table = parquet.read_table(written)
    parquet.write_table(table.append_column("seed", table["seed"]), written)
    assert "it has two columns 'seed'" in refusal(lambda: read_results(written))


def test_a_value_that_does_not_fit_its_column_is_not_written(written: Path, tmp_path: Path) -> None:
    table = read_results(written).assign(seconds="long")
    told = refusal(lambda: write_results(tmp_path / "new.parquet", table))
    assert "column 'seconds' holds text in place of numbers" in told and not (tmp_path / "new.parquet").exists()

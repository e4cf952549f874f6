from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.study.columns import CURVES, FIXED, in_order, type_of
from emoreg.study.conform import fits
from emoreg.study.definition import Study
from emoreg.study.plan import plan_runs
from emoreg.study.results import results_of
from emoreg.study.results_table import read_external_results, read_results, write_results
from study_arms import BACKBONE

RESULTS = sorted(Path(__file__).parents[2].glob("results/*.parquet"))


def test_every_setting_of_both_recipes_has_a_column_of_its_type() -> None:
    for recipe in (TrainRecipe(), PretrainRecipe()):
        for key, value in flatten(dataclasses.asdict(recipe)):
            if key != "encoder.backbone":  # None by default; its settings have columns
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
def test_the_name_of_a_column_decides_its_type(name: str, kind: pa.DataType | None) -> None:
    assert type_of(name) == kind


def test_every_file_has_the_same_columns_in_the_same_order_whatever_the_runs_have(
    written: Path, tiny_study: Study, tmp_path: Path, finish: Callable[..., None]
) -> None:
    nothing, gated = tmp_path / "nothing.parquet", tmp_path / "gated.parquet"
    alone = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1)  # no stage 1 and no finished run
    write_results(nothing, results_of(alone, plan_runs(alone, tmp_path / "elsewhere"), {}))
    planned = plan_runs(tiny_study, tmp_path / "gated")  # with further curves, and metrics of two stimulus sets
    finish(planned[1])
    (planned[1].folder / "metrics.csv").write_text(
        "epoch,train_loss,lambda_0,val_oasis_ccc\n1,2.0,0.5,\n2,1.0,0.4,0.2\n"
    )
    final = planned[1].folder / "final.json"
    final.write_text(final.read_text().replace('"ccc": 0.1', '"oasis_ccc": 0.1, "emod_ccc_valence": 0.2'))
    table = results_of(tiny_study, planned, {})
    write_results(gated, table)
    schemas = [parquet.read_schema(path) for path in (written, nothing, gated)]
    assert schemas[0].equals(schemas[1]) and schemas[0].equals(schemas[2])
    assert schemas[0].names == [*FIXED, "more_metrics", "more_curves"]
    assert all(field.type == type_of(field.name) for field in schemas[0] if field.name in FIXED)
    read = read_results(gated)
    for name in ("validation_oasis_ccc", "validation_emod_ccc_valence"):
        pd.testing.assert_series_equal(read[name], table[name])
    assert read["epochs.lambda_0"][1].tolist() == [0.5, 0.4] and np.isnan(read["epochs.val_oasis_ccc"][1][0])


def test_a_folder_of_tables_is_read_as_one(written: Path, tiny_study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    alone = dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1)
    write_results(folder / "a.parquet", results_of(alone, plan_runs(alone, tmp_path / "elsewhere"), {}))
    written.rename(folder / "b.parquet")
    assert len(pd.read_parquet(folder)) == dataset.dataset(folder).count_rows() == 11
    assert dataset.dataset(folder).to_table().column_names == [*FIXED, "more_metrics", "more_curves"]
    tables = [parquet.read_table(folder / name) for name in ("a.parquet", "b.parquet")]
    assert len(pa.concat_tables(tables)) == 11  # possible only with equal schemas


def test_columns_that_only_some_studies_have_come_before_the_settings() -> None:
    names = in_order(["epochs.lambda_0", "test_oasis_ccc", "seed", "mine"])
    assert names[-1] == "epochs.lambda_0"
    assert names.index("test_oasis_ccc") < names.index("recipe.seed") < names.index("env.git")
    assert sorted(names) == sorted({*FIXED, "epochs.lambda_0", "test_oasis_ccc", "mine"})


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_of_either_edition_are_read_with_current_types(path: Path, tmp_path: Path) -> None:
    table = read_results(path)
    assert len(read_external_results(path)) == len(table)
    pd.testing.assert_frame_equal(table[["run", "seed"]], pd.read_parquet(path)[["run", "seed"]])
    assert not {"arm", "pretext"} & set(table)
    is_second = path.stem.startswith(("second-", "exploration-cifar100-"))
    assert table["edition"].eq(2 if is_second else 1).all()
    write_results(tmp_path / "again.parquet", table)
    schema = parquet.read_schema(tmp_path / "again.parquet")
    assert schema.names in ([*FIXED, "more_metrics", "more_curves"], [*FIXED, "more_metrics", "more_curves", "study"])
    assert all(field.type == type_of(field.name) for field in schema if type_of(field.name) is not None)
    assert any(name.startswith(CURVES) for name in schema.names)
    assert (table["purpose"] == "exploration").any() == path.stem.startswith("exploration")

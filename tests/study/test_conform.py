from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from emoreg.errors import UserError
from emoreg.study.elsewhere import merged
from emoreg.study.results_table import read_external_results, read_results, write_results
from emoreg.study.tables import rows_text
from refusing import refusal

STARTED = "2026-05-04T03:02:01+00:00"


@pytest.fixture
def table(written: Path) -> Path:
    """A table with a start time, and a metric that only this study has."""
    frame = read_results(written)
    frame["env.started"] = STARTED
    frame["validation_oasis_ccc"] = frame["seed"] / 10
    write_results(written, frame)
    return written


def with_types(table: pa.Table, types: dict[pa.DataType, pa.DataType]) -> pa.Table:
    columns = [column.cast(types.get(column.type, column.type)) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def indexed(table: pa.Table) -> pa.Table:
    """As pandas writes selected rows, with text converted to categories."""
    frame = table.to_pandas().sort_values("seed", kind="stable")
    return pa.Table.from_pandas(frame.astype({"mode": "category", "status": "category"}), preserve_index=True)


def with_columns_as_index(table: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(table.to_pandas().set_index(["mode", "seed"]))


def nullable(table: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(table.to_pandas().convert_dtypes())


def reordered(table: pa.Table) -> pa.Table:
    return table.select(table.column_names[::-1])


def as_polars_writes(table: pa.Table) -> pa.Table:
    """Large text, bytes and lists, NaN for missing values, small integers, and categories, also in lists."""
    large = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    made = with_types(table, large | {pa.list_(pa.float64()): pa.large_list(pa.float64())})
    gaps = pa.array(np.where(table["lambda"].is_null(), np.nan, table["lambda"].to_numpy()))
    made = with_column(made, "lambda", gaps)
    made = with_column(made, "parameters", pa.array(table["parameters"].to_pandas().to_numpy()))  # with NaN
    made = with_column(made, "seed", made["seed"].cast(pa.uint8()))
    categories = pa.array(table["classes"].to_pylist(), pa.list_(pa.dictionary(pa.uint32(), pa.string())))
    made = with_column(made, "classes", categories)
    return with_column(made, "target", made["target"].dictionary_encode())


def as_views(table: pa.Table) -> pa.Table:
    return with_types(table, {pa.string(): pa.string_view(), pa.binary(): pa.binary_view()})


def with_text_as_bytes(table: pa.Table) -> pa.Table:
    """As from writers of Parquet that do not declare text."""
    return with_types(table, {pa.string(): pa.binary()})


def with_a_time(table: pa.Table) -> pa.Table:
    """As from a library that parses text to times."""
    time = datetime.datetime.fromisoformat(STARTED)
    return with_column(table, "env.started", pa.array([time] * len(table), pa.timestamp("us", "UTC")))


def with_decimals(table: pa.Table) -> pa.Table:
    made = with_column(table, "seed", table["seed"].cast(pa.decimal128(38, 0)))
    return with_column(made, "test_accuracy", table["test_accuracy"].cast(pa.decimal128(18, 6), safe=False))


def with_short_numbers(table: pa.Table) -> pa.Table:
    return with_types(table, {pa.float64(): pa.float32(), pa.int64(): pa.int32()})


def with_flags_as_numbers(table: pa.Table) -> pa.Table:
    """As pandas stores truth values if some are missing."""
    flags = [flag if flag is None else float(flag) for flag in table["recipe.target.test"].to_pylist()]
    return with_column(table, "recipe.target.test", pa.array(flags))


def with_empty_text(table: pa.Table) -> pa.Table:
    """As after filling gaps in a frame."""
    return with_column(table, "experience", table["experience"].fill_null(""))


def with_own_columns(table: pa.Table) -> pa.Table:
    table = table.append_column("note", pa.array(["mine"] * len(table))).append_column("rank", pa.nulls(len(table)))
    return table.append_column("test_group", pa.array(["a"] * len(table)))  # not a metric, though named like one


def without_metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None)


CHANGES = [indexed, with_columns_as_index, nullable, reordered, as_polars_writes, as_views, with_text_as_bytes]
CHANGES += [with_a_time, with_decimals, with_short_numbers, with_flags_as_numbers, with_empty_text, with_own_columns]
CHANGES += [without_metadata]


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_rewritten_by_another_library_is_read_unchanged(
    table: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    before, path = read_external_results(table), tmp_path / "other.parquet"
    parquet.write_table(change(parquet.read_table(table)), path)
    after = read_external_results(path).sort_values("id").reset_index(drop=True)
    assert [name for name in after if name in before] == list(before)
    assert set(after) - set(before) in (set(), {"note", "rank", "test_group"})
    together = merged([("one", read_results(table)), ("other", read_results(path))])  # every run once
    before = before.sort_values("id").reset_index(drop=True)
    pd.testing.assert_frame_equal(after[before.columns], before, rtol=1e-6)
    assert len(together) == len(before)


@pytest.mark.parametrize("library", ["polars", "duckdb"])
def test_files_written_by_polars_and_duckdb_are_read(library: str) -> None:
    """polars 2.1: categories, decimals, a time, a row index; DuckDB 2.0: an enum, JSON, HUGEINT, a time."""
    table = read_external_results(Path(__file__).with_name(f"by_{library}.parquet")).sort_values("run")
    names = [name.removeprefix("digits-resnet8-").removesuffix("-seed0") for name in table["run"]]
    assert names[:3] == ["backbone", "learned-affect-procedural", "learned-shuffled-procedural"], names
    stage_2 = table[table["stage"] == 2]
    assert stage_2["mode"].tolist() == ["none", "learned", "learned"]
    assert stage_2["test_accuracy"].tolist() == [0.5] * 3 and stage_2["test_correct"].tolist() == [b"\xaa\x00"] * 3
    assert [classes.tolist() for classes in stage_2["classes"]] == [["a", "b"]] * 3
    assert table["env.started"].tolist() == [STARTED] * 5 and table["validation_oasis_ccc"].tolist() == [0.0] * 5


def test_settings_stored_in_32_bits_are_read_as_they_were_written(table: Path) -> None:
    parquet.write_table(with_short_numbers(parquet.read_table(table)), table)
    assert read_results(table)["recipe.optimizer.momentum"].dropna().eq(0.9).all()


def test_a_csv_file_from_emoreg_results_is_read_unchanged(table: Path, tmp_path: Path) -> None:
    path, before = tmp_path / "results.csv", read_results(table)
    path.write_text(rows_text(before, "csv"), encoding="utf-8")
    pd.testing.assert_frame_equal(read_results(path), before)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_any_other_csv_file_is_refused_with_the_command_to_use(table: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    read_results(table).to_csv(tmp_path / "results.csv", index=False)
    if suffix == ".parquet":
        pd.read_csv(tmp_path / "results.csv").to_parquet(path)
    message = refusal(lambda: read_results(path))
    assert "instead of" in message and "as after a CSV file" in message and "emoreg results --format csv" in message


def test_a_table_of_a_later_format_is_refused(table: Path) -> None:
    later = parquet.read_table(table).replace_schema_metadata({"emoreg": '{"table": 99}'})
    parquet.write_table(later, table)
    assert "it is of format 99, and this emoreg reads 2: update emoreg" in refusal(lambda: read_results(table))


@pytest.mark.parametrize(
    "text", ["{", "[1]", "1", '{"mine": 1}', '{"seed": 1}', '{"test_x": "a"}', '{"test_x": [[1]]}', "[" * 100_000]
)
def test_damaged_metrics_of_a_single_study_are_refused(table: Path, text: str) -> None:
    whole = parquet.read_table(table)
    parquet.write_table(with_column(whole, "more_metrics", pa.array([text] * len(whole))), table)
    assert "column 'more_metrics' does not hold what emoreg writes there" in refusal(lambda: read_results(table))


def test_user_columns_of_different_kinds_are_refused_when_tables_are_joined(table: Path) -> None:
    frame = read_results(table)
    tables = [("one", frame.assign(note=1)), ("other", frame.assign(note="a"))]
    assert refusal(lambda: merged(tables)).startswith("the tables cannot be joined: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.rename(columns={"seed": "sead"}), r"no column is called 'sead' \(did you mean 'seed'\?\)"),
        (lambda table: table.rename(columns={"lambda": "lamda"}), r"'lamda' \(did you mean 'lambda'\?\)"),
        (lambda table: table.drop(columns="status"), "it has no column 'status'"),
        (lambda table: table.assign(seed="one"), "column 'seed' holds text instead of numbers"),
        (lambda table: table.assign(error=np.timedelta64(1, "us")), r"'error' holds duration\[us\] instead of text"),
        (lambda table: table.assign(seed=0.5), "a number in column 'seed' is not a whole number"),
        (lambda table: table.assign(status="done"), "no status is called 'done'"),
        (
            lambda table: table.assign(mode=table["mode"].replace("learned", "learnt")),
            r"no mode is called 'learnt' \(did you mean 'learned'",
        ),
        (lambda table: table.assign(**{"lambda": 2.0}), r"a number in column 'lambda' is not in \[0, 1\]"),
    ],
)
def test_an_invalid_table_is_refused_with_the_column_at_fault(
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
    message = refusal(lambda: write_results(tmp_path / "new.parquet", table))
    assert "column 'seconds' holds text instead of numbers" in message and not (tmp_path / "new.parquet").exists()

"""Runs that other machines have done: tables of results are joined, and a study takes their runs for done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from emoreg.config.read_recipe import flatten
from emoreg.errors import UserError, shortened
from emoreg.study.columns import SETTINGS, RunStatus, has_result, stored
from emoreg.study.conform import conform
from emoreg.study.differences import COMPARED, Difference, Row, by_arm_and_seed, differences, first_few, nearest
from emoreg.study.plan import PlannedRun
from emoreg.study.suite_columns import missing_suites

if TYPE_CHECKING:
    import pandas as pd

FILE = "elsewhere.parquet"  # in a study's folder: runs of it that other machines did
FURTHEST = (RunStatus.FINISHED, RunStatus.DIVERGED, RunStatus.FAILED, RunStatus.BLOCKED, RunStatus.WAITING)
# Measurements that tell whether two rows of a run are of the same training; times and machines differ anyway.
RESULTS = ("status", "test_accuracy", "validation_accuracy", "train_loss", "test_correct", "test_checksum", "lambda")


def merged(tables: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Several tables of results as one, with every run once.

    A run is the same where its id and its variant are. Of a run that several tables have, the row stands in which it
    has come furthest; of equal ones the first, with the suites that only later ones have scored.

    Args:
        tables: names for errors, and tables from `results_of` or `read_results`, of any edition.

    Raises:
        UserError: two tables have different results of a run, or one has no ids.
    """
    for name, table in tables:
        if "id" not in table or table["id"].isna().any():
            raise UserError(f"{name} cannot be joined: a run has no id")
    names = [name for name, table in tables for _ in range(len(table))]
    rows: Any = stacked(table for _, table in tables)
    rank = {status: place for place, status in enumerate(FURTHEST)}
    ranks = [rank.get(status, len(rank)) for status in rows["status"]]
    is_result = has_result(rows).tolist()
    kept: dict[tuple[str, str | None], int] = {}
    for number, row in enumerate(rows[["id", "variant"]].itertuples(index=False)):
        key = row.id, row.variant if isinstance(row.variant, str) else None
        first = kept.setdefault(key, number)
        if ranks[number] < ranks[first]:
            kept[key] = number
        if first == number or not (is_result[number] and is_result[first]):
            continue
        if differing := differences(rows.iloc[first], rows.iloc[number], RESULTS):
            raise UserError(
                f"{names[first]} and {names[number]} have different results of the run {rows['run'].iloc[number]} "
                f"(id {row.id}; {differing[0]}): join one of them alone"
            )
        for name, value in missing_suites(rows.iloc[first], rows.iloc[number]).items():
            rows.at[first, name] = value
    return rows.iloc[sorted(kept.values())].reset_index(drop=True)


def stacked(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several tables of results, of any edition, in one. UserError where their columns cannot be."""
    import pyarrow as pa

    try:
        parts = [conform(pa.Table.from_pandas(table, preserve_index=False)) for table in tables]
        rows: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    except (ValueError, TypeError) as error:  # Arrow's own are of both kinds
        raise UserError(f"the tables cannot be joined: {shortened(str(error), 200)}") from None
    return rows


def finished_elsewhere(tables: Sequence[tuple[str, pd.DataFrame]], planned: Sequence[PlannedRun]) -> pd.DataFrame:
    """The runs of a plan that tables hold and that count: finished, or of stage 2 and diverged.

    Raises:
        UserError: as `merged`; a table holds no run of the plan. It says in which setting its nearest run differs.
    """
    ids = {id_ for run in planned for id_ in (run.id, run.with_paths)}
    for name, table in tables:
        if not ids & set(table.get("id", ())):
            raise UserError(f"{name} has no run of this study: {_how_the_nearest_differs(table, planned)}")
    rows = merged(tables)
    return rows[has_result(rows) & rows["id"].isin(ids)]


def _how_the_nearest_differs(table: pd.DataFrame, planned: Sequence[PlannedRun]) -> str:
    """How the table's run that is most like a planned one differs from it."""
    rows = by_arm_and_seed(table.to_dict("records"))
    found: list[list[Difference]] = []  # of each planned run that has one like it
    for run in planned:
        here = {"mode": run.mode, "experience": run.experience, "seed": run.seed, "edition": run.recipe.edition}
        here |= {f"{SETTINGS}{key}": stored(value) for key, value in flatten(dataclasses.asdict(run.recipe))}
        if (there := nearest(here, rows, _differing_settings)) is not None:
            found.append(_differing_settings(here, there))
    if not found:
        return "none has the mode, experience and seed of a planned one"
    # Runs with the same settings have other encoders, whose stage 1 tells the difference, or other images.
    if not any(found):
        return "its settings are the same, but its images have other names, sizes or labels than those here"
    return f"its nearest one differs in {first_few(min(filter(None, found), key=len), ', ')}"


def _differing_settings(here: Row, there: Row) -> list[Difference]:
    """The settings in which two runs differ; the settings of another edition mean other things."""
    is_alike = there.get("edition") == here["edition"]
    return differences(there, here, [name for name in here if name in COMPARED] if is_alike else ["edition"])

"""Runs done on other machines: join tables of results, and find the runs of a plan in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from emoreg.config.read_recipe import flatten
from emoreg.errors import UserError, first_few, shortened
from emoreg.study.columns import ROW, SETTINGS, RunStatus, has_result, stored
from emoreg.study.conform import conform
from emoreg.study.differences import COMPARED, Difference, Row, by_arm_and_seed, differences, nearest
from emoreg.study.plan import PlannedRun
from emoreg.study.suite_columns import missing_suites

if TYPE_CHECKING:
    import pandas as pd

FILE = "elsewhere.parquet"  # in a study's folder: its runs that other machines did
FURTHEST_FIRST = (RunStatus.FINISHED, RunStatus.DIVERGED, RunStatus.FAILED, RunStatus.BLOCKED, RunStatus.WAITING)
RANKS = {status: rank for rank, status in enumerate(FURTHEST_FIRST)}
# Measurements that are equal in two rows of the same training; times and machines may differ.
RESULTS = ("status", "test_accuracy", "validation_accuracy", "train_loss", "test_correct", "test_checksum", "lambda")


def merged(tables: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Join tables of results, with one row for each run, or for each arm and variant that share it.

    If several tables have a run, the row in which it has come furthest is kept: the first of equal ones, with the
    suites that only later ones have scored.

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
    ranks = [RANKS.get(status, len(RANKS)) for status in rows["status"]]  # a status may be missing or unknown
    is_result = has_result(rows).tolist()
    kept: dict[tuple[str | None, ...], int] = {}
    for number, (stage, *row) in enumerate(rows[["stage", *ROW]].itertuples(index=False)):
        key = (row[0],) if stage == 1 else tuple(part if isinstance(part, str) else None for part in row)
        first = kept.setdefault(key, number)
        if ranks[number] < ranks[first]:
            kept[key] = number
        if first != number and is_result[number] and is_result[first]:
            if differing := differences(rows.iloc[first], rows.iloc[number], RESULTS):
                raise UserError(
                    f"{names[first]} and {names[number]} have different results of the run {rows['run'].iloc[number]} "
                    f"(id {row[0]}; {differing[0]}): join only one of them"
                )
            for name, value in missing_suites(rows.iloc[first], rows.iloc[number]).items():
                rows.at[first, name] = value
    return rows.iloc[sorted(kept.values())].reset_index(drop=True)


def stacked(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables of results, of any edition.

    Raises:
        UserError: columns of the same name have types that cannot be joined.
    """
    import pyarrow as pa

    try:
        parts = [conform(pa.Table.from_pandas(table, preserve_index=False)) for table in tables]
        rows: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    except (ValueError, TypeError) as error:  # Arrow raises both
        raise UserError(f"the tables cannot be joined: {shortened(str(error), 200)}") from None
    return rows


def finished_elsewhere(tables: Sequence[tuple[str, pd.DataFrame]], planned: Sequence[PlannedRun]) -> pd.DataFrame:
    """The rows of planned runs that have a result in one of the tables: finished, or of stage 2 and diverged.

    Raises:
        UserError: as in `merged`; a table has no run of the plan. The error says how its closest match differs.
    """
    ids = {id_ for run in planned for id_ in (run.id, run.path_id)}
    for name, table in tables:
        if not ids & set(table.get("id", ())):
            raise UserError(f"{name} has no run of this study: {_how_the_nearest_differs(table, planned)}")
    rows = merged(tables)
    return rows[has_result(rows) & rows["id"].isin(ids)]


def _how_the_nearest_differs(table: pd.DataFrame, planned: Sequence[PlannedRun]) -> str:
    """Describe how the run of the table that is the closest match of a planned one differs from it."""
    rows = by_arm_and_seed(table.to_dict("records"))
    matches: list[list[Difference]] = []  # differences of each planned run from its closest match
    for run in planned:
        here = {"mode": run.mode, "experience": run.experience, "seed": run.seed, "edition": run.recipe.edition}
        here |= {f"{SETTINGS}{key}": stored(value) for key, value in flatten(dataclasses.asdict(run.recipe))}
        if (match := nearest(here, rows, _differing_settings)) is not None:
            matches.append(_differing_settings(here, match))
    if not matches:
        return "none has the mode, experience and seed of a planned one"
    # A run of stage 2 can have the same settings with another encoder; that encoder's own run then differs.
    differing = [match for match in matches if match]
    if not differing:
        return "its settings are the same, but its images have other names, sizes or labels than those here"
    return f"its closest run differs in {first_few(min(differing, key=len), ', ')}"


def _differing_settings(here: Row, other: Row) -> list[Difference]:
    """The settings in which two runs differ; only the edition if that does, as it changes what settings mean."""
    if other.get("edition") != here["edition"]:
        return differences(other, here, ["edition"])
    return differences(other, here, [name for name in here if name in COMPARED])

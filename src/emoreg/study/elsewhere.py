"""Runs that other machines have done: tables of results are joined, and a study takes their runs for done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import EXECUTION_ONLY, PretrainRecipe, TrainRecipe, added
from emoreg.errors import UserError, shortened
from emoreg.runs.catalogue import is_missing
from emoreg.study.columns import RECIPES, SETTINGS, RunStatus, has_result, stored
from emoreg.study.conform import conform
from emoreg.study.plan import PlannedRun
from emoreg.study.suite_columns import missing_suites

if TYPE_CHECKING:
    import pandas as pd

FILE = "elsewhere.parquet"  # in a study's folder: runs of it that other machines did
FURTHEST = (RunStatus.FINISHED, RunStatus.DIVERGED, RunStatus.FAILED, RunStatus.BLOCKED, RunStatus.WAITING)
# Measurements that tell whether two rows of a run are of the same training; times and machines differ anyway.
RESULTS = ("status", "test_accuracy", "validation_accuracy", "train_loss", "test_correct", "test_checksum", "lambda")
PATHS = ("encoder.experience", "target.root", "stimuli.root")
IGNORED = tuple(f"{SETTINGS}{name}" for name in (*PATHS, *(f"training.{name}" for name in EXECUTION_ONLY)))
# Tables of an earlier emoreg lack the settings that came later: what was done without them.
WITHOUT = {key: value for recipe in (TrainRecipe(), PretrainRecipe()) for key, _, value in added(recipe, SETTINGS)}
SHOWN = 3  # differences in an error


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
            raise UserError(f"{name} has no run of this study: {_why(table, planned)}")
    rows = merged(tables)
    return rows[has_result(rows) & rows["id"].isin(ids)]


def _why(table: pd.DataFrame, planned: Sequence[PlannedRun]) -> str:
    """How the table's run that is most like a planned one differs from it."""
    by_arm: dict[tuple[Any, ...], list[Mapping[Any, Any]]] = {}
    for row in table.to_dict("records"):
        by_arm.setdefault((*(_plain(row, key) for key in ("mode", "experience")), row.get("seed")), []).append(row)
    nearest: list[Difference] | None = None
    is_of_others = False
    for run in planned:
        own = {f"{SETTINGS}{key}": stored(value) for key, value in flatten(dataclasses.asdict(run.recipe))}
        compared, edition = [key for key in own if key in RECIPES and key not in IGNORED], run.recipe.edition
        by_row = [
            differences(row, {**own, "edition": edition}, compared if row.get("edition") == edition else ["edition"])
            for row in by_arm.get((run.mode, run.experience, run.seed), ())
        ]
        differing = min(by_row, key=len, default=None)  # rows of other targets and stimuli differ in more
        # Runs with the same settings have other encoders, whose stage 1 tells the difference, or other images.
        is_of_others = is_of_others or differing == []
        if differing and (nearest is None or len(differing) < len(nearest)):
            nearest = differing
    if nearest is None and is_of_others:
        return "its settings are the same, but its images have other names, sizes or labels than those here"
    if nearest is None:
        return "none has the mode, experience and seed of a planned one"
    more = f" and {len(nearest) - SHOWN} more" if len(nearest) > SHOWN else ""
    return f"its nearest one differs in {', '.join(map(str, nearest[:SHOWN]))}{more}"


class Difference(NamedTuple):
    """A column in which two rows differ."""

    name: str  # of the setting or measurement
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} ({self.there} there, {self.here} here)"


def differences(there: Mapping[Any, Any], here: Mapping[Any, Any], names: Iterable[str]) -> list[Difference]:
    """The columns in which two rows differ."""
    pairs = ((name, _plain(there, name), _plain(here, name)) for name in names)
    return [
        Difference(name.removeprefix(SETTINGS), _told(one), _told(other))
        for name, one, other in pairs
        if one != other and not _is_rounded(one, other)
    ]


def _is_rounded(one: Any, other: Any) -> bool:
    """Whether two numbers differ by no more than a table of 32-bit floats makes them."""
    return isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-7)


def _plain(row: Mapping[Any, Any], name: str) -> Any:
    """The value in a row: of a setting that is missing, what was done without it; of all else None."""
    value = row.get(name)
    return WITHOUT.get(name) if is_missing(value) else value


def _told(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

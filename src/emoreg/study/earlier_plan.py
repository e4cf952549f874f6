"""Compare the plan that the results in a study's folder were made by with that of the requested study."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.errors import UserError, first_few
from emoreg.study.columns import ROW, SETTINGS, RunStatus, has_result, in_order
from emoreg.study.definition import SEEDS, Study
from emoreg.study.differences import COMPARED, PATHS, Row, by_arm_and_seed, differences, nearest
from emoreg.study.elsewhere import FILE as ELSEWHERE
from emoreg.study.elsewhere import stacked
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.read_study import TABLE
from emoreg.study.results import plan_columns, run_columns
from emoreg.study.results_table import read_results
from emoreg.study.scheduler import recorded_failures

if TYPE_CHECKING:
    import pandas as pd

PLAN = ["purpose", "planned_seeds", "first_seed", "looks"]  # columns
ROOTS = [name for name in PATHS if name.endswith("root")]


def fallen_out(study: Study, planned: Sequence[PlannedRun], out: Path, runs: Path, kept: Study | None) -> str | None:
    """A line on results in a study's folder that are not part of the requested study; None if there are none.

    Args:
        study: the requested study.
        planned: its runs.
        out: its folder.
        runs: folder of the run folders.
        kept: the copy in the study's folder, from `kept_study`.

    Raises:
        UserError: the folder has results, and the study plans other seeds or looks, or a confirmation no longer plans
            runs that are finished; the error names the settings that changed. Arms and sets may be added. A smoke run
            may change, but may only replace another smoke run.
    """
    table = _earlier(study, out, runs, kept)
    if table is None:
        return None
    results = table[has_result(table) & (table["stage"] == 2)]
    if not study.is_smoke:
        _refuse_other_seeds(results, study, out)
    elif not results.empty and (kept is None or not kept.is_smoke):
        raise UserError(
            f"{out} holds results of a study that is not known to be a smoke run: choose another folder for this one "
            "(--out), or delete that one"
        )
    ids = {id_ for run in planned for id_ in (run.path_id, run.content_id)}
    is_lost = table["id"].notna() & ~table["id"].isin(ids) & table["seed"].isin(study.seed_numbers)
    lost = results[is_lost[results.index]]
    if lost.empty:
        return None
    known = set(table["id"])
    reason, settings = _what_changed(table[is_lost], [run for run in planned if run.id not in known], out)
    if not study.is_smoke and (lost["purpose"] == "confirmation").any():
        remedy = "put that back"
        if settings and settings <= _auto_settings(study):  # same file, but started on another machine
            device, precision = (lost.iloc[0][f"{SETTINGS}training.{name}"] for name in ("device", "precision"))
            remedy = (
                f"write machine: {{device: {device}, precision: {precision}}} into the file, or give {out} in its place"
            )
        raise UserError(
            f"{out} holds results of a study that was planned differently: {reason}. A confirmation does not change "
            f"once results are there: {remedy}, or choose another folder for another study (--out)"
        )
    runs_are = "run of the earlier plan is" if len(lost) == 1 else "runs of the earlier plan are"
    return f"{len(lost)} finished {runs_are} not in this table: {reason}"


def _earlier(study: Study, out: Path, runs: Path, kept: Study | None) -> pd.DataFrame | None:
    """The runs that were planned, and their status, as a table of results; None if the folder has no study.

    They come from the folder's table and from its copy of the study's file, which may be newer than the table.
    """
    import pandas as pd

    table = None
    with contextlib.suppress(UserError):  # no table, or a damaged one
        table = read_results(out / TABLE)
    if kept is None or replace(kept, name=study.name, run_seeds=study.run_seeds) == study:
        return table  # the plan is the same: only the table can have other runs
    planned = plan_runs(kept, runs)
    status = {id_: outcome.status for id_, outcome in recorded_failures(planned, out).items()}
    status |= {run.id: RunStatus.FINISHED for run in planned if run.run.is_finished}
    with contextlib.suppress(UserError):  # no results of other machines
        elsewhere = read_results(out / ELSEWHERE)
        status |= dict(zip(elsewhere["id"], elsewhere["status"], strict=True))
    rows = [run_columns(run, out) | {"status": status.get(run.id)} | plan_columns(kept) for run in planned]
    by_copy = pd.DataFrame(rows, columns=in_order(()))
    if table is None:
        return by_copy
    is_done = has_result(table)
    both = stacked((table[is_done], by_copy, table[~is_done]))  # the first row of each run is kept
    return both[both["id"].isna() | ~both.duplicated(list(ROW))]


def _refuse_other_seeds(results: pd.DataFrame, study: Study, out: Path) -> None:
    """Raise UserError if results are of a study with other seeds or looks. The first edition had no such plan."""
    import pandas as pd

    plans = results[PLAN].dropna(subset=["planned_seeds", "looks"])
    if plans.empty:
        return
    purpose, seeds, first, looks = plans.iloc[0]
    first = SEEDS.get(purpose, SEEDS[None]).start if pd.isna(first) else first
    before = _plan(purpose, seeds, first, looks)
    now = _plan(study.purpose, study.seeds, study.seed_numbers.start, study.looks or (study.seeds,))
    if before != now:
        fewer = ", and give 'emoreg study' --seeds to run fewer seeds for now, or more" if study.values else ""
        raise UserError(
            f"{out} holds results of a study that planned {before}; this one plans {now}. A plan does not change once "
            f"results are there: choose another folder, or keep the plan{fewer}"
        )


def _plan(purpose: str | None, seeds: int, first: int, looks: Sequence[int]) -> str:
    return f"{purpose}, seeds {int(first)} to {int(first + seeds) - 1}, looks {list(map(int, looks))}"


def _auto_settings(study: Study) -> set[str]:
    """The settings that are `auto` in a recipe of the study, so that the machine decides them."""
    training = [recipe.training for recipe in study.recipes]
    return {
        f"training.{name}" for name in ("device", "precision") if "auto" in (getattr(each, name) for each in training)
    }


def _what_changed(lost: pd.DataFrame, new: Sequence[PlannedRun], out: Path) -> tuple[str, set[str]]:
    """Explain why `lost` runs are no longer planned, by those that are `new`.

    Also return the names of the settings that differ; none if runs are left out too.
    """
    new_rows = by_arm_and_seed(run_columns(run, out) for run in new)
    changed, moved, left_out = list[str](), list[str](), list[str]()
    names = set[str]()
    first = lost[lost["seed"] == lost["seed"].min()]  # the other seeds differ alike
    for row in first.to_dict("records"):
        now = nearest(row, new_rows, partial(differences, names=COMPARED))
        if now is not None:
            names |= {each.name for each in differences(row, now, COMPARED)}
            changed += _as_lines(row, now, COMPARED)
            moved += _as_lines(row, now, ROOTS)
        elif row["stage"] == 2 and not left_out:
            left_out = [f"runs such as {row['run']} are left out"]
    # If no setting differs, the images do: those at a new root, or those at the same one.
    reasons = list(dict.fromkeys([*(changed or moved), *left_out])) or ["images differ, or are missing"]
    return first_few(reasons, "; "), set() if left_out else names


def _as_lines(before: Row, now: Row, names: Iterable[str]) -> list[str]:
    section = "pretraining" if before["stage"] == 1 else "classifier"  # of a study's file
    return [f"{section}.{each.name} was {each.other}, is {each.here}" for each in differences(before, now, names)]

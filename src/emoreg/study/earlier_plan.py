"""What the results in a study's folder were planned as, and what a study that is now asked for leaves of that plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.errors import UserError
from emoreg.study.columns import SETTINGS, RunStatus, has_result, in_order
from emoreg.study.definition import SEEDS, Study
from emoreg.study.differences import COMPARED, PATHS, Row, by_arm_and_seed, differences, first_few, nearest
from emoreg.study.elsewhere import FILE as ELSEWHERE
from emoreg.study.elsewhere import stacked
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.read_study import TABLE, kept_study
from emoreg.study.results import plan_columns, run_columns
from emoreg.study.results_table import read_results
from emoreg.study.scheduler import recorded_failures

if TYPE_CHECKING:
    import pandas as pd

PLAN = ["purpose", "planned_seeds", "first_seed", "looks"]  # columns that tell what was planned
ROOTS = [name for name in PATHS if name.endswith("root")]


def fallen_out(study: Study, planned: Sequence[PlannedRun], out: Path, runs: Path) -> str | None:
    """A line of the results in a study's folder that are of another plan and in no table of this one; None without any.

    Args:
        study: as it is asked for now.
        planned: its runs.
        out: its folder.
        runs: folder of the run folders.

    Raises:
        UserError: a study does not change its seeds or looks once it has results, nor a confirmation its runs: the
            error says which setting is another now. More arms and sets are no change. A smoke run may change, and
            takes the place of another one alone.
    """
    table = _earlier(study, out, runs)
    if table is None:
        return None
    results = table[has_result(table) & (table["stage"] == 2)]
    if not study.is_smoke:
        _refuse_other_seeds(results, study, out)
    elif not results.empty and ((kept := kept_study(out)) is None or not kept.is_smoke):
        raise UserError(
            f"{out} holds results of a study that is not known to be a smoke run: choose another folder for this one "
            "(--out), or delete that one"
        )
    ids = {id_ for run in planned for id_ in (run.id, run.with_paths, run.without_paths)}
    is_lost = table["id"].notna() & ~table["id"].isin(ids) & table["seed"].isin(study.seed_numbers)
    lost = results[is_lost[results.index]]
    if lost.empty:
        return None
    known = set(table["id"])
    reason, settings = _what_changed(table[is_lost], [run for run in planned if run.id not in known], out)
    if not study.is_smoke and (lost["purpose"] == "confirmation").any():
        remedy = "put that back"
        if settings and settings <= _auto(study):  # nobody has changed anything: it was begun on another machine
            device, precision = (lost.iloc[0][f"{SETTINGS}training.{name}"] for name in ("device", "precision"))
            remedy = (
                f"write machine: {{device: {device}, precision: {precision}}} into the file, or give {out} in its place"
            )
        raise UserError(
            f"{out} holds results of a study that was planned otherwise: {reason}. A confirmation does not change once "
            f"results are there: {remedy}, or choose another folder for another study (--out)"
        )
    runs_are = "run of the earlier plan is" if len(lost) == 1 else "runs of the earlier plan are"
    return f"{len(lost)} finished {runs_are} not in this table: {reason}"


def _earlier(study: Study, out: Path, runs: Path) -> pd.DataFrame | None:
    """The runs that were planned, and whether they have results; None where no study was.

    As the folder's table has them, and the copy of the study's file: the table may have been written before it.
    """
    import pandas as pd

    table = None
    with contextlib.suppress(UserError):  # there is no table, or a damaged one
        table = read_results(out / TABLE)
    kept = kept_study(out)
    if kept is None or replace(kept, name=study.name, run_seeds=study.run_seeds) == study:
        return table  # nothing can be lost that this study does not plan
    planned = plan_runs(kept, runs)
    status = {id_: outcome.status for id_, outcome in recorded_failures(planned, out).items()}
    status |= {run.id: RunStatus.FINISHED for run in planned if run.run.is_finished}
    with contextlib.suppress(UserError):  # no other machine has done any
        elsewhere = read_results(out / ELSEWHERE)
        status |= dict(zip(elsewhere["id"], elsewhere["status"], strict=True))
    rows = [run_columns(run, out) | {"status": status.get(run.id)} | plan_columns(kept) for run in planned]
    by_copy = pd.DataFrame(rows, columns=in_order(()))
    if table is None:
        return by_copy
    is_done = has_result(table)
    both = stacked((table[is_done], by_copy, table[~is_done]))  # of a run that is in both, the first row stands
    return both[both["id"].isna() | ~both.duplicated(["id", "variant"])]


def _refuse_other_seeds(results: pd.DataFrame, study: Study, out: Path) -> None:
    """UserError if results are of a study that planned other seeds or looks. The first edition had no such plan."""
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


def _auto(study: Study) -> set[str]:
    """The settings that a machine decides in a study."""
    training = [recipe.training for recipe in study.recipes]
    return {
        f"training.{name}" for name in ("device", "precision") if "auto" in (getattr(each, name) for each in training)
    }


def _what_changed(lost: pd.DataFrame, new: Sequence[PlannedRun], out: Path) -> tuple[str, set[str]]:
    """Why runs are no longer planned: what was set otherwise in them, or that they are left out.

    And the settings that differ; none where runs are left out too.

    Args:
        lost: the runs.
        new: runs that are planned and were not.
        out: the study's folder.
    """
    new_rows = by_arm_and_seed(run_columns(run, out) for run in new)
    changed, moved, left_out = list[str](), list[str](), list[str]()
    names = set[str]()
    first = lost[lost["seed"] == lost["seed"].min()]  # the other seeds tell nothing more
    for row in first.to_dict("records"):
        now = nearest(row, new_rows, partial(differences, names=COMPARED))
        if now is not None:
            names |= {each.name for each in differences(row, now, COMPARED)}
            changed += _as_lines(row, now, COMPARED)
            moved += _as_lines(row, now, ROOTS)
        elif row["stage"] == 2:
            left_out = left_out or [f"runs such as {row['run']} are left out"]
    # Where no setting differs, the images at another root are others, or what is at the same root is.
    reasons = list(dict.fromkeys([*(changed or moved), *left_out])) or ["images are others, or not here"]
    return first_few(reasons, "; "), set() if left_out else names


def _as_lines(before: Row, now: Row, names: Iterable[str]) -> list[str]:
    section = "pretraining" if before["stage"] == 1 else "classifier"  # of a study's file
    return [f"{section}.{each.name} was {each.there}, is {each.here}" for each in differences(before, now, names)]

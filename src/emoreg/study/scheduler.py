"""Doing the runs of a plan, one after the other or several at a time. One that fails does not stop the rest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import read_json, write_atomically
from emoreg.study.local_pool import side_by_side
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import Done, blocked, perform

if TYPE_CHECKING:
    from emoreg.study.ray_pool import Ray

FAILURES = "failures.json"


def execute(
    planned: Sequence[PlannedRun], out: Path, jobs: int, progress: Progress, ray: Ray | None = None
) -> dict[str, str]:
    """Do all runs that are not finished.

    Args:
        planned: of `plan_runs`.
        out: the study's folder, where failures are recorded with their traceback.
        jobs: how many at a time. More than one are processes of their own, which share the cores evenly.
        progress: one view of all.
        ray: the cluster that does them, in place of this machine.

    Returns:
        What went wrong, by the run's id: its error, or that the run it needs has failed.
    """
    failures = _Failures(out)
    finished = {run.id for run in planned if run.run.is_finished}
    waiting = [run for run in planned if run.id not in finished]
    total, left = (sum(run.branches for run in runs) for runs in (planned, waiting))
    if ray is not None:
        from emoreg.study.ray_pool import on_ray

        ends = on_ray(waiting, finished, progress, ray)
    else:
        ends = side_by_side(waiting, finished, jobs, progress) if jobs > 1 else _in_turn(waiting, finished, progress)
    with progress.task("all runs", total, "units", total - left) as advance, contextlib.closing(ends):
        for run, error, trace in ends:
            if error is None:
                finished.add(run.id)
                progress.say(_told(run))
            else:
                progress.say(f"{run.name}: FAILED: {error}")
            failures.record(run, error, trace)
            advance(run.branches)
    return failures.errors(planned)


class _Failures:
    """What went wrong in a study's folder, kept until the run is finished after all."""

    def __init__(self, out: Path) -> None:
        self.path = out / FAILURES
        self.found: dict[str, dict[str, str]] = {}
        with contextlib.suppress(OSError, TypeError, ValueError):  # damaged, it loses nothing: those are tried again
            found = dict(read_json(self.path))
            self.found = {
                known: failure
                for known, failure in found.items()
                if isinstance(failure, dict) and isinstance(failure.get("error"), str)
            }

    def record(self, run: PlannedRun, error: str | None, trace: str) -> None:
        before = dict(self.found)
        self.found.pop(run.id, None)
        if error is not None:
            self.found[run.id] = {"run": run.name, "error": error, "traceback": trace}
        if self.found != before:
            with contextlib.suppress(OSError):  # a disk that is full is told by the runs that need it
                write_atomically(self.path, (json.dumps(self.found, indent=2, ensure_ascii=False) + "\n").encode())

    def errors(self, planned: Sequence[PlannedRun]) -> dict[str, str]:
        open_runs = {run.id: run for run in planned if not run.run.is_finished}
        return {known: self.found[known]["error"] for known in open_runs if known in self.found}


def recorded_failures(planned: Sequence[PlannedRun], out: Path) -> dict[str, str]:
    """What went wrong when a study was last run, by the run's id."""
    return _Failures(out).errors(planned)


def _in_turn(waiting: Sequence[PlannedRun], finished: set[str], progress: Progress) -> Generator[Done, None, None]:
    for run in waiting:
        if run.needs is None or run.needs in finished:
            yield run, *perform(run, progress)
        else:
            yield blocked(run)


def _told(planned: PlannedRun) -> str:
    try:
        final = planned.run.final
    except UserError as error:  # its folder was deleted just now; the other runs go on
        return f"{planned.name}: {error}"
    measured = final.get("test") or final.get("validation") or {}
    told = ", ".join(f"{key} {value:.4f}" for key in ("accuracy", "ccc") if (value := measured.get(key)) is not None)
    return f"{planned.name}: {told}, {final.get('seconds') or 0:.0f} s"

"""Schedule the jobs of a plan. A pool does them; a job that fails does not stop the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Protocol

from emoreg.config.outcomes import OUTCOMES
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress, figure
from emoreg.runtime.safe_io import read_json, write_json
from emoreg.study.columns import RunStatus
from emoreg.study.machine import Machine, this_machine
from emoreg.study.plan import PlannedRun, in_existing_folders
from emoreg.study.run_one import Job, RunOutcome, perform
from emoreg.study.scorings import SUFFIX, left_to_score
from emoreg.study.shared_runs import SharedRuns
from emoreg.suites.options import Suite

SUMMARISED = tuple(outcome.name for outcome in OUTCOMES.values())  # metrics in the line of a finished run
FAILURES = "failures.json"


class Pool(Protocol):
    """Does jobs (runs, or suites of runs), at most `size` at a time."""

    size: int

    def start(self, run: Job) -> None:
        """Start a job."""

    def wait(self) -> list[RunOutcome]:
        """Wait a while for jobs to end, and return the outcomes of those that have, possibly none."""

    def machine(self) -> Machine:
        """Return the device and precision that `auto` stands for where the jobs are done."""

    def close(self) -> None:
        """End the pool and all running jobs, which can be resumed."""


class InTurn:
    """A pool that does one job at a time, in this process."""

    size = 1

    def __init__(self, progress: Progress) -> None:
        self.progress, self.started = progress, list[Job]()

    def start(self, run: Job) -> None:
        """Keep the job for `wait`."""
        self.started.append(run)

    def wait(self) -> list[RunOutcome]:
        """Do the job."""
        return [perform(self.started.pop(), self.progress)]

    def machine(self) -> Machine:
        """Return this machine."""
        return this_machine()

    def close(self) -> None:
        """Do nothing: no job outlasts `wait`."""


def execute(
    planned: Sequence[PlannedRun], out: Path, pool: Pool, progress: Progress, elsewhere: Set[str] = frozenset()
) -> dict[str, RunOutcome]:
    """Do all runs that have not ended, in the order of the plan.

    Args:
        planned: from `plan_runs`.
        out: the study's folder; failures are recorded there with their traceback.
        pool: does the runs. The caller closes it.
        progress: shows one task for the whole study.
        elsewhere: ids of runs that other machines have done. An encoder among them is still trained here if a
            remaining run needs its weights.

    Returns:
        The runs that failed, diverged or were blocked, by run id.
    """
    recorded = read_failures(out)
    once = list({run.id: run for run in planned}.values())  # arms of several variants may share a run
    todo = left_to_do(once, elsewhere)
    finished = {run.id for run in once if run.run.is_finished}
    total, left = (sum(run.branches for run in runs) for runs in (once, todo))
    with progress.task("all runs", total, "networks", total - left) as advance:
        for outcome in _outcomes(list[Job](todo), finished, pool, progress):
            run, is_finished = outcome.run, outcome.status is RunStatus.FINISHED
            assert isinstance(run, PlannedRun)
            progress.say(_summary(run) if is_finished else f"{run.name}: {outcome.status.upper()}: {outcome.error}")
            _record(recorded, outcome, out)
            advance(run.branches)
    return _failures(recorded, in_existing_folders(planned))


def score_runs(
    planned: Sequence[PlannedRun], suites: Sequence[Suite], out: Path, pool: Pool, progress: Progress
) -> list[RunOutcome]:
    """Score all finished runs of stage 2 in the suites that they lack.

    Args:
        planned: from `plan_runs`, or a part of it, with the current roots of the images.
        suites: with their options.
        out: the study's folder; failures are recorded there with their traceback, until they are done or dropped.
        pool: does the scorings. The caller closes it.
        progress: shows one task for all.

    Returns:
        The scorings that failed. Their runs still count as finished.
    """
    jobs, before, failed = left_to_score(planned, suites), read_failures(out), list[RunOutcome]()
    left = {job.id: len(job.suites) for job in jobs}
    done = {f"{run.id}{SUFFIX}" for run in planned} - set(left)
    recorded = {id_: each for id_, each in before.items() if id_ not in done}
    if recorded != before:  # some were scored elsewhere, or their suites were dropped
        _write_failures(recorded, out)
    if not jobs:
        return []
    todo = sum(left.values())
    with progress.task("all suites", todo, "suites") as advance:
        for outcome in _outcomes(list(jobs), set(), pool, progress):
            if outcome.status is not RunStatus.FINISHED:
                progress.say(f"{outcome.run.name}: {outcome.status.upper()}: {outcome.error}")
                failed.append(outcome)
            _record(recorded, outcome, out)
            advance(left[outcome.run.id])
    return failed


def left_to_do(planned: Sequence[PlannedRun], elsewhere: Set[str] = frozenset()) -> list[PlannedRun]:
    """The runs of a plan that remain to be done, in its order: they have ended neither here nor elsewhere.

    An encoder is included if a remaining run needs it, even if it diverged or finished elsewhere. It is left out if
    only runs that are done elsewhere need it.
    """
    left = [run for run in planned if run.id not in elsewhere and not run.run.has_ended]
    needed = {run.needs for run in left}
    needed_elsewhere = {run.needs for run in planned if run.id in elsewhere}
    ids = {run.id for run in left if run.mode is not None or run.id in needed or run.id not in needed_elsewhere}
    ids |= {run.id for run in planned if run.id in needed and not run.run.is_finished}
    return [run for run in planned if run.id in ids]


def _outcomes(todo: list[Job], finished: set[str], pool: Pool, progress: Progress) -> Iterator[RunOutcome]:
    """Start each job as soon as the run that it needs is finished, and yield the outcomes as they come.

    Args:
        todo: jobs, in the order in which they are to be done; emptied.
        finished: ids of the runs that are finished; added to.
        pool: does the jobs.
        progress: reports jobs that another study is doing.
    """
    shared, running = SharedRuns(progress), set[str]()
    while todo or running:
        attainable = finished | running | {run.id for run in todo}
        for blocked in [run for run in todo if run.needs and run.needs not in attainable]:
            todo.remove(blocked)
            yield RunOutcome(blocked, RunStatus.BLOCKED, "not run, as the stage-1 run that it needs has failed")
        ready = [run for run in todo if run.needs is None or run.needs in finished]
        for run in shared.free(ready, pool.size - len(running)):
            todo.remove(run)
            running.add(run.id)
            pool.start(run)
        if ready and not running:
            shared.wait(ready)
        for outcome in pool.wait() if running else ():
            running.remove(outcome.run.id)
            if outcome.status is RunStatus.WAITING:  # another study has just started it
                todo.append(outcome.run)
                continue
            if outcome.status is RunStatus.FINISHED:
                finished.add(outcome.run.id)
            yield outcome


def recorded_failures(planned: Sequence[PlannedRun], out: Path) -> dict[str, RunOutcome]:
    """The runs that failed or were blocked when the study was last run, and those that diverged, by run id."""
    return _failures(read_failures(out), planned)


def failed_scorings(out: Path, ids: Iterable[str]) -> list[dict[str, str]]:
    """The records of failed scorings of the runs with these ids."""
    recorded = read_failures(out)
    keys = dict.fromkeys(f"{id_}{SUFFIX}" for id_ in ids)
    return [recorded[key] for key in keys if key in recorded]


def read_failures(out: Path) -> dict[str, dict[str, str]]:
    """Read failures.json, by run id. Damaged records are dropped: those runs are tried again."""
    try:
        records = dict(read_json(out / FAILURES))
    except (OSError, TypeError, ValueError):
        return {}
    return {key: value for key, value in records.items() if isinstance(value, dict) and _is_record(value)}


def _is_record(value: Mapping[str, Any]) -> bool:
    # An earlier emoreg recorded runs that diverged here too; now their folders do, and a run without one is redone.
    recorded = (RunStatus.FAILED, RunStatus.BLOCKED)
    return isinstance(value.get("error"), str) and value.get("status", RunStatus.FAILED) in recorded


def _record(recorded: dict[str, dict[str, str]], outcome: RunOutcome, out: Path) -> None:
    """Record a failure, or remove the record of a run that has finished or diverged. The latter's folder records it."""
    before = recorded.pop(outcome.run.id, None)
    after = None
    if outcome.error is not None and outcome.status is not RunStatus.DIVERGED:
        after = {"run": outcome.run.name, "status": str(outcome.status), "error": outcome.error}
        after["traceback"] = outcome.traceback
        recorded[outcome.run.id] = after
    if after != before:
        _write_failures(recorded, out)


def _write_failures(recorded: Mapping[str, Mapping[str, str]], out: Path) -> None:
    """Write failures.json, if possible: if the disk is full, the runs report it."""
    with contextlib.suppress(OSError):
        write_json(out / FAILURES, recorded)


def _failures(recorded: Mapping[str, Mapping[str, str]], planned: Sequence[PlannedRun]) -> dict[str, RunOutcome]:
    """The outcomes of planned runs that diverged, or whose failure is recorded, and are still not finished."""
    failures = {}
    for run in planned:
        if run.run.is_finished:
            continue
        if run.run.has_diverged:
            failures[run.id] = _diverged(run)
        elif record := recorded.get(run.id):
            # Records of the first edition have no status: a run was blocked if the run that it needs had failed.
            default = RunStatus.BLOCKED if run.needs in recorded else RunStatus.FAILED
            status = RunStatus(record.get("status", default))
            failures[run.id] = RunOutcome(run, status, record["error"], record.get("traceback", ""))
    return failures


def _diverged(run: PlannedRun) -> RunOutcome:
    try:
        return RunOutcome(run, RunStatus.DIVERGED, str(run.run.divergence))
    except UserError as damage:
        return RunOutcome(run, RunStatus.FAILED, str(damage))


def _summary(planned: PlannedRun) -> str:
    try:
        final = planned.run.final
    except UserError as error:  # its folder has just been deleted; the other runs continue
        return f"{planned.name}: {error}"
    # Not the test split: seeing its figures while a study runs tempts people to stop or change it.
    measured = final.get("validation") or {}
    parts = [f"{key} {figure(value)}" for key in SUMMARISED if (value := measured.get(key)) is not None]
    if not parts and (loss := planned.run.last_loss) is not None:
        parts = [f"training loss {figure(loss)}"]
    elif parts:
        parts[0] = f"validation {parts[0]}"
    seconds = f"{final.get('seconds') or 0:.0f} s"
    return f"{planned.name}: {', '.join([*parts, seconds])}"

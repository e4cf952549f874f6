"""Score the finished runs of a study in suites, by the pool that does its runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from emoreg.runtime.progress import Progress
from emoreg.study.columns import RunStatus
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import RunOutcome
from emoreg.study.scheduler import Pool, outcomes_of, read_failures, record, write_failures
from emoreg.study.scorings import SUFFIX, left_to_score
from emoreg.study.shared_runs import SharedRuns
from emoreg.suites.options import Suite


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
        write_failures(recorded, out)
    if not jobs:
        return []
    todo = sum(left.values())
    with progress.task("all suites", todo, "suites") as advance:
        for outcome in outcomes_of(list(jobs), set(), pool, SharedRuns(progress)):
            if outcome.status is not RunStatus.FINISHED:
                progress.say(f"{outcome.run.name}: {outcome.status.upper()}: {outcome.error}")
                failed.append(outcome)
            record(recorded, outcome, out)
            advance(left[outcome.run.id])
    return failed


def failed_scorings(out: Path, ids: Iterable[str]) -> list[dict[str, str]]:
    """The records of failed scorings of the runs with these ids."""
    recorded = read_failures(out)
    keys = dict.fromkeys(f"{id_}{SUFFIX}" for id_ in ids)
    return [recorded[key] for key in keys if key in recorded]

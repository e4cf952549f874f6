"""Jobs that score finished runs of a plan in suites; a pool does them like runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.study.plan import PlannedRun
from emoreg.suites.options import Suite, WithSets
from emoreg.suites.results import current_result

SUFFIX = "/suites"  # appended to a run's id for the id of its scoring


@dataclass(frozen=True)
class PlannedScoring:
    """The suites that one finished run of stage 2 is to be scored in."""

    planned: PlannedRun
    suites: tuple[Suite, ...]  # without those that it was scored in already
    needs: ClassVar[None] = None  # no other job

    @property
    def id(self) -> str:
        """The id of the job, which differs from its run's."""
        return f"{self.planned.id}{SUFFIX}"

    @property
    def name(self) -> str:
        """The name of the job, for people."""
        return f"{self.planned.name}, suites"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.planned.folder

    @property
    def recipe(self) -> TrainRecipe:
        """The run's recipe, with the current root of its images."""
        assert isinstance(self.planned.recipe, TrainRecipe)
        return self.planned.recipe


def left_to_score(planned: Sequence[PlannedRun], suites: Sequence[Suite]) -> list[PlannedScoring]:
    """Jobs for the finished runs of stage 2 that lack a readable result of some suite.

    Runs with the same target follow each other, so that a process damages its images only once.
    """
    if not suites:
        return []
    jobs = []
    for run in {run.id: run for run in planned}.values():
        if run.mode is None or not run.run.is_finished:
            continue
        left = tuple(suite for suite in suites if not _is_scored(run, suite))
        if left:
            jobs.append(PlannedScoring(run, left))
    return sorted(jobs, key=lambda job: (job.planned.target or "", job.recipe.target.image_size))


def _is_scored(run: PlannedRun, suite: Suite) -> bool:
    try:
        return current_result(run.run, suite) is not None
    except UserError:  # scoring it again reports the damage
        return False


def check_scorable(left: Sequence[PlannedRun], jobs: Sequence[PlannedScoring], suites: Sequence[Suite]) -> None:
    """Check, before any run, that the remaining scorings are possible.

    Args:
        left: runs that are still to be done, and then to be scored in all suites.
        jobs: from `left_to_score`.
        suites: of the study.

    Raises:
        UserError: a library is not installed, the images of a target are too small, or a set of a suite is missing.
    """
    from emoreg.suites.corruptions import check_size
    from emoreg.suites.score import require_libraries

    names = {suite.name for job in jobs for suite in job.suites}
    if any(run.mode is not None for run in left):
        names |= {suite.name for suite in suites}
    needed = [suite for suite in suites if suite.name in names]
    require_libraries(needed)
    runs = (*left, *(job.planned for job in jobs))
    targets = {run.target: run.recipe.target for run in runs if isinstance(run.recipe, TrainRecipe)}
    for suite in needed:
        if suite.corruptions is not None:
            for label, target in targets.items():
                check_size(target.image_size, f"target {label}")
        _require_sets(suite)


def _require_sets(suite: Suite) -> None:
    from emoreg.study.missing_sets import is_missing

    for each in suite.options.sets if isinstance(suite.options, WithSets) else ():
        if is_missing(each.target(32, "crop")):
            place = f"nothing at {each.root}" if each.root else "no root is given"
            raise UserError(f"suites: {suite.name}: {each.label}: {place}; correct it, or leave it out")


def plan_line(planned: Sequence[PlannedRun], suites: Sequence[Suite]) -> str | None:
    """A line on the numbers of scorings, done and to do; None without suites. Runs that diverged are not scored."""
    if not suites:
        return None
    names = ", ".join(suite.name for suite in suites)
    runs = {run.id: run for run in planned if run.mode is not None and not run.run.has_diverged}
    total = len(runs) * len(suites)
    waiting = sum(not run.run.is_finished for run in runs.values()) * len(suites)
    left = waiting + sum(len(job.suites) for job in left_to_score(list(runs.values()), suites))
    what = "scoring" if total == 1 else "scorings"
    return f"suites: {names}: {total:,} {what}, {total - left:,} done, {left:,} to do, not in the estimate"

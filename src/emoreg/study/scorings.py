"""Suites that finished runs of a plan are still to be scored in: a job for a pool, like a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.study.plan import PlannedRun
from emoreg.suites.options import Suite, WithSets
from emoreg.suites.results import read_result

SUFFIX = "/suites"  # of the id of a scoring, behind its run's


@dataclass(frozen=True)
class PlannedScoring:
    """The suites that one finished run of stage 2 is to be scored in."""

    planned: PlannedRun
    suites: tuple[Suite, ...]  # without those that are scored already
    needs: ClassVar[None] = None  # no other job

    @property
    def id(self) -> str:
        """Unlike its run's."""
        return f"{self.planned.id}{SUFFIX}"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.planned.name}, suites"

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.planned.folder

    @property
    def recipe(self) -> TrainRecipe:
        """The run's, with the root where its images are now."""
        assert isinstance(self.planned.recipe, TrainRecipe)
        return self.planned.recipe


def left_to_score(planned: Sequence[PlannedRun], suites: Sequence[Suite]) -> list[PlannedScoring]:
    """Of the finished runs of stage 2 those with suites that are not scored, or whose result is damaged.

    Runs of one target follow each other, so that a process damages its images once.
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
        return read_result(run.run, suite) is not None
    except UserError:  # scoring it says what is wrong
        return False


def check_scorable(left: Sequence[PlannedRun], jobs: Sequence[PlannedScoring], suites: Sequence[Suite]) -> None:
    """UserError, before any run, for suites that runs cannot be scored in; for what is scored nothing is needed.

    It names a library that is not installed, a target with images that are too small, other sets that are not here.

    Args:
        left: runs that are still to be done, and then to be scored in all suites.
        jobs: from `left_to_score`.
        suites: of the study.
    """
    from emoreg.study.missing_sets import is_missing
    from emoreg.suites.corruptions import check_size
    from emoreg.suites.score import require_libraries

    asked = {suite.name for job in jobs for suite in job.suites}
    if any(run.mode is not None for run in left):
        asked |= {suite.name for suite in suites}
    needed = [suite for suite in suites if suite.name in asked]
    require_libraries(needed)
    runs = (*left, *(job.planned for job in jobs))
    recipes = {run.target: run.recipe for run in runs if isinstance(run.recipe, TrainRecipe)}
    for suite in needed:
        if suite.corruptions is not None:
            for label, recipe in recipes.items():
                check_size(recipe.target.image_size, f"target {label}")
        if isinstance(suite.options, WithSets):
            for each in suite.options.sets:
                if is_missing(each.target(32, "crop")):
                    place = f"nothing at {each.root}" if each.root else "no root is given"
                    raise UserError(f"suites: {suite.name}: {each.label}: {place}; correct it, or leave it out")


def plan_line(planned: Sequence[PlannedRun], suites: Sequence[Suite]) -> str | None:
    """How many scorings there are, done and to do; None without suites. A run that diverged has none."""
    if not suites:
        return None
    names = ", ".join(suite.name for suite in suites)
    runs = {run.id: run for run in planned if run.mode is not None and not run.run.has_diverged}
    total = len(runs) * len(suites)
    waiting = sum(not run.run.is_finished for run in runs.values()) * len(suites)
    left = waiting + sum(len(job.suites) for job in left_to_score(list(runs.values()), suites))
    what = "scoring" if total == 1 else "scorings"
    return f"suites: {names}: {total:,} {what}, {total - left:,} done, {left:,} to do, not in the estimate"

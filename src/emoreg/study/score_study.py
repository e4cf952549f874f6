"""Scores the runs of a study that has been run in suites, also in ones that its file does not name."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.errors import UserError
from emoreg.runtime.lock import hold
from emoreg.runtime.main_module import require_guard
from emoreg.runtime.progress import Progress
from emoreg.study.definition import scored_in
from emoreg.study.kept_data import at_places, find_data, refuse
from emoreg.study.read_study import FILE, TABLE
from emoreg.study.results_table import write_results
from emoreg.study.run_study import StudyOnDisk, make_pool, open_study, require_own_process, write_study
from emoreg.study.score_runs import score_runs
from emoreg.study.scorings import check_scorable, left_to_score
from emoreg.suites.options import Suite

if TYPE_CHECKING:
    import pandas as pd


def score_study(
    path: Path | str,
    suites: Sequence[Suite] = (),
    jobs: int = 1,
    progress: Progress | None = None,
    runs: Path | str | None = None,
) -> tuple[StudyOnDisk, pd.DataFrame]:
    """Score all finished runs of a study, and write its table.

    Args:
        path: the study's folder, or its file.
        suites: in place of those of the same name in the study, or beside them: the copy of its file keeps them. None
            for the study's own.
        jobs: runs at a time.
        progress: None for the terminal.
        runs: folder of the run folders; None for the study's own.

    Returns:
        The study, and its table.

    Raises:
        UserError: no such study, or one without suites; no run is finished; another process is working on it; images
            that have changed or are not there; a library that is not installed.
    """
    require_guard()
    require_own_process()
    progress = progress or Progress(details=False)
    found = open_study(path, runs)
    if found.fallen_out:
        progress.say(found.fallen_out)
    own = {suite.name: suite for suite in (*found.study.suites, *suites)}
    if not own:
        raise UserError(f"{path} names no suites: give some with --suites, or write 'suites:' in its file")
    if found.study.edition == 1:
        raise UserError(f"{path} is a study of the first edition, whose table has no suites: give its run folders")
    if not any(run.mode is not None and run.run.is_finished for run in found.planned):
        if any(run.mode is not None and run.run.has_diverged for run in found.planned):
            raise UserError(f"all runs of stage 2 that have ended in {found.out} diverged: there is nothing to score")
        raise UserError(f"no run of this study is finished in {found.out}; run 'emoreg study' first")
    found = replace(found, study=scored_in(found.study, tuple(own.values())))
    with hold(found.out), contextlib.closing(make_pool(jobs, progress, None, isolated=True)) as pool:
        left = left_to_score(found.planned, found.study.suites)
        check_scorable((), left, found.study.suites)
        places, lines = find_data(found.study.data, [job.planned.recipe for job in left], found.out)
        refuse(lines, found.out)
        if found.study.values is not None and (found.out / FILE).exists():
            write_study(found.out / FILE, found.study.values)
        here = [replace(run, recipe=at_places(run.recipe, places)) for run in found.planned]
        score_runs(here, found.study.suites, found.out, pool, progress)
        table = found.table()
        write_results(found.out / TABLE, table)
    return found, table

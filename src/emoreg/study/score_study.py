"""Score the finished runs of a study in its suites and in further ones."""

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
from emoreg.study.kept_data import at_places, find_data, refuse_changed
from emoreg.study.read_study import FILE, TABLE
from emoreg.study.results_table import write_results
from emoreg.study.run_study import StudyOnDisk, make_pool, open_study, require_own_process, write_study
from emoreg.study.scheduler import score_runs
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
        suites: added to the study's, or replacing those of the same name; the copy of the study's file keeps them.
        jobs: runs at a time.
        progress: None for the terminal.
        runs: folder of the run folders; None for the study's own.

    Returns:
        The study, and its table.

    Raises:
        UserError: no such study, or it has no suites; no run is finished; another process is using its folder; images
            have changed or are missing; a library is not installed.
    """
    require_guard()
    require_own_process("scoring a study", "--jobs does")
    progress = progress or Progress(details=False)
    opened = _open(path, suites, runs)
    if opened.fallen_out:
        progress.say(opened.fallen_out)
    with hold(opened.out), contextlib.closing(make_pool(jobs, progress, None, isolated=True)) as pool:
        opened = _open(path, suites, runs)  # a process that held the lock may have added suites
        study = opened.study
        left = left_to_score(opened.planned, study.suites)
        check_scorable((), left, study.suites)
        places, faults = find_data(study.data, [job.planned.recipe for job in left], opened.out)
        refuse_changed(faults, opened.out)
        if study.values is not None and (opened.out / FILE).exists():
            write_study(opened.out / FILE, study.values)
        here = [replace(run, recipe=at_places(run.recipe, places)) for run in opened.planned]
        score_runs(here, study.suites, opened.out, pool, progress)
        table = opened.table()
        write_results(opened.out / TABLE, table)
    return opened, table


def _open(path: Path | str, suites: Sequence[Suite], runs: Path | str | None) -> StudyOnDisk:
    """Open a study with further suites. Raises UserError if there is nothing to score."""
    opened = open_study(path, runs)
    by_name = {suite.name: suite for suite in (*opened.study.suites, *suites)}
    if not by_name:
        raise UserError(f"{path} names no suites: give some with --suites, or write 'suites:' in its file")
    if opened.study.edition == 1:
        raise UserError(f"{path} is a study of the first edition, whose table has no suites: give its run folders")
    stage_2 = [run.run for run in opened.planned if run.mode is not None]
    if not any(run.is_finished for run in stage_2):
        if any(run.has_diverged for run in stage_2):
            raise UserError(f"all runs of stage 2 that have ended in {opened.out} diverged: there is nothing to score")
        raise UserError(f"no run of this study is finished in {opened.out}; run 'emoreg study' first")
    return replace(opened, study=scored_in(opened.study, tuple(by_name.values())))

"""Run a study, from its definition to its table of results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emoreg.config.setting_types import path_of, typed_value
from emoreg.errors import SettingError, UserError
from emoreg.runs.trackers import send_all_later
from emoreg.runtime.launch_env import refuse_launchers
from emoreg.runtime.lock import hold_new
from emoreg.runtime.main_module import require_guard
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_atomically, writing
from emoreg.study.columns import has_result
from emoreg.study.definition import Study, needs_machine
from emoreg.study.earlier_plan import fallen_out
from emoreg.study.elsewhere import FILE as ELSEWHERE
from emoreg.study.elsewhere import finished_elsewhere, merged
from emoreg.study.kept_data import at_places, find_data, refuse_changed
from emoreg.study.local_pool import LocalPool
from emoreg.study.machine import Machine, this_machine
from emoreg.study.missing_sets import refuse_missing
from emoreg.study.part import part_of
from emoreg.study.plan import PlannedRun, in_existing_folders, plan_runs, with_ids_elsewhere
from emoreg.study.read_study import (
    FILE,
    TABLE,
    find_study,
    is_kept,
    kept_study,
    read_study,
    with_data,
    with_machine,
    with_suites,
)
from emoreg.study.results import results_of
from emoreg.study.results_table import read_results, write_results
from emoreg.study.run_one import RunOutcome
from emoreg.study.scheduler import InTurn, Pool, execute, left_to_do, recorded_failures, score_runs
from emoreg.study.scorings import check_scorable, left_to_score

if TYPE_CHECKING:
    import pandas as pd

    from emoreg.study.ray_pool import Ray

RUNS = "runs"  # in a study's folder: the run folders


def run_study(
    study: Study,
    out: Path | str,
    runs: Path | str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
    ray: Ray | None = None,
    elsewhere: Sequence[Path | str] | Path | str = (),
    isolated: bool = False,
    only: Collection[str] | str = (),
) -> pd.DataFrame:
    """Do all remaining runs of a study, score them in its suites, and write its table.

    To resume a study that was stopped, even killed, call this again. Runs that fail are recorded with their error, and
    tried again by the next call. Runs that diverge are tried again only if their folders are deleted; in stage 2 they
    count as results.

    Args:
        study: from `read_study`, or made in Python.
        out: the study's folder, for results.parquet and study.yaml.
        runs: folder of the run folders; None for `out`/runs. Studies with the same folder share their runs.
        jobs: runs at a time, at least 1.
        progress: None for the terminal.
        ray: a cluster for the runs, as many at a time as it has room for; None for this machine.
        elsewhere: tables of results of other machines, or one table, whose finished and diverged runs of this study
            count as done. The study's folder keeps them.
        isolated: with jobs 1, do the runs in another process, as with more jobs: the study then continues even if a
            run is killed, for lack of memory, or a library crashes.
        only: labels of the part of the study to run for now, or one label, see `part_of`; none for all of it. The table
            has the whole plan.

    Returns:
        The table from `results_of`, including the runs that failed.

    Raises:
        UserError: the folder cannot be written, or another process is using it; a table cannot be read, or has no run
            of this study; images of remaining runs have changed since the study started, or are missing (the error
            lists all such sets); `only` has an unknown label; torchrun, srun or the like has started several
            processes; the folder has results of another plan: seeds and looks may not change, and a confirmation may
            not drop finished runs.
    """
    if not isinstance(study, Study):
        given = f"a {type(study).__name__}"
        raise SettingError("study", f"must be a Study, not {given}; emoreg.read_study(path) reads one from its file")
    jobs, out = typed_value(int, jobs, "jobs"), path_of(out, "out")
    require_guard()
    require_own_process()
    progress = progress or Progress(details=False)
    paths = [elsewhere] if isinstance(elsewhere, Path | str) else elsewhere
    tables = [(str(path), read_results(path_of(path, "elsewhere"))) for path in paths]
    with hold_new(out, "study's folder"), contextlib.closing(make_pool(jobs, progress, ray, isolated)) as pool:
        opened = prepare_study(study, out, runs, pool.machine, tables)
        if needs_machine(study):
            _report_precision(opened.study, out, pool.machine(), progress)
        if opened.fallen_out:
            progress.say(opened.fallen_out)
        named = {suite.name for suite in study.suites}
        if added := [suite.name for suite in opened.study.suites if suite.name not in named]:
            progress.say(f"scored too, as {out / FILE} names them: {', '.join(added)}; to drop one, delete it there")
        study, planned, ids = opened.study, opened.planned, opened.ids_elsewhere
        part = part_of(planned, [only] if isinstance(only, str) else only)
        left, left_unscored = left_to_do(part, ids), left_to_score(part, study.suites)
        needing = (*left, *(job.planned for job in left_unscored))
        places, faults = find_data(study.data, [run.recipe for run in needing], out)
        refuse_changed(faults, out, "choose another folder with --out for a study of other images")
        refuse_missing(
            [replace(run, recipe=at_places(run.recipe, places)) for run in left],
            "--only LABEL ... does the part whose sets are here",
        )
        check_scorable(left, left_unscored, study.suites)
        _report_path_ids(planned, progress)
        if tables and opened.elsewhere is not None:
            write_results(out / ELSEWHERE, opened.elsewhere)
        if study.values is not None:
            write_study(out / FILE, {key: value for key, value in study.values.items() if key != "run_seeds"})
        here = [replace(run, recipe=at_places(run.recipe, places)) for run in part]
        failed = execute(here, out, pool, progress, ids)
        planned, here = in_existing_folders(planned), in_existing_folders(here)
        score_runs(here, study.suites, out, pool, progress)
        table = results_of(study, planned, recorded_failures(planned, out) | failed, opened.elsewhere, out)
        write_results(out / TABLE, table)  # before the pool is closed, which may take time
        once = {run.id: run for run in planned if run.run.is_finished}
        send_all_later([(run.run, run.recipe) for run in once.values()], progress)
    return table


def require_own_process(what: str = "a study", options: str = "--jobs or --ray do") -> None:
    """Raise UserError if torchrun, srun or the like has started several processes: each would do all of the work.

    Args:
        what: the work.
        options: of its command that do several runs at a time, with a verb.
    """
    refuse_launchers(
        f"{what} is not for torchrun, srun or mpirun; start it once: {options} several runs at a time, and "
        "training.devices one run on several devices"
    )


def _report_precision(study: Study, out: Path, here: Machine, progress: Progress) -> None:
    """Report that a study continues in another precision than a new one would have."""
    if study.machine is None or study.machine == here:
        return
    precision = study.machine.precision
    slow = ", though this device does not compute in it and will be slow" if precision == "bf16-mixed" else ""
    progress.say(
        f"{out} was started in {precision}, and its remaining runs are trained in it too{slow}; training.precision "
        f"auto is {here.precision} here now: with another --out, or machine: {{device: {here.device}, precision: "
        f"{here.precision}}} in the file, all are trained again"
    )


def _report_path_ids(planned: Sequence[PlannedRun], progress: Progress) -> None:
    """Report runs whose id has the paths of their images, and so does not tell whether these are the same."""
    old = [run for run in planned if run.id == run.path_id != run.content_id]
    if old:
        progress.say(
            f"{len(old)} of {len(planned)} runs were started by an earlier emoreg, with the paths of images in their "
            "ids: they are assumed to be runs of the images that are there now"
        )


def make_pool(jobs: int, progress: Progress, ray: Ray | None, isolated: bool) -> Pool:
    """The pool for the jobs of a study: a Ray cluster, processes of this machine, or this process; see `run_study`."""
    if ray is not None:
        from emoreg.study.ray_pool import RayPool

        return RayPool(ray, progress)
    return LocalPool(jobs, progress) if jobs > 1 or isolated else InTurn(progress)


def write_study(path: Path, values: Mapping[str, Any]) -> None:
    """Write the copy of a study's file. Raises UserError if that fails."""
    with writing(path):
        write_atomically(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


@dataclass(frozen=True)
class StudyOnDisk:
    """A study with the state of its runs, which may be finished, running, or not started."""

    study: Study
    out: Path  # its folder
    planned: Sequence[PlannedRun]
    failures: Mapping[str, RunOutcome]  # by run id
    elsewhere: pd.DataFrame | None = None  # rows of runs that other machines have done
    fallen_out: str | None = None  # a line on results in its folder that are of an earlier plan

    @property
    def ids_elsewhere(self) -> set[str]:
        """Ids of the runs that other machines have done: finished, or of stage 2 and diverged."""
        return set() if self.elsewhere is None else set(self.elsewhere["id"])

    def table(self) -> pd.DataFrame:
        """Build the table of the results so far."""
        return results_of(self.study, self.planned, self.failures, self.elsewhere, self.out)


def open_study(path: Path | str, runs: Path | str | None = None) -> StudyOnDisk:
    """Open a study with the state of its runs.

    Args:
        path: its file, or its folder.
        runs: folder of the run folders; None for the study's own.

    Raises:
        UserError: no such study; as in `prepare_study`.
    """
    return prepare_study(read_study(find_study(path)), default_folder(path), runs)


def prepare_study(
    study: Study,
    out: Path,
    runs: Path | str | None = None,
    machine: Callable[[], Machine] | None = None,
    tables: Sequence[tuple[str, pd.DataFrame]] = (),
) -> StudyOnDisk:
    """Complete a study with the records in its folder, and plan its runs.

    Args:
        study: as it is defined now.
        out: its folder, which need not exist.
        runs: folder of the run folders; None for the study's own.
        machine: returns what `auto` stands for where the runs are done; None for this machine.
        tables: names for errors, and further tables of results of other machines.

    Raises:
        UserError: the folder has results of another plan, see `fallen_out`; a table cannot be read, or has no run of
            the study.
    """
    kept = kept_study(out)
    if needs_machine(study):
        study = with_machine(study, kept, (machine or this_machine)())
    study = with_data(with_suites(_with_seeds_done(study, out), kept), kept)
    folder = path_of(runs or out / RUNS, "runs")
    planned = plan_runs(study, folder)
    fallen = fallen_out(study, planned, out, folder, kept)
    done = _done_elsewhere(out, planned, tables)
    planned = with_ids_elsewhere(planned, set() if done is None else set(done["id"]))
    return StudyOnDisk(study, out, planned, recorded_failures(planned, out), done, fallen)


def _with_seeds_done(study: Study, out: Path) -> Study:
    """Extend `run_seeds` to the seeds beyond the plan of which the folder's table has results, unless it is set."""
    if study.run_seeds is not None or study.is_smoke:
        return study
    with contextlib.suppress(UserError):  # no table, or a damaged one
        table = read_results(out / TABLE)
        seeds = table["seed"][has_result(table) & (table["stage"] == 2)]
        more = 0 if seeds.empty else int(seeds.max()) + 1 - study.seed_numbers.start
        is_of_this_plan = not seeds.empty and int(seeds.min()) >= study.seed_numbers.start
        return replace(study, run_seeds=more) if is_of_this_plan and more > study.seeds else study
    return study


def _done_elsewhere(
    out: Path, planned: Sequence[PlannedRun], tables: Sequence[tuple[str, pd.DataFrame]]
) -> pd.DataFrame | None:
    """The runs of other machines, from the study's folder and from further tables; None if there are no such tables."""
    path = out / ELSEWHERE
    kept = [(str(path), read_results(path))] if path.exists() else []
    if not tables:
        return kept[0][1] if kept else None
    return merged([*kept, ("the other table", finished_elsewhere(tables, planned))])


def default_folder(path: Path | str) -> Path:
    """The folder of a study, given that folder or a file: the folder of a kept copy, and otherwise runs/<file name>."""
    path = Path(path)
    if path.is_dir():
        return path
    return path.parent if is_kept(path) else Path("runs") / path.stem

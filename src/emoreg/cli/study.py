"""The command that runs a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from emoreg.cli.edition import say_edition
from emoreg.cli.parser import Folder, Quiet, Shown
from emoreg.cli.report import RunsFolder, has_results, print_report
from emoreg.errors import UserError, printable
from emoreg.runtime.progress import Progress
from emoreg.runtime.streams import tell

if TYPE_CHECKING:
    import pandas as pd

    from emoreg.study.definition import Study
    from emoreg.study.ray_pool import Ray


def study(
    study: Annotated[Path, Shown("STUDY")],
    *,
    out: Folder | None = None,
    runs: RunsFolder | None = None,
    seeds: int | None = None,
    with_: Annotated[Sequence[Path], Shown("TABLE")] = (),
    only: Annotated[Sequence[str], Shown("LABEL")] = (),
    jobs: int = 1,
    ray: Annotated[bool | str, Shown("ADDRESS")] = False,
    gpus_per_run: float | None = None,
    cpus_per_run: int | None = None,
    dry_run: bool = False,
    smoke: bool = False,
    quiet: Quiet = False,
) -> int:
    """Run a study: modes, experiences, references, variants, seeds; then write the report.

    Trains every arm on every target and backbone with every seed, then writes the table and the report. Finished runs
    are never repeated; run the same command again to resume a study. While it runs only validation images or training
    losses are shown: the test split stands in the report. The exit code is 1 if a run failed.

    Args:
        study: a YAML file, see recipes/studies/, or a study's folder
        out: the study's folder. Default: runs/<name of the file>
        seeds: number of seeds to run for now; what the file plans stays the plan
        with_: tables of results of other machines: runs of this study that are finished there, or have
            diverged, count as done
        only: the part of the study to run for now, by labels of targets, backbones, stimuli or variants, and modes;
            the plan stays whole, also for the report
        jobs: parallel runs, on this machine
        ray: run on a Ray cluster: auto or HOST:PORT; without an address, one of this machine alone. All machines must
            share the study's folder
        gpus_per_run: with --ray; 0.25 puts four runs on a GPU. Default: one if the cluster has any
        cpus_per_run: with --ray. Default: 1
        dry_run: print what image sets that are not here or cannot be read need, then the plan, and how long it will
            take on this machine, and stop; the exit code is 2 if the study would not begin, as sets are not here or
            runs cannot be scored in its suites, and 1 if runs would fail, as a set cannot be read
        smoke: train one seed for one epoch on a few images, to check that all of it runs

    Examples:
        emoreg study recipes/studies/cifar10-pilot.yaml --dry-run
        emoreg study recipes/studies/cifar10-pilot.yaml --jobs 2
        emoreg study recipes/studies/cifar10-pilot.yaml --smoke
        emoreg study recipes/studies/cifar10-pilot.yaml --seeds 2      # for now, two of the planned ones
        emoreg study recipes/studies/paper.yaml --only resnet18 abstract    # a backbone with one stimulus set
        emoreg study recipes/studies/cifar10-pilot.yaml --with gpu/results.parquet
        emoreg study recipes/studies/cifar10-pilot.yaml --ray auto --gpus-per-run 0.25
    """
    cluster = ray_cluster(ray, jobs, gpus_per_run=gpus_per_run, cpus_per_run=cpus_per_run)

    from emoreg.study.read_study import find_study, is_kept, read_study
    from emoreg.study.run_study import default_folder, require_own_process, run_study

    require_own_process()
    definition, tables = read_study(find_study(study), seeds, smoke), list(with_)
    if not is_kept(find_study(study)) and definition.edition > 1 and definition.read_as is None:
        say_edition(find_study(study))
    folder = default_folder(study)
    if smoke:
        folder = folder.resolve()  # "." has no name
        folder = folder.with_name(f"{folder.name}-smoke")
    out = out or folder
    progress = Progress(quiet=quiet, details=False)
    if dry_run:
        return _print_plan(definition, out, runs, jobs, tables, only, progress)
    table = run_study(definition, out, runs, jobs, progress, cluster, tables, isolated=True, only=only)
    return print_outcome(definition, table, out)


def print_outcome(study: Study, table: pd.DataFrame, out: Path) -> int:
    """Write and print the report of a study that was run, and tell which runs failed. The exit code: 1 if any did.

    Raises:
        UserError: the report cannot be written; what failed is told all the same.
    """
    from emoreg.study.plan import left_out
    from emoreg.study.score_runs import failed_scorings

    scorings = failed_scorings(out, table["id"])
    try:
        if has_results(table):
            print_report(study.name, table, out, left_out(study), is_asked_for=False)
    finally:  # also on a full disk
        code = max(_tell_lost(table, out), tell_failed(scorings, out))
    return code


def _tell_lost(table: pd.DataFrame, out: Path) -> int:
    """Tell which runs failed or diverged. The exit code: 1 if any did, but for classifiers that diverged: results."""
    from emoreg.study.columns import RunStatus, each_once
    from emoreg.study.scheduler import read_failures

    table, recorded = each_once(table), read_failures(out)
    lost = table[table.status.isin((RunStatus.FAILED, RunStatus.DIVERGED))]
    failed, diverged = (lost[lost.status == status] for status in (RunStatus.FAILED, RunStatus.DIVERGED))
    encoders, classifiers = (diverged[diverged.stage == stage] for stage in (1, 2))
    for run in lost.itertuples():
        tell(printable(f"emoreg: {run.status}: {run.run}: {run.error}"))
    anew = "and are not trained again; to try one anew that was trained here, delete its folder ('emoreg runs delete')"
    if len(classifiers):
        tell(f"emoreg: {len(classifiers)} of {len(table)} runs diverged: they count as collapsed, {anew}")
    if len(encoders):
        tell(f"emoreg: {len(encoders)} of {len(table)} runs diverged in stage 1: they block what needs them, {anew}")
    if len(failed):
        where = _tracebacks([recorded.get(key, {}) for key in failed["id"]], out)
        tell(f"emoreg: {len(failed)} of {len(table)} runs failed{where}; run the same command again to retry them")
    if blocked := (table.status == RunStatus.BLOCKED).sum():
        tell(f"emoreg: {blocked} of {len(table)} runs are blocked: not begun, as they need one of stage 1 named above")
    return 1 if len(failed) or len(encoders) else 0


def tell_failed(failed: Sequence[Mapping[str, str]], out: Path) -> int:
    """Tell which scorings of a study failed, by their records. The exit code: 1 if any did."""
    for each in failed:
        tell(printable(f"emoreg: failed: {each['run']}: {each['error']}"))
    if failed:
        where = _tracebacks(failed, out)
        tell(f"emoreg: the suites of {len(failed)} runs failed{where}; run the same command again to retry them")
    return 1 if failed else 0


def _tracebacks(failed: Sequence[Mapping[str, str]], out: Path) -> str:
    """Where the tracebacks of failures are. An error that says itself what is wrong, as of bad input, has none."""
    number = sum(bool(each.get("traceback")) for each in failed)
    which = "their tracebacks are" if number == len(failed) else f"of {number} there is a traceback"
    return f"; {which} in {out}/failures.json" if number else ""


def _print_plan(
    study: Study,
    out: Path,
    runs: Path | None,
    jobs: int,
    tables: Sequence[Path],
    only: Sequence[str],
    progress: Progress,
) -> int:
    """Print what is to be done, how long it will take, and what image sets that are not here need.

    The exit code is 2 if the study would not begin, as sets are not here or it cannot be scored in its suites, and 1 if
    runs would fail, as a set cannot be read. What else may happen to a run only the study tells.
    """
    from emoreg.runtime.terminal import show
    from emoreg.study.costs import estimate
    from emoreg.study.image_counts import count_images
    from emoreg.study.kept_data import at_places, find_data
    from emoreg.study.measured_speeds import gpu_estimate
    from emoreg.study.missing_sets import download_notes, missing_sets, told
    from emoreg.study.part import part_of
    from emoreg.study.results_table import read_results
    from emoreg.study.run_study import begun
    from emoreg.study.scheduler import left_to_do
    from emoreg.study.scorings import check_scorable, left_to_score, plan_line
    from emoreg.study.tables import plan_table

    found = begun(study, out, runs, tables=[(str(path), read_results(path)) for path in tables])
    study, planned = found.study, found.planned
    ids = found.ids_elsewhere
    part = part_of(planned, only)
    jobs_left = left_to_score(part, study.suites)
    needing = (*left_to_do(part, ids), *(job.planned for job in jobs_left))
    places, changed = find_data(study.data, [run.recipe for run in needing], out)
    part = [dataclasses.replace(run, recipe=at_places(run.recipe, places)) for run in part]
    left = left_to_do(list({run.id: run for run in part}.values()), ids)
    counted = count_images((run.recipe for run in part), progress)
    notes = download_notes(run.recipe for run in left)
    fallen = [found.fallen_out] if found.fallen_out else []
    missing, refused = missing_sets(left, counted.faults), list[str]()
    try:
        check_scorable(left, jobs_left, study.suites)
    except UserError as error:  # the plan is worth printing all the same
        refused = [printable(str(error))]
    if lines := [*fallen, *changed, *told(missing), *refused, *notes]:
        show(*lines, "")  # before anything is timed, which may take a minute
    folders = [*([runs] if runs else []), out.parent]
    costs = estimate({run.id: run.recipe for run in part}, counted, progress, jobs, folders)
    asks_for_gpu = any(recipe.training.device in ("auto", "cuda") for recipe in study.recipes)
    on_gpu = gpu_estimate([run.recipe for run in left], counted) if asks_for_gpu else None
    show(plan_table(study, part, costs, jobs, ids, len({run.id for run in planned}) if only else None, on_gpu))
    if line := plan_line(part, study.suites):
        show(line)
    if changed or refused or not all(each.fault for each in missing):
        return 2
    return 1 if missing else 0


def ray_cluster(ray: bool | str, jobs: int, **given: float | None) -> Ray | None:
    """The cluster that --ray, --gpus-per-run and --cpus-per-run ask for; None without --ray.

    Raises:
        UserError: options that do not go together; no job at a time.
    """
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    if ray and jobs > 1:
        raise UserError("--jobs is for this machine without Ray; with --ray, give --cpus-per-run and --gpus-per-run")
    resources: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not ray:
        if resources:
            raise UserError(f"--{next(iter(resources)).replace('_', '-')} is for --ray")
        return None
    from emoreg.study.ray_pool import LOCAL, Ray

    return Ray(ray if isinstance(ray, str) else LOCAL, **resources)

"""The command that runs a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from emoreg.cli.parser import Folder, Quiet, Shown
from emoreg.cli.report import RunsFolder, has_results, print_report
from emoreg.cli.stages import print_edition
from emoreg.errors import UserError, printable
from emoreg.runtime.progress import Progress
from emoreg.runtime.streams import print_line

if TYPE_CHECKING:
    import pandas as pd

    from emoreg.study.definition import Study
    from emoreg.study.plan import PlannedRun
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
    are never repeated; run the same command again to resume a study. While it runs, only scores on validation images
    or training losses are shown; test scores are in the report. The exit code is 1 if a run failed.

    Args:
        study: a YAML file, see recipes/studies/, or a study's folder
        out: the study's folder. Default: runs/<name of the file>
        seeds: number of seeds to run for now; the planned number stays that of the file
        with_: tables of results from other machines; runs of this study that finished or diverged there count as done
        only: the part of the study to run for now, by labels of targets, backbones, stimuli or variants, and modes;
            the plan and the report still cover the whole study
        jobs: parallel runs, on this machine
        ray: run on a Ray cluster: auto or HOST:PORT; without an address, on a new one of this machine only. All
            machines must share the study's folder
        gpus_per_run: with --ray; 0.25 puts four runs on a GPU. Default: 1 if the cluster has GPUs
        cpus_per_run: with --ray. Default: 1
        dry_run: print what missing or unreadable image sets need, the plan, and the expected duration on this machine,
            and stop; the exit code is 2 if the study would not start, because sets are missing, have changed or have
            a root that nothing reads, or because its suites cannot score its runs, and 1 if runs would fail, because a
            set cannot be read
        smoke: train one seed for one epoch on a few images, to check that all of it runs

    Examples:
        emoreg study recipes/studies/cifar10-pilot.yaml --dry-run
        emoreg study recipes/studies/cifar10-pilot.yaml --jobs 2
        emoreg study recipes/studies/cifar10-pilot.yaml --smoke
        emoreg study recipes/studies/cifar10-pilot.yaml --seeds 2      # for now, two of the planned seeds
        emoreg study recipes/studies/paper.yaml --only resnet18 abstract    # a backbone with one stimulus set
        emoreg study recipes/studies/cifar10-pilot.yaml --with gpu/results.parquet
        emoreg study recipes/studies/cifar10-pilot.yaml --ray auto --gpus-per-run 0.25
    """
    cluster = ray_cluster(ray, jobs, gpus_per_run=gpus_per_run, cpus_per_run=cpus_per_run)
    if smoke and seeds is not None:
        raise UserError("--smoke trains one seed; leave out --seeds")

    from emoreg.study.read_study import find_study, is_kept, read_study
    from emoreg.study.run_study import default_folder, require_own_process, run_study

    require_own_process()
    file = find_study(study)
    definition = read_study(file, seeds, smoke)
    if not is_kept(file) and definition.edition > 1 and definition.read_as is None:
        print_edition(file)
    folder = default_folder(study)
    if smoke:
        folder = folder.resolve()  # "." has no name
        folder = folder.with_name(f"{folder.name}-smoke")
    out = out or folder
    progress = Progress(quiet=quiet, details=False)
    if dry_run:
        return _print_plan(definition, out, runs, jobs, with_, only, progress)
    table = run_study(definition, out, runs, jobs, progress, cluster, list(with_), isolated=True, only=only)
    return print_outcome(definition, table, out)


def print_outcome(study: Study, table: pd.DataFrame, out: Path) -> int:
    """Write and print the report of a finished study, and list failed runs; return the exit code, 1 if any failed."""
    from emoreg.study.plan import left_out

    try:
        if has_results(table):
            print_report(study.name, table, out, left_out(study), is_requested=False)
    finally:  # also if the report cannot be written, as on a full disk
        code = max(_print_lost(table, out), print_failed_scorings(table, out))
    return code


def _print_lost(table: pd.DataFrame, out: Path) -> int:
    """List failed, diverged and blocked runs; return the exit code, 1 if a run failed or an encoder diverged."""
    from emoreg.study.columns import RunStatus, each_once
    from emoreg.study.scheduler import read_failures

    table, recorded = each_once(table), read_failures(out)
    total = len(table)
    lost = table[table.status.isin((RunStatus.FAILED, RunStatus.DIVERGED))]
    failed, diverged = lost[lost.status == RunStatus.FAILED], lost[lost.status == RunStatus.DIVERGED]
    encoders, classifiers = diverged[diverged.stage == 1], diverged[diverged.stage == 2]
    for run in lost.itertuples():
        print_line(printable(f"emoreg: {run.status}: {run.run}: {run.error}"))
    anew = "and are not trained again; to retry one that was trained here, delete its folder ('emoreg runs delete')"
    if len(classifiers):
        print_line(f"emoreg: {len(classifiers)} of {total} runs diverged: they count as collapsed, {anew}")
    if len(encoders):
        print_line(
            f"emoreg: {len(encoders)} of {total} runs diverged in stage 1: they block runs that need them, {anew}"
        )
    if len(failed):
        where = _tracebacks([recorded.get(key, {}) for key in failed["id"]], out)
        print_line(f"emoreg: {len(failed)} of {total} runs failed{where}; run the same command again to retry them")
    if blocked := (table.status == RunStatus.BLOCKED).sum():
        print_line(
            f"emoreg: {blocked} of {total} runs are blocked: not started, as they need a stage-1 run named above"
        )
    return 1 if len(failed) or len(encoders) else 0


def print_failed_scorings(table: pd.DataFrame, out: Path) -> int:
    """List the failed scorings of a study's runs; return the exit code, 1 if there are any."""
    from emoreg.study.scheduler import failed_scorings

    failed = failed_scorings(out, table["id"])
    for record in failed:
        print_line(printable(f"emoreg: failed: {record['run']}: {record['error']}"))
    if failed:
        where = _tracebacks(failed, out)
        print_line(f"emoreg: the suites of {len(failed)} runs failed{where}; run the same command again to retry them")
    return 1 if failed else 0


def _tracebacks(failed: Sequence[Mapping[str, str]], out: Path) -> str:
    """Say where the tracebacks of failures are. Errors that explain themselves, such as of bad input, have none."""
    number = sum(bool(record.get("traceback")) for record in failed)
    if not number:
        return ""
    which = "their tracebacks are" if number == len(failed) else f"tracebacks of {number} of them are"
    return f"; {which} in {out}/failures.json"


def _print_plan(
    study: Study,
    out: Path,
    runs: Path | None,
    jobs: int,
    tables: Sequence[Path],
    only: Sequence[str],
    progress: Progress,
) -> int:
    """Print what the help of --dry-run names, and return the exit code. It does not foresee other failures of runs."""
    from emoreg.data.embedded import has_unread_root
    from emoreg.runtime.terminal import show
    from emoreg.study.costs import estimate
    from emoreg.study.image_counts import count_images
    from emoreg.study.kept_data import at_places, find_data
    from emoreg.study.measured_speeds import gpu_estimate
    from emoreg.study.missing_sets import describe_missing, download_notes, missing_sets
    from emoreg.study.part import part_of
    from emoreg.study.results_table import read_results
    from emoreg.study.run_study import prepare_study
    from emoreg.study.scheduler import left_to_do
    from emoreg.study.scorings import check_scorable, left_to_score, plan_line
    from emoreg.study.tables import plan_table

    opened = prepare_study(study, out, runs, tables=[(str(path), read_results(path)) for path in tables])
    study, planned, ids = opened.study, opened.planned, opened.ids_elsewhere
    part = part_of(planned, only)
    scorings = left_to_score(part, study.suites)
    needing = (*left_to_do(part, ids), *(job.planned for job in scorings))
    places, changed = find_data(study.data, [run.recipe for run in needing], out)
    part = [dataclasses.replace(run, recipe=at_places(run.recipe, places)) for run in part]
    left = left_to_do(list({run.id: run for run in part}.values()), ids)
    counted = count_images((run.recipe for run in part), progress)
    missing = missing_sets(left, counted.faults)
    lines = [*([opened.fallen_out] if opened.fallen_out else []), *changed, *describe_missing(missing)]
    is_refused = bool(changed) or any(
        has_unread_root(settings) for run in left for settings in run.recipe.sections.values()
    )
    try:
        check_scorable(left, scorings, study.suites)
    except UserError as error:  # the plan is worth printing nevertheless
        lines.append(printable(str(error)))
        is_refused = True
    lines += download_notes(run.recipe for run in left)
    if lines:
        show(*lines, "")  # before anything is timed, which may take a minute
    folders = [*([runs] if runs else []), out.parent]
    costs = estimate({run.id: run.recipe for run in part}, counted, progress, jobs, folders)
    may_use_gpu = any(recipe.training.device in ("auto", "cuda") for recipe in study.recipes)
    on_gpu = gpu_estimate([run.recipe for run in left], counted) if may_use_gpu else None
    show(plan_table(study, part, costs, jobs, ids, len({run.id for run in planned}) if only else None, on_gpu))
    if line := plan_line(part, study.suites):
        show(line)
    has_verdicts = study.purpose != "exploration" and not study.is_smoke
    if has_verdicts and (line := idle_looks(study.looks or (study.seeds,), planned)):
        show(line)
    if is_refused or not all(each.fault for each in missing):
        return 2
    return 1 if missing else 0


def idle_looks(looks: tuple[int, ...], planned: Sequence[PlannedRun]) -> str | None:
    """A line on the planned looks at which no data could pass a test; None if there are none."""
    from emoreg.report.formatting import all_of, count
    from emoreg.report.looks import MOST_ARMS, possible_looks
    from emoreg.study.arms import REGULATED

    arms: dict[tuple[str | None, str], set[tuple[str | None, ...]]] = {}
    for run in planned:
        if run.mode in REGULATED and run.experience == "affect":
            arms.setdefault((run.target, run.backbone), set()).add((run.mode, run.variant, run.stimuli))
    most = max(map(len, arms.values()), default=0)
    if not most:
        return None
    if most > MOST_ARMS:
        return (
            f"With {most} regulated arms on one target no test can pass, whatever the results and the seeds: plan at "
            f"most {MOST_ARMS}."
        )
    possible = possible_looks(looks, most)
    if not (idle := [look for look in looks if look not in possible]):
        return None
    seeds = all_of([*map(str, idle[:-1]), count(idle[-1], "seed")], "or")
    tests, more = f"test of {most} arms" if most > 1 else "test", "later looks" if possible else "more seeds"
    return f"With {seeds} no {tests} can pass, whatever the results: plan {more}."


def ray_cluster(ray: bool | str, jobs: int, **given: float | None) -> Ray | None:
    """Return the cluster described by --ray, --gpus-per-run and --cpus-per-run; None without --ray."""
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

"""Run the trials of a sweep, by the same pools as a study, and find the best one by validation images."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.read_recipe import recipe_yaml
from emoreg.config.recipe import TrainRecipe
from emoreg.config.training import Precision
from emoreg.errors import UserError, nearest
from emoreg.runs.inputs import changes
from emoreg.runtime.lock import hold_new
from emoreg.runtime.main_module import require_guard
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_atomically, writing
from emoreg.stages.inputs import inputs_of
from emoreg.study.columns import RunStatus
from emoreg.study.machine import Machine, resolved
from emoreg.study.missing_sets import refuse_missing
from emoreg.study.plan import Folders, PlannedRun, run_id, run_name
from emoreg.study.run_one import RunOutcome
from emoreg.study.run_study import RUNS, make_pool, require_own_process
from emoreg.study.scheduler import execute, left_to_do
from emoreg.study.sweep_file import Sweep, Trial

if TYPE_CHECKING:
    from emoreg.study.ray_pool import Ray

TRIALS, BEST = "trials.csv", "best.yaml"
LOWER_IS_BETTER = ("loss",)


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    Args:
        trial: the trial.
        runs: its runs, by seed.
        score: mean of the metric over its runs, on validation images; None unless all are finished and have it.
        error: error of the first run that failed, or else of the first that diverged; None without either.
        has_diverged: whether a run diverged and none failed, which counts as a result.
    """

    trial: Trial
    runs: tuple[PlannedRun, ...]
    score: float | None
    error: str | None
    has_diverged: bool = False


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep so far.

    Args:
        metric: the metric that decides.
        results: by trial, in their order.
    """

    metric: str
    results: tuple[TrialResult, ...]

    @property
    def best(self) -> TrialResult | None:
        """The trial with the best score; None if no trial has one."""
        return next((each for each in in_order(self) if each.score is not None), None)


def run_sweep(
    sweep: Sweep, out: Path, jobs: int = 1, progress: Progress | None = None, ray: Ray | None = None
) -> SweepResult:
    """Do all remaining runs of a sweep; write trials.csv, and the best recipe as best.yaml.

    To resume a sweep that was stopped, even killed, or to continue with more trials, call this again: no run is ever
    done twice. Runs that fail do not stop the others, and are tried again by the next call; runs that diverge are tried
    again only if their folders are deleted.

    Args:
        sweep: from `read_sweep`.
        out: its folder; runs are in its folder runs.
        jobs: runs at a time, at least 1.
        progress: None for the terminal.
        ray: a cluster for the runs; None for this machine.

    Raises:
        UserError: the folder cannot be written, or another process is using it; runs of the sweep have ended with other
            images or stage-1 weights than are there now; image sets are missing; no run has the metric; torchrun, srun
            or the like has started several processes.
    """
    require_guard()
    require_own_process("a sweep")
    progress = progress or Progress(details=False)
    with hold_new(out, "sweep's folder"), contextlib.closing(make_pool(jobs, progress, ray, isolated=True)) as pool:
        here = pool.machine()
        machine = _started_on(sweep, out, here)
        if machine != here:
            progress.say(f"{out} was started in {machine.precision}, and its remaining runs are trained in it too")
        planned = plan_sweep(sweep, out, machine)
        every = [run for runs in planned for run in runs]
        _refuse_other_inputs(every)
        refuse_missing(left_to_do(every))
        failed = execute(every, out, pool, progress)
        result = _result(sweep, planned, failed)
        _write(out / TRIALS, _table(sweep, result))
        _require_metric(result)
        if result.best is not None:
            _write(out / BEST, recipe_yaml(result.best.trial.chosen))
    return result


def _started_on(sweep: Sweep, out: Path, here: Machine) -> Machine:
    """This machine, with the precision of runs that the sweep's folder already has on such a device."""
    other: Precision = "bf16-mixed" if here.precision == "32-true" else "32-true"
    for machine in (here, replace(here, precision=other)):
        if any(run.run.has_begun for runs in plan_sweep(sweep, out, machine) for run in runs):
            return machine
    return here


def plan_sweep(sweep: Sweep, out: Path, machine: Machine) -> list[tuple[PlannedRun, ...]]:
    """Plan the runs of each trial. Their ids are hashes of their recipes, so that further trials repeat no run."""
    folders = Folders(out / RUNS)  # by id: names depend on the settings that differ between trials
    return [
        tuple(_planned(trial, seed, folders, machine, sweep.keys) for seed in range(len(trial.recipes)))
        for trial in sweep.trials
    ]


def _planned(trial: Trial, seed: int, folders: Folders, machine: Machine, keys: Sequence[str]) -> PlannedRun:
    recipe = resolved(trial.recipes[seed], machine)
    id_ = run_id(recipe)
    values = "-".join(f"{key.rpartition('.')[2]}-{trial.values[key]}" for key in keys)
    name = run_name(values[:80], seed)
    return PlannedRun(
        *(id_, name, folders.of(name, id_), recipe, None),
        mode=recipe.regulation.mode if isinstance(recipe, TrainRecipe) else None,
        experience=None,
        variant=None,
        stimuli=None,
        target=recipe.target.name if isinstance(recipe, TrainRecipe) else None,
        backbone=recipe.backbone.name,
        seed=seed,
        content_id=id_,
        path_id=id_,
    )


def _refuse_other_inputs(planned: Sequence[PlannedRun]) -> None:
    """Raise UserError if runs have ended with other images or stage-1 weights than are at the same paths now.

    The ids of trials have these paths, so that trials of both would be ranked together.
    """
    for run in planned:
        if run.run.has_ended:
            _, lines = changes(run.recipe, run.recipe, run.run.inputs, inputs_of(run.recipe))
            if lines:
                raise UserError(
                    f"{run.folder} was trained from something else ({'; '.join(lines)}), and trials are compared on "
                    "the same: restore that, or choose another folder (--out)"
                )


def _result(sweep: Sweep, planned: Sequence[tuple[PlannedRun, ...]], failed: Mapping[str, RunOutcome]) -> SweepResult:
    metric = sweep.file.metric or _usual_metric(planned)
    results: list[TrialResult] = []
    for trial, runs in zip(sweep.trials, planned, strict=True):
        lost = sorted((failed[run.id] for run in runs if run.id in failed), key=_has_diverged)
        score = None
        if all(run.run.is_finished for run in runs):
            mean = statistics.fmean(float(_measured(run).get(metric, math.nan)) for run in runs)
            score = None if math.isnan(mean) else mean
        error, has_diverged = (lost[0].error, _has_diverged(lost[0])) if lost else (None, False)
        results.append(TrialResult(trial, runs, score, error, has_diverged))
    return SweepResult(metric, tuple(results))


def _usual_metric(planned: Sequence[tuple[PlannedRun, ...]]) -> str:
    """The metric that decides unless the file names one: that of the task of the finished runs."""
    measured = (_measured(run) for runs in planned for run in runs if run.run.is_finished)
    return next((each.name for metrics in measured for each in OUTCOMES.values() if each.name in metrics), "accuracy")


def _has_diverged(outcome: RunOutcome) -> bool:
    return outcome.status is RunStatus.DIVERGED


def _measured(run: PlannedRun) -> Mapping[str, Any]:
    """The metrics of a finished run on its validation images; none without such images."""
    return run.run.final.get("validation") or {}


def _require_metric(result: SweepResult) -> None:
    """Raise UserError if runs are finished, and none has the metric."""
    finished = [_measured(run) for each in result.results for run in each.runs if run.run.is_finished]
    if finished and not any(result.metric in each for each in finished):
        numbers = [name for name, value in finished[0].items() if isinstance(value, int | float)]
        hint = nearest(result.metric, numbers) if numbers else ": they have no validation images"
        raise UserError(f"metric: no run has {result.metric} on validation images{hint}")


def _table(sweep: Sweep, result: SweepResult) -> str:
    """All trials as CSV, the best first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *sweep.keys, f"validation_{result.metric}", "runs", "seconds", "error"])
    for each in in_order(result):
        finished = [run for run in each.runs if run.run.is_finished]
        seconds = sum(run.run.final.get("seconds") or 0.0 for run in finished)
        tried = (each.trial.values[key] for key in sweep.keys)
        values = (json.dumps(value) if isinstance(value, list | dict) else value for value in tried)
        score = "" if each.score is None else f"{each.score:.6g}"
        writer.writerow([each.trial.number, *values, score, len(finished), f"{seconds:.1f}", each.error or ""])
    return text.getvalue()


def in_order(result: SweepResult) -> list[TrialResult]:
    """Sort all trials, the best first; those without a score last."""
    sign = 1 if result.metric in LOWER_IS_BETTER else -1
    return sorted(result.results, key=lambda each: math.inf if each.score is None else sign * each.score)


def _write(path: Path, text: str) -> None:
    with writing(path):
        write_atomically(path, text.encode("utf-8", "backslashreplace"))

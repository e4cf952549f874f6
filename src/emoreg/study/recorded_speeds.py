"""Speeds that earlier runs on this machine recorded, which need not be timed again."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from emoreg.config.recipe import Recipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.provenance import environment
from emoreg.runs.run import METRICS, Run
from emoreg.study.kinds_of_run import kind_of

SAME = ("packages", "python", "platform", "cpu", "cores", "threads", "gpu")  # keys of environment.json that must match
MIN_SECONDS = 5.0  # of training after the first epoch, which includes work that is done only once
MAX_FOLDERS = 200  # the newest: reading one takes 10 ms


def run_folders(folders: Iterable[Path]) -> list[Path]:
    """Find the folders of runs with metrics, the newest first.

    Args:
        folders: folders of runs, and of studies.
    """
    times: dict[Path, float] = {}
    for folder in folders:
        for pattern in (f"*/{METRICS}", f"runs/*/{METRICS}", f"*/runs/*/{METRICS}"):
            for metrics in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    times[metrics.parent.resolve()] = metrics.stat().st_mtime
    return sorted(times, key=lambda run: times[run], reverse=True)[:MAX_FOLDERS]


def recorded_speeds(runs: Iterable[Path], wanted: Set[TrainRecipe]) -> dict[TrainRecipe, float]:
    """Seconds of a training step, divided by its images, of the kinds that a run on such a machine has recorded.

    Args:
        runs: run folders; the first one of a kind counts.
        wanted: kinds, from `kind_of`.
    """
    here, speeds = environment(), dict[TrainRecipe, float]()
    for folder in runs:
        if len(speeds) == len(wanted):
            break
        with contextlib.suppress(UserError):  # damaged runs are ignored
            run = Run(folder)
            seconds = _seconds_per_image(run) if _is_from(here, run) else None
            if seconds is not None and (kind := kind_of(_as_trained(run))) in wanted:
                speeds.setdefault(kind, seconds)
    return speeds


def _is_from(here: Mapping[str, Any], run: Run) -> bool:
    """Return whether all of a run was done on a machine and with software like these, in one process."""
    sessions = run.environment
    return bool(sessions) and all(
        session.get("processes") == 1 and all(session.get(key) == here.get(key) for key in SAME) for session in sessions
    )


def _as_trained(run: Run) -> Recipe:
    """The recipe of a run, with the precision that `auto` stood for."""
    recipe = run.recipe
    if run.precision is None:
        return recipe
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, precision=run.precision))


def _seconds_per_image(run: Run) -> float | None:
    """The median over the epochs after the first; None if these are too short."""
    metrics = run.metrics
    if not {"seconds", "images_per_second"} <= set(metrics):
        return None
    epochs = zip(metrics["seconds"], metrics["images_per_second"], strict=True)
    later = [each for each in epochs if all(each)][1:]
    if sum(seconds for seconds, _ in later) < MIN_SECONDS:
        return None
    return statistics.median(1 / speed for _, speed in later)

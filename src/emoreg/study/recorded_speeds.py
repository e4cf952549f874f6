"""Speeds that runs on this machine have had: what was trained already need not be timed."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from emoreg.config.recipe import Recipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.provenance import environment
from emoreg.runs.run import METRICS, Run
from emoreg.study.kinds_of_run import kind_of

SAME = ("packages", "python", "platform", "cpu", "cores", "threads", "gpu")  # of environment.json
ENOUGH = 5.0  # seconds of training after the first epoch, in which much is done once
LOOKED_AT = 200  # run folders at most, the newest: reading one takes 10 ms


def run_folders(folders: Iterable[Path]) -> list[Path]:
    """Folders of runs that have metrics, the newest first.

    Args:
        folders: of run folders, and of studies.
    """
    found: dict[Path, float] = {}
    for folder in folders:
        for pattern in (f"*/{METRICS}", f"runs/*/{METRICS}", f"*/runs/*/{METRICS}"):
            for metrics in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    found[metrics.parent.resolve()] = metrics.stat().st_mtime
    return sorted(found, key=lambda run: found[run], reverse=True)[:LOOKED_AT]


def recorded_speeds(runs: Iterable[Path], wanted: Set[TrainRecipe]) -> dict[TrainRecipe, float]:
    """Seconds of a training step, divided by its images, of the kinds of which there is a run from such a machine.

    Args:
        runs: run folders; the first one of a kind counts.
        wanted: kinds, from `kind_of`.
    """
    here, found = environment(), dict[TrainRecipe, float]()
    for folder in runs:
        if len(found) == len(wanted):
            break
        with contextlib.suppress(UserError):  # a damaged run tells nothing
            run = Run(folder)
            seconds = _seconds_per_image(run) if _is_from(here, run) else None
            if seconds is not None and (kind := kind_of(_as_trained(run))) in wanted:
                found.setdefault(kind, seconds)
    return found


def _is_from(here: Mapping[str, Any], run: Run) -> bool:
    """Whether a machine like this one, with the same software, has done all of a run, in one process."""
    sessions = run.environment
    return bool(sessions) and all(
        session.get("processes") == 1 and all(session.get(key) == here.get(key) for key in SAME) for session in sessions
    )


def _as_trained(run: Run) -> Recipe:
    """Its recipe, with the precision that `auto` stood for."""
    recipe = run.recipe
    if run.precision is None:
        return recipe
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, precision=run.precision))


def _seconds_per_image(run: Run) -> float | None:
    """The median over the epochs but the first; None if these are too short to tell."""
    later = list(_epochs(run))[1:]
    if sum(seconds for seconds, _ in later) < ENOUGH:
        return None
    return statistics.median(1 / speed for _, speed in later)


def _epochs(run: Run) -> Iterator[tuple[float, float]]:
    """Seconds and images per second of each epoch."""
    metrics = run.metrics
    if {"seconds", "images_per_second"} <= set(metrics):
        yield from (each for each in zip(metrics["seconds"], metrics["images_per_second"], strict=True) if all(each))

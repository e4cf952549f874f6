"""Estimate how long runs take on this machine, from a few timed steps of every kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from emoreg.config.recipe import Recipe, TrainRecipe
from emoreg.data.images.batches import steps_per_epoch
from emoreg.runs.provenance import environment
from emoreg.runtime.cores import allowed_cores, usable_cores
from emoreg.runtime.progress import Progress
from emoreg.stages.run_metrics import TRAINING_IMAGES
from emoreg.study.calibrate import seconds_per_image
from emoreg.study.image_counts import CountedSets, Counts
from emoreg.study.kinds_of_run import is_large, kind_of, networks_of
from emoreg.study.recorded_speeds import recorded_speeds, run_folders
from emoreg.training.fabric import is_available

# Time to score an image, as a share of a training step on it: 0.27 to 0.35 (ResNet-20, ResNet-18, ResNet-50, ViT-Tiny
# and ViT-Small in batches of 32 on one core of an AMD EPYC). The backward pass has twice the arithmetic of the forward.
FORWARD = 0.3
BUSY = 0.5  # processes per core above which timed steps must have waited for others


@dataclass(frozen=True)
class Costs:
    """The result of `estimate`.

    Args:
        seconds: duration of each run alone, by its key; without runs that cannot be estimated here.
        timed: number of kinds of training step that were timed.
        recorded: number of kinds whose speed was recorded by earlier runs on such a machine.
        machine: description, such as "AMD EPYC 7763, 2 cores"; "" if nothing can be timed.
        waiting: processes that ran or waited for a core, on average, in the minute before the timing; None if the
            system does not report it.
        cores: number of cores that they shared.
    """

    seconds: Mapping[str, float]
    timed: int = 0
    recorded: int = 0
    machine: str = ""
    waiting: float | None = None
    cores: int = 1

    @property
    def sources(self) -> str:
        """The sources of the estimates, in a line."""
        parts = []
        if self.recorded:
            parts.append(f"the speed that runs have recorded on this machine for {_kinds(self.recorded)}")
        if self.timed:
            parts.append(f"steps on random images, timed now, for {_kinds(self.timed)}")
        return (
            f"estimated from {' and '.join(parts)}; decoding and start-up are not in it; a set that is not here counts "
            f"with its published number of images{self._busy}"
        )

    @property
    def _busy(self) -> str:
        """A warning that other work has slowed down the timing; "" if it has not."""
        if not self.timed or self.waiting is None or self.waiting <= BUSY * self.cores:
            return ""
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return f". The machine was busy, with {self.waiting:.1f} processes on {cores}: left alone it is faster"


def estimate(
    recipes: Mapping[str, Recipe],
    counted: CountedSets,
    progress: Progress,
    jobs: int = 1,
    folders: Sequence[Path] = (),
) -> Costs:
    """Estimate the duration of runs from the speed of each kind of step, recorded by earlier runs or timed now.

    Runs for a kind of device that does not exist here are left out, and runs whose images could not be counted.

    Args:
        recipes: of the runs, by any key.
        counted: from `count_images`.
        progress: shows how many kinds are timed.
        jobs: runs at a time; each has its share of the cores.
        folders: folders of runs and studies that may have recorded their speed.

    Raises:
        UserError: a run cannot be trained, see `training.diagnostics`.
    """
    counts = {key: counted.of(recipe) for key, recipe in recipes.items() if _has_device(recipe)}
    known = {key: count for key, count in counts.items() if count is not None}
    kinds = {key: kind_of(recipes[key]) for key in known}
    threads, waiting = torch.get_num_threads(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    torch.set_num_threads(_threads(jobs))
    try:
        recorded = recorded_speeds(run_folders(folders), set(kinds.values()))
        missing = dict.fromkeys(kind for kind in kinds.values() if kind not in recorded)
        timed = _time(dict.fromkeys(part for kind in missing for part in _parts(kind)), progress)
    finally:
        torch.set_num_threads(threads)
    speeds = recorded | {kind: sum(timed[part] for part in _parts(kind)) for kind in missing}
    seconds = {key: seconds_of(recipes[key], count, speeds[kinds[key]]) for key, count in known.items()}
    return Costs(seconds, len(timed), len(recorded), _machine(kinds.values(), jobs), waiting, allowed_cores())


def _time(kinds: Iterable[TrainRecipe], progress: Progress) -> dict[TrainRecipe, float]:
    kinds, speeds = list(kinds), {}
    with progress.task("time", len(kinds), "kinds of step") as advance:
        for kind in kinds:
            speeds[kind] = seconds_per_image(kind)
            advance(1)
    return speeds


def _parts(kind: TrainRecipe) -> tuple[TrainRecipe, ...]:
    """The kinds to time for a kind. On a CPU, where their steps take seconds, large networks are timed once each."""
    return networks_of(kind) if kind.training.device == "cpu" and is_large(kind) else (kind,)


def seconds_of(recipe: Recipe, counts: Counts, per_image: float) -> float:
    """The duration of a run in seconds.

    Args:
        recipe: of the run.
        counts: of its images.
        per_image: seconds of a training step, divided by its images.
    """
    train, held_out, test = counts
    training, forward = recipe.training, FORWARD * per_image
    batch_size = min(training.batch_size, train)
    images = steps_per_epoch(train, training.batch_size) * batch_size
    at_the_end = held_out + test
    if not isinstance(recipe, TrainRecipe):
        at_the_end += train
    elif recipe.has_two_responses:
        at_the_end += min(train, TRAINING_IMAGES)
    return training.epochs * (images * per_image + held_out * forward) + at_the_end * forward


def _has_device(recipe: Recipe) -> bool:
    device = recipe.training.device
    return device == "auto" or is_available(device)


def _threads(jobs: int) -> int:
    return max(1, min(torch.get_num_threads(), usable_cores()) // jobs)


def _machine(kinds: Iterable[TrainRecipe], jobs: int) -> str:
    """Describe the devices of this machine that the kinds use, with the precisions."""
    here, parts = environment(), []
    threads, per_run = _threads(jobs), " a run" if jobs > 1 else ""
    for device, precision in dict.fromkeys((kind.training.device, kind.training.precision) for kind in kinds):
        name = here["gpu"] if device == "cuda" else here["cpu"]
        if device == "cpu":
            name = f"{name}, {threads} core{'s' if threads > 1 else ''}{per_run}"
        parts.append(f"{name}, {precision}")
    return " and ".join(parts)


def _kinds(count: int) -> str:
    return f"{count:,} kind{'s' if count > 1 else ''} of step"

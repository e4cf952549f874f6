"""Doing the runs of a plan on a Ray cluster: on several machines, or several on a GPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import Done, blocked, perform

TRIES = 3  # after a worker has died: killed, out of memory, its machine gone
LOCAL = "local"  # in place of an address: a cluster of this machine alone, for this study


@dataclass(frozen=True)
class Ray:
    """Which cluster, and how much of it a run gets."""

    address: str = LOCAL
    """As ray.init takes it: auto (found by Ray, from one of its machines), HOST:PORT or ray://HOST:PORT."""
    gpus_per_run: float | None = None
    """May be a part of one: 0.25 puts four runs on a GPU. None for one where the cluster has any, else none."""
    cpus_per_run: int = 1
    """Cores, which are also a run's threads."""

    def __post_init__(self) -> None:
        if self.gpus_per_run is not None and not 0 <= self.gpus_per_run < float("inf"):
            raise UserError(f"--gpus-per-run is {self.gpus_per_run}; it must be a number, not negative")
        if self.cpus_per_run < 1:
            raise UserError(f"--cpus-per-run is {self.cpus_per_run}; it must be at least 1")


def on_ray(
    waiting: Sequence[PlannedRun], finished: set[str], progress: Progress, cluster: Ray
) -> Generator[Done, None, None]:
    """Do runs as the cluster has room for them, each after the one that it needs.

    A run whose worker dies is begun again on another one, from its checkpoint: its folder has to be one that all
    machines share, under the same path, as have the images.

    Args:
        waiting: what is to be done.
        finished: ids of runs that are done.
        progress: told of what the cluster offers.
        cluster: where.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or it has not as much as a run is to get.
    """
    ray = _connect(cluster)
    try:
        gpus = _gpus_per_run(ray.cluster_resources(), cluster, progress)
        task = ray.remote(num_cpus=cluster.cpus_per_run, num_gpus=gpus, max_retries=TRIES)(_do)
        todo, failed = list(waiting), set[str]()
        running: dict[Any, PlannedRun] = {}
        while todo or running:
            for run in [run for run in todo if run.needs in failed]:
                todo.remove(run)
                yield blocked(run)
            for run in [run for run in todo if run.needs is None or run.needs in finished]:
                todo.remove(run)
                running[task.remote(run, str(Path.cwd()), cluster.cpus_per_run)] = run
            ended, _ = ray.wait(list(running), num_returns=1, timeout=1.0) if running else ([], None)
            for reference in ended:
                run, end = running.pop(reference), _outcome(ray, reference)
                (finished if end[0] is None else failed).add(run.id)
                yield run, *end
    finally:
        ray.shutdown()  # and with it the runs that are under way; they go on from their checkpoints


def _connect(cluster: Ray) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray, which is not installed: pip install 'emoreg[ray]'") from None
    options = {"include_dashboard": False} if cluster.address == LOCAL else {}
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"--ray {cluster.address}: no Ray cluster answers there ({reason})") from None
    return ray


def _gpus_per_run(offered: dict[str, float], cluster: Ray, progress: Progress) -> float:
    there = {"GPU": offered.get("GPU", 0.0), "CPU": offered.get("CPU", 0.0)}
    gpus = min(there["GPU"], 1.0) if cluster.gpus_per_run is None else cluster.gpus_per_run
    for option, kind, wanted in (("gpus", "GPU", gpus), ("cpus", "CPU", float(cluster.cpus_per_run))):
        if wanted > there[kind]:
            raise UserError(f"--{option}-per-run is {wanted:g}, but the cluster has {there[kind]:g} {kind}s in all")
    progress.say(
        f"Ray: {there['CPU']:g} CPUs and {there['GPU']:g} GPUs; a run gets {cluster.cpus_per_run} and {gpus:g}"
    )
    return gpus


def _do(run: PlannedRun, folder: str, threads: int) -> tuple[str | None, str]:
    """In a worker: a run, told as `perform` tells it. `folder` is what its paths are relative to."""
    import torch

    try:
        os.chdir(folder)
    except OSError:
        return f"{platform.node()} has no folder {folder}: a study on Ray needs one that all machines share", ""
    torch.set_num_threads(threads)
    return perform(run, Progress(quiet=True))


def _outcome(ray: Any, reference: Any) -> tuple[str | None, str]:
    try:
        error, trace = ray.get(reference)
    except ray.exceptions.RayError as death:
        reason = next(iter(str(death).strip().splitlines()), "")
        return f"its worker died, {TRIES + 1} times ({type(death).__name__}: {reason})", str(death)
    return error, trace

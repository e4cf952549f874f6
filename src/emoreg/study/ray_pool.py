"""Does the runs of a plan on a Ray cluster: on several machines, or several on a GPU."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from emoreg.errors import UserError
from emoreg.runtime.cores import allowed_cores, take_part, usable_cores
from emoreg.runtime.optional import importing
from emoreg.runtime.progress import Progress
from emoreg.study.columns import RunStatus
from emoreg.study.machine import Machine, this_machine
from emoreg.study.run_one import Job, RunOutcome, perform

TRIES = 3  # further ones after a worker has died: killed, out of memory, its machine gone
LOCAL = "local"  # instead of an address: a cluster of this machine alone, for this study


@dataclass(frozen=True)
class Ray:
    """Which cluster, and how much of it a run gets."""

    address: str = LOCAL
    """As for ray.init: auto (on a machine of the cluster), HOST:PORT or ray://HOST:PORT; local for a new one here."""
    gpus_per_run: float | None = None
    """May be a fraction: 0.25 puts four runs on a GPU. None for one if the cluster has any."""
    cpus_per_run: int = 1
    """Cores, and threads, of a run; no more threads than OMP_NUM_THREADS where that is set."""

    def __post_init__(self) -> None:
        if self.gpus_per_run is not None and not 0 <= self.gpus_per_run < float("inf"):
            raise UserError(f"--gpus-per-run is {self.gpus_per_run}; it must be a number, not negative")
        if self.cpus_per_run < 1:
            raise UserError(f"--cpus-per-run is {self.cpus_per_run}; it must be at least 1")


class RayPool:
    """A pool on a Ray cluster, which queues the runs that it has no room for.

    A run whose worker dies is begun again by another one, from its checkpoint. So all machines must share its folder
    and the images, under the same paths.

    Args:
        cluster: which, and what of it a run gets.
        progress: shows what the cluster offers.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or it is smaller than what a run gets.
    """

    size = sys.maxsize

    def __init__(self, cluster: Ray, progress: Progress) -> None:
        self.ray, self.cluster = _connect(cluster), cluster
        self.running: dict[Any, Job] = {}
        try:
            gpus = _gpus_per_run(self.ray.cluster_resources(), cluster, progress)
        except UserError:
            self.close()
            raise
        options = {"num_cpus": cluster.cpus_per_run, "num_gpus": gpus, "max_retries": TRIES}
        self.task, self.ask = (self.ray.remote(**options)(function) for function in (_do, this_machine.__wrapped__))

    def start(self, run: Job) -> None:
        """Hand a run to Ray."""
        self.running[self.task.remote(run, str(Path.cwd()), self.cluster.cpus_per_run)] = run

    def wait(self) -> list[RunOutcome]:
        """Wait for a run to end, for a second at most."""
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
        return [self._outcome(reference, self.running.pop(reference)) for reference in ended]

    def machine(self) -> Machine:
        """That of a worker with what a run gets: a cluster is taken to be of one kind."""
        try:
            found: Machine = self.ray.get(self.ask.remote())
        except self.ray.exceptions.RayError as death:
            raise UserError(f"--ray {self.cluster.address}: no worker can start there ({_first_line(death)})") from None
        return found

    def close(self) -> None:
        """Leave the cluster, which ends the runs that are under way."""
        self.ray.shutdown()

    def _outcome(self, reference: Any, run: Job) -> RunOutcome:
        try:
            outcome: RunOutcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as death:
            error = f"its worker died, {TRIES + 1} times ({type(death).__name__}: {_first_line(death)})"
            return RunOutcome(run, RunStatus.FAILED, error, str(death))
        return outcome


def _connect(cluster: Ray) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with importing("ray", "--ray", "'emoreg[ray]'"):
        import ray
    options: dict[str, Any] = {}
    if cluster.address == LOCAL:
        options = {"include_dashboard": False, "num_cpus": allowed_cores()}
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--ray {cluster.address}: no Ray cluster answers there ({_first_line(error)})") from None
    return ray


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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


def _do(run: Job, folder: str, threads: int) -> RunOutcome:
    """Do a run in a worker. Its paths are relative to `folder`."""
    import torch

    try:
        os.chdir(folder)
    except OSError:
        error = f"{platform.node()} has no folder {folder}: a study on Ray needs one that all machines share"
        return RunOutcome(run, RunStatus.FAILED, error)
    take_part(min(Fraction(threads, allowed_cores()), Fraction(1)))
    torch.set_num_threads(min(threads, usable_cores()))
    return perform(run, Progress(quiet=True))

"""Do the jobs of a plan on a Ray cluster: on several machines, or several on a GPU."""

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
from emoreg.study.reports import Forwarding, Line, Notes
from emoreg.study.run_one import Job, RunOutcome, perform

RETRIES = 3  # after a worker has died: killed, out of memory, or its machine lost
LOCAL = "local"  # instead of an address: a new cluster on this machine, for this study


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, and the resources of a run."""

    address: str = LOCAL
    """As for ray.init: auto (on a machine of the cluster), HOST:PORT or ray://HOST:PORT; local for a new one here."""
    gpus_per_run: float | None = None
    """GPUs per run, possibly a fraction: 0.25 puts four runs on a GPU. None for one if the cluster has any."""
    cpus_per_run: int = 1
    """Cores and threads per run; at most OMP_NUM_THREADS threads if that is set."""

    def __post_init__(self) -> None:
        if self.gpus_per_run is not None and not 0 <= self.gpus_per_run < float("inf"):
            raise UserError(f"--gpus-per-run is {self.gpus_per_run}; it must be a number, not negative")
        if self.cpus_per_run < 1:
            raise UserError(f"--cpus-per-run is {self.cpus_per_run}; it must be at least 1")


class RayPool:
    """A pool on a Ray cluster, which queues the jobs that it has no room for.

    If a worker dies, another one resumes its run from the checkpoint. So all machines must share the run folders and
    the images, under the same paths.

    Args:
        cluster: the cluster, and the resources of a run.
        progress: shows the resources of the cluster, and what each run has reported when it ends.

    Raises:
        UserError: Ray is not installed, the cluster does not respond, or it has fewer resources than a run needs.
    """

    size = sys.maxsize

    def __init__(self, cluster: Ray, progress: Progress) -> None:
        self.ray, self.cluster, self.progress = _connect(cluster), cluster, progress
        self.running: dict[Any, Job] = {}
        try:
            gpus = _gpus_per_run(self.ray.cluster_resources(), cluster, progress)
        except UserError:
            self.close()
            raise
        options = {"num_cpus": cluster.cpus_per_run, "num_gpus": gpus, "max_retries": RETRIES}
        self.task, self.ask = (self.ray.remote(**options)(function) for function in (_do, this_machine.__wrapped__))

    def start(self, run: Job) -> None:
        """Submit a job to Ray."""
        self.running[self.task.remote(run, str(Path.cwd()), self.cluster.cpus_per_run)] = run

    def wait(self) -> list[RunOutcome]:
        """Wait for a job to end, for at most a second."""
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
        return [self._outcome(reference, self.running.pop(reference)) for reference in ended]

    def machine(self) -> Machine:
        """Return the machine of a worker with the resources of a run; all workers are assumed to be alike."""
        try:
            machine: Machine = self.ray.get(self.ask.remote())
        except self.ray.exceptions.RayError as death:
            raise UserError(f"--ray {self.cluster.address}: no worker can start there ({_first_line(death)})") from None
        return machine

    def close(self) -> None:
        """Leave the cluster, which ends all running jobs."""
        self.ray.shutdown()

    def _outcome(self, reference: Any, run: Job) -> RunOutcome:
        try:
            outcome: RunOutcome
            reports: list[Line | Notes]
            outcome, reports = self.ray.get(reference)
        except self.ray.exceptions.RayError as death:
            error = f"its worker died, {RETRIES + 1} times ({type(death).__name__}: {_first_line(death)})"
            return RunOutcome(run, RunStatus.FAILED, error, str(death))
        for report in reports:
            report.show(self.progress)
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
    total_gpus, total_cpus = offered.get("GPU", 0.0), offered.get("CPU", 0.0)
    cpus, gpus = cluster.cpus_per_run, cluster.gpus_per_run
    if gpus is None:
        gpus = min(total_gpus, 1.0)
    if gpus > total_gpus:
        raise UserError(f"--gpus-per-run is {gpus:g}, but the cluster has {total_gpus:g} GPUs in all")
    if cpus > total_cpus:
        raise UserError(f"--cpus-per-run is {cpus}, but the cluster has {total_cpus:g} CPUs in all")
    progress.say(f"Ray: {total_cpus:g} CPUs and {total_gpus:g} GPUs; a run gets {cpus} and {gpus:g}")
    return gpus


def _do(run: Job, folder: str, threads: int) -> tuple[RunOutcome, list[Line | Notes]]:
    """Do a job in a worker; return what it reported with its outcome. Its paths are relative to `folder`."""
    import torch

    try:
        os.chdir(folder)
    except OSError:
        error = f"{platform.node()} has no folder {folder}: a study on Ray needs one that all machines share"
        return RunOutcome(run, RunStatus.FAILED, error), []
    take_part(min(Fraction(threads, allowed_cores()), Fraction(1)))
    torch.set_num_threads(min(threads, usable_cores()))
    reports = list[Line | Notes]()
    return perform(run, Forwarding(reports.append)), reports

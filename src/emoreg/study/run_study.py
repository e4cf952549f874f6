"""A study from its definition to its table of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emoreg.errors import UserError
from emoreg.runtime.lock import hold
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_atomically
from emoreg.study.definition import FILE, TABLE, Study, find_study, is_kept, read_study
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.results import results_of, write_results
from emoreg.study.scheduler import execute, recorded_failures

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
) -> pd.DataFrame:
    """Do all runs of a study that are not done yet, and write their table.

    A study that was stopped, however hard, goes on with the same call. A run that fails is recorded with its error, and
    tried again by the next call.

    Args:
        study: of `read_study`, or made in Python.
        out: the study's folder. results.parquet is written there, and study.yaml, so that the folder stands for the
            study.
        runs: folder of the run folders; None for `out`/runs. Studies that share it share their runs.
        jobs: runs at a time.
        progress: where it is shown; None for the terminal.
        ray: the cluster that does the runs, as many at a time as it has room for; None for this machine.

    Returns:
        The table of `results_of`, those that failed in it.

    Raises:
        UserError: the folder cannot be written, or another process is at it.
    """
    out = Path(out)
    planned = plan_runs(study, Path(runs or out / RUNS))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the study's folder {out}: {error.strerror or error}") from None
    with hold(out):
        if study.values is not None:  # not before it is ours: another process may be at another study there
            _write_study(out / FILE, study.values)
        failures = execute(planned, out, jobs, progress or Progress(details=False), ray)
        table = results_of(planned, failures)
        write_results(out / TABLE, table)
    return table


def _write_study(path: Path, values: Mapping[str, Any]) -> None:
    try:
        write_atomically(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())
    except OSError as error:
        raise UserError(f"cannot write the study's folder {path.parent}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Found:
    """A study that was run, or is running, as it is on disk now."""

    study: Study
    out: Path
    planned: list[PlannedRun]
    failures: Mapping[str, str]

    def table(self) -> pd.DataFrame:
        """Its results so far."""
        return results_of(self.planned, self.failures)


def open_study(
    path: Path | str, out: Path | str | None = None, runs: Path | str | None = None, seeds: int | None = None
) -> Found:
    """A study with what is done of it.

    Args:
        path: its file, or its folder.
        out: its folder, where `path` is its file; None for runs/<name of the file>.
        runs: folder of the run folders; None for the study's own.
        seeds: in place of the file's.

    Raises:
        UserError: no such study.
    """
    file = find_study(path)
    study = read_study(file, seeds)
    folder = Path(out) if out is not None else default_folder(path)
    planned = plan_runs(study, Path(runs or folder / RUNS))
    return Found(study, folder, planned, recorded_failures(planned, folder))


def default_folder(path: Path | str) -> Path:
    """The folder of a study: that which is named, or runs/<name of the file>."""
    path = Path(path)
    return path if path.is_dir() else path.parent if is_kept(path) else Path("runs") / path.stem

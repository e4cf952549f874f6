"""The command that searches for the best settings of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from emoreg.cli.parser import Folder, Quiet, Shown
from emoreg.cli.study import ray_cluster
from emoreg.errors import printable
from emoreg.runtime.progress import Progress
from emoreg.runtime.streams import print_line

if TYPE_CHECKING:
    from emoreg.runtime.terminal import Table
    from emoreg.study.sweep import SweepResult
    from emoreg.study.sweep_file import Sweep

SHOWN = 20  # number of best trials to print; trials.csv has all


def sweep(
    sweep: Annotated[Path, Shown("SWEEP")],
    *,
    out: Folder | None = None,
    jobs: int = 1,
    ray: Annotated[bool | str, Shown("ADDRESS")] = False,
    gpus_per_run: float | None = None,
    cpus_per_run: int | None = None,
    dry_run: bool = False,
    quiet: Quiet = False,
) -> int:
    """Search the settings of a recipe, by grid or at random, for the best values on validation images.

    Writes trials.csv, with every trial, and best.yaml, the best recipe. The test split is never used. Finished runs are
    never repeated: run the same command again to resume, or after raising trials. The exit code is 1 if a run failed;
    diverged runs do not count as failed.

    Args:
        sweep: a YAML file, see docs/study.md
        out: the sweep's folder. Default: runs/<name of the file>
        jobs: parallel runs, on this machine
        ray: run on a Ray cluster: auto or HOST:PORT; without an address, on a new one of this machine only
        gpus_per_run: with --ray; 0.25 puts four runs on a GPU. Default: 1 if the cluster has GPUs
        cpus_per_run: with --ray. Default: 1
        dry_run: print the trials, and stop

    Examples:
        emoreg sweep rates.yaml --dry-run
        emoreg sweep rates.yaml --jobs 2
        emoreg train runs/rates/best.yaml --seed 1    # then score the test split
    """
    cluster = ray_cluster(ray, jobs, gpus_per_run=gpus_per_run, cpus_per_run=cpus_per_run)

    from emoreg.runtime.terminal import show
    from emoreg.study.sweep import BEST, TRIALS, run_sweep
    from emoreg.study.sweep_file import read_sweep

    definition = read_sweep(sweep)
    folder = out or Path("runs") / definition.name
    if dry_run:
        show(_trials_table(definition))
        return 0
    result = run_sweep(definition, folder, jobs, Progress(quiet=quiet, details=False), cluster)
    show(_results_table(definition, result))
    if result.best is not None:
        scored = sum(each.score is not None for each in result.results)
        best = f"best of {scored} by validation {result.metric}: trial {result.best.trial.number}. Its score is biased"
        advice = f"train {folder / BEST} with other seeds for a fair one. All trials: {folder / TRIALS}"
        print(printable(f"{best} by the choice: {advice}"))
    lost = [each for each in result.results if each.error is not None]
    for each in lost:
        print_line(printable(f"emoreg: trial {each.trial.number}: {each.error}"))
    return 0 if all(each.has_diverged for each in lost) else 1


def _trials_table(sweep: Sweep) -> Table:
    from emoreg.runtime.terminal import Table

    runs = sum(len(trial.recipes) for trial in sweep.trials)
    table = Table("trial", *sweep.keys, box=None, header_style="bold", caption=f"{runs} runs", caption_justify="left")
    for trial in sweep.trials:
        table.add_row(str(trial.number), *(str(trial.values[key]) for key in sweep.keys))
    return table


def _results_table(sweep: Sweep, result: SweepResult) -> Table:
    from emoreg.runtime.terminal import Table
    from emoreg.study.sweep import in_order

    table = Table("trial", *sweep.keys, f"validation {result.metric}", box=None, header_style="bold")
    for each in in_order(result)[:SHOWN]:
        if each.score is not None:
            score = f"{each.score:.4f}"
        elif each.has_diverged:
            score = "diverged"
        else:
            score = "failed" if each.error else "–"
        table.add_row(str(each.trial.number), *(str(each.trial.values[key]) for key in sweep.keys), score)
    return table

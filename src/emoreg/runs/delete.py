"""Deletes run folders: only those, only whole, and none that anything needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.catalogue import find_runs
from emoreg.runs.run import (
    CHECKPOINT,
    CONFUSION_PICTURE,
    CONFUSION_TABLE,
    DIVERGED,
    ENVIRONMENT,
    FINAL,
    INPUTS,
    METRICS,
    RECIPE,
    SEEN,
    WEIGHTS,
    Run,
)
from emoreg.runs.tracker_clients import EVENTS
from emoreg.runs.trackers import RECORD
from emoreg.runtime.lock import FolderInUse, hold, is_trace

OF_A_RUN = (RECIPE, INPUTS, ENVIRONMENT, SEEN, METRICS, CHECKPOINT, WEIGHTS, FINAL, DIVERGED, RECORD, EVENTS)
DRAWN = (CONFUSION_TABLE, CONFUSION_PICTURE)  # that `emoreg train` writes beside them
# What Weights & Biases keeps offline; a copy of the stage-1 run, for predict; what was scored in suites.
OF_OTHERS = ("wandb", "experience", "suites")


def check_deletable(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, each of which may be deleted.

    Raises:
        UserError: one is not a run folder, holds anything else, is a link, is being worked on, or is the stage-1 run of
            an unfinished run beside it that is not deleted too.
    """
    runs = list({folder.resolve(): Run(folder) for folder in folders}.values())
    for run in runs:
        if run.folder.is_symlink():
            raise UserError(f"{run.folder} is a link; give the run folder that it leads to")
        if not run.folder.is_dir():
            raise UserError(f"{run.folder} is not a run folder: there is no such folder")
        _ = run.stage  # UserError for what is no run
        others = sorted(path.name for path in run.folder.iterdir() if not _is_own(path))
        if others:
            raise UserError(
                f"{run.folder} holds something that no run has ({', '.join(others[:3])}); move it elsewhere"
            )
        try:
            with hold(run.folder, patience=0.0):
                pass
        except FolderInUse as error:
            raise UserError(f"{run.folder} is being worked on by {error.holder}; stop it first") from None
    for run in runs:
        if run.stage == 1 and (needing := _needing(run, runs)):
            more = f" and {len(needing) - 1} more" if len(needing) > 1 else ""
            raise UserError(f"{run.folder} is needed by {needing[0].folder}{more}, not finished; delete them together")
    return runs


def delete_run(run: Run) -> None:
    """Delete a run folder. It is renamed first, so that one whose deletion is cut off is no run any more.

    Raises:
        UserError: another process works on it, or the folder cannot be deleted.
    """
    folder = run.folder.resolve()
    gone = folder.with_name(f".{folder.name}.deleted-{os.getpid()}")
    try:
        with hold(folder, patience=0.0):
            folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise UserError(f"cannot delete {run.folder}: {error.strerror or error}") from None


def _is_own(path: Path) -> bool:
    return path.name in (*OF_A_RUN, *DRAWN, *OF_OTHERS) or is_trace(path)


def _needing(run: Run, deleted: Sequence[Run]) -> list[Run]:
    """Runs beside a stage-1 run that have not ended, take its encoder, and are not deleted with it."""
    going, folder = {other.folder.resolve() for other in deleted}, run.folder.resolve()
    found = []
    for other in find_runs([folder.parent]):
        if other.folder.resolve() in going or other.has_ended:
            continue
        try:
            recipe = other.recipe
        except UserError:  # a damaged run needs nothing
            continue
        named = recipe.encoder.experience if isinstance(recipe, TrainRecipe) else None
        if named is not None and Path(named).name == folder.name:
            found.append(other)
    return found

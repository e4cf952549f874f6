"""Deletion of run folders: nothing else, only as a whole, and none that another run needs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.catalogue import find_runs
from emoreg.runs.run import FILES, Run
from emoreg.runtime.lock import FolderInUse, hold, is_trace


def check_deletable(folders: Sequence[Path]) -> list[Run]:
    """Return the runs in these folders; raise UserError if one of them may not be deleted.

    That is, if it is not a run folder, contains anything else, is a link, is in use, or is the stage-1 run of an
    unfinished run in the same folder that is not to be deleted.
    """
    runs = list({folder.resolve(): Run(folder) for folder in folders}.values())
    for run in runs:
        _check_folder(run)
    for folder, dependents in _dependents(runs).items():
        more = f" and {len(dependents) - 1} more" if len(dependents) > 1 else ""
        which = f"{dependents[0].folder}{more}"
        raise UserError(f"{folder} is needed by {which}, not finished; delete them together")
    return runs


def _check_folder(run: Run) -> None:
    if run.folder.is_symlink():
        raise UserError(f"{run.folder} is a link; give the run folder that it leads to")
    if not run.folder.is_dir():
        raise UserError(f"{run.folder} is not a run folder: there is no such folder")
    _ = run.stage  # raises UserError if it is not a run
    others = sorted(path.name for path in run.folder.iterdir() if path.name not in FILES and not is_trace(path))
    if others:
        raise UserError(f"{run.folder} holds something that no run has ({', '.join(others[:3])}); move it elsewhere")
    try:
        with hold(run.folder, patience=0.0):
            pass
    except FolderInUse as error:
        raise UserError(f"{run.folder} is being worked on by {error.holder}; stop it first") from None


def delete_run(run: Run) -> None:
    """Delete a run folder. It is renamed first, so that an interrupted deletion does not leave part of a run.

    Raises:
        UserError: another process uses it, or it cannot be deleted.
    """
    folder = run.folder.resolve()
    renamed = folder.with_name(f".{folder.name}.deleted-{os.getpid()}")
    try:
        with contextlib.ExitStack() as lock:
            lock.enter_context(hold(folder, patience=0.0))
            if sys.platform == "win32":
                lock.close()  # Windows renames no folder with an open file: not with our lock's, nor with another's
            folder.rename(renamed)
        shutil.rmtree(renamed)
    except OSError as error:
        raise UserError(f"cannot delete {run.folder}: {error.strerror or error}") from None


def _dependents(deleted: Sequence[Run]) -> dict[Path, list[Run]]:
    """The unfinished runs that use a stage-1 run in their folder and are not to be deleted with it, by its folder."""
    folders = {run.folder.resolve(): run for run in deleted}
    dependents: dict[Path, list[Run]] = {}
    for parent in dict.fromkeys(folder.parent for folder, run in folders.items() if run.stage == 1):
        for other in find_runs([parent]):
            if other.folder.resolve() in folders or other.has_ended:
                continue
            try:
                recipe = other.recipe
            except UserError:  # a damaged run cannot be resumed
                continue
            experience = recipe.encoder.experience if isinstance(recipe, TrainRecipe) else None
            needed = None if experience is None else folders.get(parent / Path(experience).name)
            if needed is not None:
                dependents.setdefault(needed.folder, []).append(other)
    return dependents

"""Tables of run folders, with status, scores and settings."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.loss import APART
from emoreg.config.outcomes import OUTCOMES, TEST, VALIDATION
from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.run import METRICS, RECIPE, Run
from emoreg.runtime.lock import holder

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "recipe."  # prefix of the columns of settings, as in a study's table
FACTS = (
    *("run", "stage", "status", "mode", "data", "backbone", "seed", "epochs"),
    *(*VALIDATION, "train_loss", *TEST, "seconds", "megabytes", "error"),
)


class Status(StrEnum):
    """Status of a run."""

    FINISHED = "finished"
    DIVERGED = "diverged"  # which ends a run too
    RUNNING = "running"  # a process holds its lock
    STOPPED = "stopped"  # it has a checkpoint
    NOT_STARTED = "not started"
    DAMAGED = "damaged"


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Find run folders among folders and their subfolders, sorted by name; hidden folders are skipped.

    Raises:
        UserError: a folder does not exist, or there is no run.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give a run folder, or one that holds run folders")
    paths = list(dict.fromkeys(path for folder in folders for path in _below(folder)))
    if not paths:
        raise UserError(f"no run folder in {', '.join(map(str, folders))}: none has a {RECIPE}")
    return [Run(path) for path in paths]


def _below(folder: Path) -> Iterator[Path]:
    for parent, names, files in os.walk(folder):
        if RECIPE in files:
            names.clear()  # subfolders belong to the run
            yield Path(parent)
        names[:] = sorted(name for name in names if not name.startswith("."))


def catalogue(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a table with a row per run, the columns FACTS, and a column per setting ("recipe.training.epochs").

    The column `error` says why a run diverged, or why it cannot be read, in which case its status is `damaged`.
    """
    import pandas as pd

    rows = [_row(run) for run in runs]
    return pd.DataFrame(rows, columns=list(dict.fromkeys((*FACTS, *(name for row in rows for name in row)))))


def differing_settings(table: pd.DataFrame) -> list[str]:
    """Return the columns of settings in which rows of a catalogue differ, in the table's order."""
    settings = table[[name for name in table if str(name).startswith(SETTINGS)]]
    return [str(name) for name in settings if len({_as_text(value) for value in settings[name]}) > 1]


def damage(table: pd.DataFrame) -> list[str]:
    """Return the errors of the damaged runs of a catalogue."""
    return [str(error) for error in table.loc[table["status"] == Status.DAMAGED, "error"]]


def is_missing(value: Any) -> bool:
    """Whether a cell of a table is empty: None, or NaN, with which pandas may replace it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_text(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"run": str(run.folder), "megabytes": size_of([run.folder]) / 1e6}
    try:
        recipe = run.recipe
        if isinstance(recipe, PretrainRecipe):
            row |= {"stage": 1, "mode": recipe.pretext, "data": recipe.stimuli.name}
        else:
            row |= {"stage": 2, "mode": _mode(run, recipe), "data": recipe.target.name}
        row |= {"status": str(status_of(run)), "backbone": recipe.backbone.name, "seed": recipe.seed}
        row |= {f"{SETTINGS}{key}": value for key, value in flatten(dataclasses.asdict(recipe))}
        if row["status"] == Status.DIVERGED:
            row["error"] = str(run.divergence)
        return row | _scores(run)
    except UserError as error:
        return row | {"status": str(Status.DAMAGED), "error": str(error)}


def _mode(run: Run, recipe: TrainRecipe) -> str:
    """Return the mode as in a study's table, except `wide`, whose recipe is that of a plain backbone."""
    regulation = recipe.regulation
    settings = (regulation.mode, regulation.lam, regulation.mix, recipe.loss_weights)
    if settings != ("fixed", 0.5, "probabilities", APART):
        return regulation.mode
    experience = run.inputs.experience if recipe.backbone.is_own else recipe.encoder.experience
    return "ensemble" if experience is None else "unregulated"  # trained separately, and averaged


def status_of(run: Run) -> Status:
    """Return the status of a run; damage is not detected."""
    if run.has_ended:
        return Status.FINISHED if run.is_finished else Status.DIVERGED
    if holder(run.folder) is not None:
        return Status.RUNNING
    return Status.STOPPED if run.has_begun else Status.NOT_STARTED


def _scores(run: Run) -> dict[str, Any]:
    epochs = len(run.metrics) if (run.folder / METRICS).exists() else 0
    scores: dict[str, Any] = {"epochs": epochs, "train_loss": run.last_loss}
    if run.is_finished:
        final = run.final
        for split in ("validation", "test"):
            metrics = final.get(split) or {}
            scores |= {f"{split}_{outcome.name}": metrics.get(outcome.name) for outcome in OUTCOMES.values()}
        scores["seconds"] = final.get("seconds")
    return scores


def size_of(folders: Sequence[Path]) -> int:
    """Return the total size in bytes of all files in folders and subfolders; links are not followed."""
    size = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # a running run renames its partial files
                    size += Path(parent, name).lstat().st_size
    return size

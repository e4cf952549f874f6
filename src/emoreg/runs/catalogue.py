"""Run folders below a folder, as a table: what each is, how far it is, its scores and its settings."""

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
from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.run import METRICS, RECIPE, Run
from emoreg.runtime.lock import holder

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "recipe."  # before a setting, as in a study's table
FACTS = (
    "run",
    "stage",
    "status",
    "mode",
    "data",
    "backbone",
    "seed",
    "epochs",
    "validation_accuracy",
    "validation_mean_average_precision",
    "validation_ccc",
    "train_loss",
    "test_accuracy",
    "test_mean_average_precision",
    "test_ccc",
    "seconds",
    "megabytes",
    "error",
)


class Status(StrEnum):
    """How far a run is."""

    FINISHED = "finished"
    DIVERGED = "diverged"  # it has ended too
    RUNNING = "running"  # a process holds its lock
    STOPPED = "stopped"  # with a checkpoint
    NOT_BEGUN = "not begun"
    DAMAGED = "damaged"


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The run folders among some folders and below them, in order of name; hidden folders are left out.

    Raises:
        UserError: a folder is not there, or there is no run.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give a run folder, or one that holds run folders")
    found = list(dict.fromkeys(path for folder in folders for path in _below(folder)))
    if not found:
        raise UserError(f"no run folder in {', '.join(map(str, folders))}: none has a {RECIPE}")
    return [Run(path) for path in found]


def _below(folder: Path) -> Iterator[Path]:
    for above, names, files in os.walk(folder):
        if RECIPE in files:
            names.clear()  # what lies in a run belongs to it
            yield Path(above)
        names[:] = sorted(name for name in names if not name.startswith("."))


def catalogue(runs: Sequence[Run]) -> pd.DataFrame:
    """A row per run with the columns FACTS, and a column for every setting, "recipe.training.epochs".

    A run that cannot be read has the status `damaged`, and the reason in the column `error`, as one that diverged has.
    """
    import pandas as pd

    rows = [_row(run) for run in runs]
    return pd.DataFrame(rows, columns=list(dict.fromkeys((*FACTS, *(name for row in rows for name in row)))))


def differing_settings(table: pd.DataFrame) -> list[str]:
    """The columns of settings in which rows of a catalogue differ, in their order."""
    settings = table[[name for name in table if str(name).startswith(SETTINGS)]]
    return [str(name) for name in settings if len({_told(value) for value in settings[name]}) > 1]


def damage(table: pd.DataFrame) -> list[str]:
    """What is wrong with the damaged runs of a catalogue, a line for each."""
    return [str(error) for error in table.loc[table["status"] == Status.DAMAGED, "error"]]


def is_missing(value: Any) -> bool:
    """Whether a cell of a table is empty: None, or NaN, which pandas puts in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _told(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"run": str(run.folder), "megabytes": size_of([run.folder]) / 1e6}
    try:
        recipe = run.recipe
        is_first = isinstance(recipe, PretrainRecipe)
        row |= {
            "stage": 1 if is_first else 2,
            "status": str(status_of(run)),
            "mode": recipe.pretext if isinstance(recipe, PretrainRecipe) else _mode(run, recipe),
            "data": recipe.stimuli.name if isinstance(recipe, PretrainRecipe) else recipe.target.name,
            "backbone": recipe.backbone.name,
            "seed": recipe.seed,
        }
        row |= {f"{SETTINGS}{key}": value for key, value in flatten(dataclasses.asdict(recipe))}
        if row["status"] == Status.DIVERGED:
            row["error"] = str(run.divergence)
        return row | _scores(run)
    except UserError as error:
        return row | {"status": str(Status.DAMAGED), "error": str(error)}


def _mode(run: Run, recipe: TrainRecipe) -> str:
    """As in a study's table, but for `wide`: by its recipe that is a plain backbone like any other."""
    regulation = recipe.regulation
    settings = (regulation.mode, regulation.lam, regulation.mix, recipe.loss_weights)
    if settings != ("fixed", 0.5, "probabilities", APART):
        return regulation.mode
    experience = run.inputs.experience if recipe.backbone.is_own else recipe.encoder.experience
    return "ensemble" if experience is None else "unregulated"  # trained apart, and averaged


def status_of(run: Run) -> Status:
    """How far a run is, which may be damaged all the same."""
    if run.has_ended:
        return Status.FINISHED if run.is_finished else Status.DIVERGED
    if holder(run.folder) is not None:
        return Status.RUNNING
    return Status.STOPPED if run.has_begun else Status.NOT_BEGUN


def _scores(run: Run) -> dict[str, Any]:
    epochs = len(run.metrics) if (run.folder / METRICS).exists() else 0
    found: dict[str, Any] = {"epochs": epochs, "train_loss": run.last_loss}
    if run.is_finished:
        final = run.final
        for name, split, metric in (
            ("validation_accuracy", "validation", "accuracy"),
            ("validation_mean_average_precision", "validation", "mean_average_precision"),
            ("validation_ccc", "validation", "ccc"),
            ("test_accuracy", "test", "accuracy"),
            ("test_mean_average_precision", "test", "mean_average_precision"),
            ("test_ccc", "test", "ccc"),
        ):
            found[name] = (final.get(split) or {}).get(metric)
        found["seconds"] = final.get("seconds")
    return found


def size_of(folders: Sequence[Path]) -> int:
    """Bytes of all files below some folders; of links, of the links."""
    size = 0
    for folder in folders:
        for above, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # a run that goes on renames its partial files
                    size += Path(above, name).lstat().st_size
    return size

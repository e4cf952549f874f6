"""Trackers: where the rows of metrics.csv are shown too, while a run trains. They never change it, nor stop it.

Each is brought up to date with the run's rows and never told one twice, so that a run that was stopped goes on in the
same place there, and what could not be sent is sent later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from emoreg.config.recipe import flatten
from emoreg.config.schema import Recipe, TrackerName, identity
from emoreg.errors import UserError
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_atomically

RECORD = "trackers.json"  # in the run folder: which run of a tracker it is, and how many rows that has
EVENTS = "tensorboard"  # in the run folder
PROJECT = "emoreg"  # MLflow's experiment, W&B's project, unless the environment names one
PAUSE = 120.0  # seconds: a tracker that failed is left alone for so long, as each trial waits for its answer
PACKAGES: dict[TrackerName, tuple[str, ...]] = {  # any of them will do
    "tensorboard": ("tensorboardX", "tensorboard"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}

Row = Mapping[str, float]
Track = Callable[[Sequence[Row]], None]


class Tracker(Protocol):
    """One place where a run is shown. What goes wrong there is raised, whatever it is."""

    id: str  # of the run there
    sent: int  # rows that it has

    def log(self, row: Row) -> None:
        """Show the metrics of an epoch."""

    def finish(self, final: Mapping[str, float]) -> None:
        """Show the final metrics: the run is finished."""

    def close(self) -> None:
        """Write what is held back."""


class Trackers:
    """Those of one run.

    Args:
        run: whose rows are sent.
        recipe: what is asked, for the hyperparameters; its training.trackers says which.
        progress: told what goes wrong.

    Raises:
        UserError: one is asked for whose package is not installed.
    """

    def __init__(self, run: Run, recipe: Recipe, progress: Progress) -> None:
        self.names = tuple(dict.fromkeys(recipe.training.trackers))
        for name in self.names:
            _check_installed(name)
        self.run, self.progress = run, progress
        self.settings = dict(flatten(identity(recipe)))
        self.opened: dict[str, Tracker] = {}
        self.failed: dict[str, float] = {}  # when, by name
        self.record = _read_record(run)

    def update(self, rows: Sequence[Row], final: Mapping[str, Any] | None = None) -> None:
        """Bring every tracker up to date.

        Args:
            rows: all of the run so far, one an epoch.
            final: the final metrics, of a run that is finished.
        """
        for name in self.names:
            is_known = self.record.get(name, {}).get("finished", False)
            rests = time.monotonic() - self.failed.get(name, -PAUSE) < PAUSE
            if is_known or (rests and final is None):
                continue
            try:
                self._bring_up_to_date(name, rows, final)
            except Exception as error:  # a server may be away, a disk full, a client may have its own bugs
                self._tell(name, error)
            else:
                self.failed.pop(name, None)

    def send_finished(self) -> None:
        """Send what they do not have yet of a run that is finished; nothing of one that is not."""
        if self.run.is_finished and any(not self.record.get(name, {}).get("finished") for name in self.names):
            rows = [
                {str(key): float(value) for key, value in row.items() if value == value}  # noqa: PLR0124 (not NaN)
                for row in self.run.metrics.to_dict("records")
            ]
            self.update(rows, self.run.final)

    def close(self) -> None:
        """End them all, in this process."""
        for name, tracker in self.opened.items():
            try:
                tracker.close()
            except Exception as error:
                self._tell(name, error)
        self.opened.clear()

    def _bring_up_to_date(self, name: TrackerName, rows: Sequence[Row], final: Mapping[str, Any] | None) -> None:
        known = self.record.get(name, {})
        tracker = self.opened.get(name)
        if tracker is None:
            tracker = self.opened[name] = _open(name, self.run, self.settings, known.get("run"), known.get("rows", 0))
            self._remember(name, tracker, False)
        for row in rows[tracker.sent :]:
            tracker.log(row)
            tracker.sent += 1
        if final is not None:
            tracker.finish(_numbers(final))
        self._remember(name, tracker, final is not None)

    def _remember(self, name: TrackerName, tracker: Tracker, is_finished: bool) -> None:
        self.record[name] = {"run": tracker.id, "rows": tracker.sent, "finished": is_finished}
        content = json.dumps(self.record, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.run.folder / RECORD, content.encode())

    def _tell(self, name: str, error: Exception) -> None:
        if name not in self.failed:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            reason = reason if len(reason) <= 200 else f"{reason[:200]} ..."
            self.progress.say(
                f"{self.run.folder.name}: the tracker {name} fails ({reason}); nothing of the run is lost, and "
                "what is missing there is sent when it answers, or by the same command later"
            )
        self.failed[name] = time.monotonic()


@contextlib.contextmanager
def tracked(run: Run, recipe: Recipe, progress: Progress) -> Iterator[Track]:
    """Within, the given function brings the recipe's trackers up to date with all rows so far.

    At the end a run that is finished is sent as a whole. Arguments as `Trackers`.

    Raises:
        UserError: a tracker is asked for whose package is not installed.
    """
    trackers = Trackers(run, recipe, progress)
    try:
        yield trackers.update
        trackers.send_finished()
    finally:
        trackers.close()


def send_later(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Send a run that was finished before to the trackers that do not have all of it. Arguments as `Trackers`.

    Event files are written while a run trains, and not afterwards: its folder may be of a disk that nothing is
    written to.
    """
    names = tuple(name for name in recipe.training.trackers if name != "tensorboard")
    training = dataclasses.replace(recipe.training, trackers=names)
    trackers = Trackers(run, dataclasses.replace(recipe, training=training), progress)
    try:
        trackers.send_finished()
    finally:
        trackers.close()


def _check_installed(name: TrackerName) -> None:
    if not any(map(importlib.util.find_spec, PACKAGES[name])):
        extra = "tensorboardX" if name == "tensorboard" else f"'emoreg[{name}]'"
        raise UserError(f"training.trackers names {name}, which is not installed: pip install {extra}, or leave it out")


def _read_record(run: Run) -> dict[str, dict[str, Any]]:
    try:
        return {name: dict(known) for name, known in json.loads((run.folder / RECORD).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none, or damaged: at worst it begins anew there
        return {}


def _numbers(final: Mapping[str, Any]) -> dict[str, float]:
    """The final metrics that are numbers, as final/test_accuracy: a name of no column of the rows."""
    return {
        f"final/{key.replace('.', '_')}": float(value)
        for key, value in flatten(final)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _open(name: TrackerName, run: Run, settings: Mapping[str, Any], known: str | None, sent: int) -> Tracker:
    if name == "mlflow":
        return _MLflow(run, settings, known)
    if name == "wandb":
        return _WeightsAndBiases(run, settings, known, sent)
    return _TensorBoard(run, settings)


class _TensorBoard:
    """Event files in the run folder. They are written anew at every start, so that they hold each row once."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        for old in (run.folder / EVENTS).glob("events.out.tfevents.*"):
            old.unlink()
        self.id, self.sent, self.settings = EVENTS, 0, settings
        self.logger = TensorBoardLogger(run.folder, name=EVENTS, version="", default_hp_metric=False)
        lines = [f"    {key}: {value}" for key, value in settings.items()]  # indented: Markdown's plain text
        self.logger.experiment.add_text("recipe", "\n".join(lines))

    def log(self, row: Row) -> None:
        self.logger.log_metrics(dict(row), step=int(row["epoch"]))
        self.logger.save()

    def finish(self, final: Mapping[str, float]) -> None:
        plain = {key: "null" if value is None else value for key, value in self.settings.items()}
        self.logger.log_hyperparams(plain, dict(final), step=0)
        self.logger.save()

    def close(self) -> None:
        self.logger.finalize("")


class _MLflow:
    """A run of an MLflow server, or of whatever MLFLOW_TRACKING_URI names.

    Through MLflow's own client: Lightning's logger is in the package pytorch-lightning, which brings a trainer along.
    """

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None) -> None:
        # MLflow's own patience, seven trials of two minutes, would be the training's.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self.client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self.client.create_experiment(name)
            known = str(self.client.create_run(experiment, run_name=run.folder.name).info.run_id)
        self.id = known
        self.client.log_batch(known, params=[Param(key, str(value)) for key, value in settings.items()])
        self.sent = int(self.client.get_run(known).data.metrics.get("epoch", 0))  # it knows best

    def log(self, row: Row) -> None:
        self._send(row, int(row["epoch"]))

    def finish(self, final: Mapping[str, float]) -> None:
        self._send(final, 0)
        self.client.set_terminated(self.id)

    def close(self) -> None:
        """Nothing is held back."""

    def _send(self, metrics: Row, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])


class _WeightsAndBiases:
    """A run of Weights & Biases, through its own client as `_MLflow`; with WANDB_MODE=offline in the run folder."""

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None, sent: int) -> None:
        import wandb

        is_online = os.environ.get("WANDB_MODE", "online") == "online"
        if is_online and not wandb.login(prompt=False, verify=False):  # else it would ask at the terminal
            raise RuntimeError("no API key: run 'wandb login', or set WANDB_API_KEY or WANDB_MODE=offline")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.folder.name,
            id=known or uuid.uuid4().hex[:8],
            resume="allow",
            dir=run.folder,
            config=dict(settings),
            reinit="create_new",  # several runs of a study in one process
            settings=wandb.Settings(silent=True, init_timeout=20, console="off"),
        )
        self.id = str(self.run.id)
        self.sent = max(sent, self.run.step - 1)  # offline it does not know what was sent before

    def log(self, row: Row) -> None:
        self.run.log(dict(row), step=int(row["epoch"]))

    def finish(self, final: Mapping[str, float]) -> None:
        self.run.summary.update(dict(final))

    def close(self) -> None:
        self.run.finish()

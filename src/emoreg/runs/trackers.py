"""Trackers show the rows of metrics.csv elsewhere while a run trains. They never change the run, and never stop it.

Each tracker receives every row once: a run that resumes continues its record there, and rows that could not be sent
are sent later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from emoreg.config.recipe import flatten
from emoreg.config.schema import Recipe, TrackerName, identity
from emoreg.errors import UserError, shortened
from emoreg.runs.run import Run
from emoreg.runtime.optional import is_installed
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_json

RECORD = "trackers.json"  # in the run folder: by tracker, the id of the run there and how many rows it has
EVENTS = "tensorboard"  # in the run folder
PROJECT = "emoreg"  # MLflow's experiment and W&B's project, unless the environment names another
PAUSE = 120.0  # seconds without another attempt after a failure, as each attempt waits for a timeout
PACKAGES: dict[TrackerName, tuple[str, ...]] = {  # one of them must be installed
    "tensorboard": ("tensorboardX", "tensorboard"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}

Row = Mapping[str, float]
Track = Callable[[Sequence[Row]], None]


class Tracker(Protocol):
    """One place where a run is shown. Any exception means that it could not be reached."""

    id: str  # of the run there
    sent: int  # rows that it has

    def log(self, row: Row) -> None:
        """Show the metrics of an epoch."""

    def finish(self, final: Mapping[str, float]) -> None:
        """Show the final metrics, and mark the run as finished."""

    def close(self) -> None:
        """Flush buffers."""


class Trackers:
    """All trackers of one run.

    Args:
        run: whose rows are sent.
        recipe: training.trackers names the trackers; all settings are sent as hyperparameters.
        progress: reports failures.

    Raises:
        UserError: the package of a tracker is not installed.
    """

    def __init__(self, run: Run, recipe: Recipe, progress: Progress) -> None:
        self.names = tuple(dict.fromkeys(recipe.training.trackers))
        for name in self.names:
            _check_installed(name)
        self.run, self.progress = run, progress
        self.settings = dict(flatten(identity(recipe)))
        self.opened: dict[str, Tracker] = {}
        self.failed_at: dict[str, float] = {}  # time of the last failure, by name
        self.record = _read_record(run)

    def update(self, rows: Sequence[Row], final: Mapping[str, Any] | None = None) -> None:
        """Bring every tracker up to date.

        Args:
            rows: all rows of the run so far, one per epoch.
            final: the final metrics of a finished run.
        """
        for name in self.names:
            is_pausing = time.monotonic() - self.failed_at.get(name, -math.inf) < PAUSE
            if self._has_all(name) or (is_pausing and final is None):
                continue
            try:
                self._bring_up_to_date(name, rows, final)
            except Exception as error:  # a server may be away, a disk full, a client may have its own bugs
                self._report_failure(name, error)
            else:
                self.failed_at.pop(name, None)

    def send_finished(self) -> None:
        """Send the rows and final metrics that trackers do not have yet, if the run is finished."""
        if self.run.is_finished and not all(map(self._has_all, self.names)):
            rows = [
                {str(key): float(value) for key, value in row.items() if not math.isnan(value)}
                for row in self.run.metrics.to_dict("records")
            ]
            self.update(rows, self.run.final)

    def close(self) -> None:
        """Close all trackers in this process."""
        for name, tracker in self.opened.items():
            try:
                tracker.close()
            except Exception as error:
                self._report_failure(name, error)
        self.opened.clear()

    def _has_all(self, name: str) -> bool:
        return bool(self.record.get(name, {}).get("finished"))

    def _bring_up_to_date(self, name: TrackerName, rows: Sequence[Row], final: Mapping[str, Any] | None) -> None:
        tracker = self.opened.get(name)
        if tracker is None:
            known = self.record.get(name, {})
            tracker = self.opened[name] = _open(name, self.run, self.settings, known.get("run"), known.get("rows", 0))
            self._write_record(name, tracker, False)
        for row in rows[tracker.sent :]:
            tracker.log(row)
            tracker.sent += 1
        if final is not None:
            tracker.finish(_numbers(final))
        self._write_record(name, tracker, final is not None)

    def _write_record(self, name: str, tracker: Tracker, is_finished: bool) -> None:
        self.record[name] = {"run": tracker.id, "rows": tracker.sent, "finished": is_finished}
        write_json(self.run.folder / RECORD, self.record)

    def _report_failure(self, name: str, error: Exception) -> None:
        """Print the first of several failures in a row, and note the time."""
        if name not in self.failed_at:
            reason = shortened(f"{type(error).__name__}: {error}", 200)
            self.progress.say(
                f"{self.run.folder.name}: the tracker {name} fails ({reason}); the run itself is not affected, and "
                "missing rows are sent when the tracker answers, or by running the same command again"
            )
        self.failed_at[name] = time.monotonic()


@contextlib.contextmanager
def tracked(run: Run, recipe: Recipe, progress: Progress) -> Iterator[Track]:
    """Within, call the given function with all rows so far to bring the recipe's trackers up to date.

    A run that is finished at the end is sent as a whole. Arguments and errors as for `Trackers`.
    """
    with contextlib.closing(Trackers(run, recipe, progress)) as trackers:
        yield trackers.update
        trackers.send_finished()


def send_later(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Send a run that was finished earlier to the trackers that lack part of it. Arguments as for `Trackers`.

    TensorBoard is left out: its event files are written while a run trains, and the folder of a finished run may be
    read-only.
    """
    names = tuple(name for name in recipe.training.trackers if name != "tensorboard")
    training = dataclasses.replace(recipe.training, trackers=names)
    with contextlib.closing(Trackers(run, dataclasses.replace(recipe, training=training), progress)) as trackers:
        trackers.send_finished()


def _check_installed(name: TrackerName) -> None:
    if not any(map(is_installed, PACKAGES[name])):
        extra = "tensorboardX" if name == "tensorboard" else f"'emoreg[{name}]'"
        raise UserError(f"training.trackers names {name}, which is not installed: pip install {extra}, or leave it out")


def _read_record(run: Run) -> dict[str, dict[str, Any]]:
    try:
        return {name: dict(known) for name, known in json.loads((run.folder / RECORD).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged: at worst a tracker starts a new run
        return {}


def _numbers(final: Mapping[str, Any]) -> dict[str, float]:
    """The final metrics that are numbers, as final/test_accuracy and so on: no row has such a column."""
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
    """Event files in the run folder, replaced at every start, so that they hold each row once."""

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
    """A run on an MLflow server, or wherever MLFLOW_TRACKING_URI points.

    Uses MLflow's own client: Lightning's logger needs the whole package pytorch-lightning.
    """

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None) -> None:
        # By default MLflow would block training for seven attempts of two minutes each.
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
        self.sent = int(self.client.get_run(known).data.metrics.get("epoch", 0))  # the server knows best

    def log(self, row: Row) -> None:
        self._send(row, int(row["epoch"]))

    def finish(self, final: Mapping[str, float]) -> None:
        self._send(final, 0)
        self.client.set_terminated(self.id)

    def close(self) -> None:
        """Nothing is buffered."""

    def _send(self, metrics: Row, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])


class _WeightsAndBiases:
    """A run on Weights & Biases, through its own client; in the run folder if WANDB_MODE is offline."""

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None, sent: int) -> None:
        import wandb

        is_online = os.environ.get("WANDB_MODE", "online") == "online"
        if is_online and not wandb.login(prompt=False, verify=False):  # without a key, init would prompt
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
        self.sent = max(sent, self.run.step - 1)  # offline, W&B's step starts from 0

    def log(self, row: Row) -> None:
        self.run.log(dict(row), step=int(row["epoch"]))

    def finish(self, final: Mapping[str, float]) -> None:
        self.run.summary.update(dict(final))

    def close(self) -> None:
        self.run.finish()

"""Clients of the trackers TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from emoreg.config.training import TrackerName
from emoreg.errors import UserError
from emoreg.runs.run import EVENTS, Run
from emoreg.runtime.optional import import_fabric, is_installed

PROJECT = "emoreg"  # default name of MLflow's experiment and W&B's project
EVENT_FILES = "events.out.tfevents.*"
FLUSHED = 30.0  # seconds that W&B may take at the end to send its buffer
ROWS = 50  # per request to MLflow, which accepts a thousand numbers
PAUSES = (0.5, 2.0, 5.0)  # seconds between attempts to create MLflow's database
PACKAGES: dict[TrackerName, tuple[str, ...]] = {  # one of them must be installed
    "tensorboard": ("tensorboardX", "tensorboard"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}

Row = Mapping[str, float]


class Tracker(Protocol):
    """The record of a run at a tracker. Any exception means that the tracker could not be reached."""

    id: str  # id of the run at the tracker
    sent: int  # number of rows that it has

    def log(self, rows: Sequence[Row]) -> None:
        """Send the metrics of further epochs."""

    def finish(self, final: Mapping[str, float]) -> None:
        """Send the final metrics, and mark the run as finished. Returns once everything is stored."""

    def fail(self) -> None:
        """Mark the run as failed, if the tracker has a mark for it."""

    def close(self) -> None:
        """Flush buffers."""


def open_tracker(name: TrackerName, run: Run, settings: Mapping[str, Any], known: str | None, sent: int) -> Tracker:
    """Start or continue the record of a run at a tracker.

    Args:
        name: the tracker.
        run: the run.
        settings: all settings of the run's recipe, by dotted key.
        known: id of the run at the tracker; None if it has none yet.
        sent: number of rows that were sent; W&B is the only tracker that cannot report it.
    """
    if name == "mlflow":
        return _MLflow(run, settings, known)
    if name == "wandb":
        return _WeightsAndBiases(run, settings, known, sent)
    return _TensorBoard(run, settings)


def place_of(name: str) -> str | None:
    """Return where a tracker currently stores runs, without passwords; None if it is switched off."""
    if name == "mlflow":
        from mlflow import get_tracking_uri

        place = str(get_tracking_uri())
        path = place.removeprefix("sqlite:///") if place.startswith("sqlite:///") else place.removeprefix("file:")
        if "://" not in path:
            path = str(Path(path).absolute())
            place = f"sqlite:///{path}" if place.startswith("sqlite:") else path
        return f"{without_passwords(place)} {os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)}"
    if name == "wandb":
        mode = _wandb_mode()
        if mode == "disabled":
            return None
        if mode == "offline":
            return mode
        names = (os.environ.get("WANDB_BASE_URL", ""), os.environ.get("WANDB_ENTITY", ""))
        return without_passwords(" ".join(part for part in (*names, os.environ.get("WANDB_PROJECT", PROJECT)) if part))
    return EVENTS


def _wandb_mode() -> str:
    """Return the mode of W&B from the environment or `wandb offline` and `wandb disabled`, by its current name."""
    import wandb

    mode = str(os.environ.get("WANDB_MODE") or getattr(wandb.setup().settings, "mode", "online"))
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def is_kept(name: str, run: Run, place: str | None, known: Mapping[str, Any]) -> bool:
    """Whether what was sent is still stored. Checks local files and databases; assumes it of servers."""
    if name == "tensorboard":
        return any((run.folder / EVENTS).glob(EVENT_FILES))
    if name == "wandb":
        return place != "offline" or any((run.folder / "wandb").glob("offline-run-*"))
    if known.get("where") is None:  # an earlier version did not record the server
        return False
    if place is None or _is_remote(place):
        return True
    return _mlflow_run(_mlflow_client(), str(known.get("run"))) is not None


def _is_remote(place: str) -> bool:
    """Whether MLflow's runs are on a server rather than in a local database or folder."""
    return "://" in place.replace("sqlite://", "")


def _mlflow_client() -> Any:
    # By default MLflow would block training for seven attempts of two minutes each.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):  # they log each table of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient()


def _mlflow_run(client: Any, id_: str) -> Any:
    """Return MLflow's run with this id; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(id_)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def without_passwords(text: str) -> str:
    """Remove user names and passwords from the addresses in a text. A password may contain "/" and "@"."""
    return re.sub(r"//([^/@\s]*:\S*|[^/@\s]*)@", "//", text)


def check_installed(name: TrackerName) -> None:
    """Raise UserError if the package of a tracker is not installed."""
    if not any(map(is_installed, PACKAGES[name])):
        extra = "tensorboardX" if name == "tensorboard" else f"'emoreg[{name}]'"
        raise UserError(f"training.trackers names {name}, which is not installed: pip install {extra}, or leave it out")


class _TensorBoard:
    """Event files in the run folder, which are replaced at every start, so that they contain each row once."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        import_fabric()
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        for old in (run.folder / EVENTS).glob(EVENT_FILES):
            old.unlink()
        self.id, self.sent, self.settings = EVENTS, 0, settings
        self.logger = TensorBoardLogger(run.folder, name=EVENTS, version="", default_hp_metric=False)
        lines = [f"    {key}: {value}" for key, value in settings.items()]  # indented: Markdown's plain text
        self.logger.experiment.add_text("recipe", "\n".join(lines))

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.logger.log_metrics(dict(row), step=int(row["epoch"]))
            self.sent += 1
        self.logger.save()

    def finish(self, final: Mapping[str, float]) -> None:
        plain = {key: "null" if value is None else value for key, value in self.settings.items()}
        self.logger.log_hyperparams(plain, dict(final), step=0)
        self.logger.save()

    def fail(self) -> None:
        """TensorBoard has no states of runs."""

    def close(self) -> None:
        self.logger.finalize("")


class _MLflow:
    """A run on an MLflow server, or wherever MLFLOW_TRACKING_URI points.

    Uses MLflow's own client, since Lightning's logger needs the whole package pytorch-lightning.
    """

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None) -> None:
        for pause in (*PAUSES, None):  # runs that start at the same time all create the database and the experiment
            try:
                self.client = _mlflow_client()
                self.id, self.sent = self._open(run, settings, known)
                return
            except Exception as error:  # from MLflow, SQLAlchemy or Alembic
                is_taken = getattr(error, "error_code", None) == "RESOURCE_ALREADY_EXISTS"
                if pause is None or (not is_taken and _is_remote(place_of("mlflow") or "")):
                    raise
                time.sleep(pause)

    def _open(self, run: Run, settings: Mapping[str, Any], known: str | None) -> tuple[str, int]:
        """Create the run unless it exists; return its id, and its number of rows according to the server."""
        from mlflow.entities import Param

        record = None if known is None else _mlflow_run(self.client, known)
        if record is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self.client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
            record = self.client.create_run(experiment_id, run_name=run.folder.name)
        id_ = str(record.info.run_id)
        known_params = record.data.params  # which MLflow refuses to change
        params = [Param(key, str(value)) for key, value in settings.items() if key not in known_params]
        self.client.log_batch(id_, params=params)
        return id_, int(record.data.metrics.get("epoch", 0))

    def log(self, rows: Sequence[Row]) -> None:
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            self._send([(row, int(row["epoch"])) for row in part])
            self.sent += len(part)

    def finish(self, final: Mapping[str, float]) -> None:
        self._send([(final, 0)])
        self.client.set_terminated(self.id)

    def fail(self) -> None:
        self.client.set_terminated(self.id, "FAILED")

    def close(self) -> None:
        """Nothing is buffered."""

    def _send(self, rows: Sequence[tuple[Row, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for row, step in rows for key, value in row.items()]
        self.client.log_batch(self.id, metrics=metrics)


class _WeightsAndBiases:
    """A run on Weights & Biases, through its own client; in the run folder if WANDB_MODE is offline."""

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None, sent: int) -> None:
        import wandb

        is_online = _wandb_mode() != "offline"
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
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=20, finish_timeout=FLUSHED, finish_timeout_raises=True
            ),
        )
        self.id = str(self.run.id)
        self.sent = max(sent, self.run.step - 1)  # offline, W&B's step restarts from 0
        self.is_open = True

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.run.log(dict(row), step=int(row["epoch"]))
            self.sent += 1

    def finish(self, final: Mapping[str, float]) -> None:
        self.run.summary.update(dict(final))
        self.close()  # waits until everything has arrived, or raises

    def fail(self) -> None:
        if self.is_open:
            self.is_open = False
            self.run.finish(exit_code=1)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.run.finish()

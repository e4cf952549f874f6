"""The clients of trackers: TensorBoard's files, MLflow, Weights & Biases, and where each keeps runs now."""

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
from emoreg.runs.run import Run
from emoreg.runtime.optional import import_fabric, is_installed

EVENTS = "tensorboard"  # in the run folder
PROJECT = "emoreg"  # MLflow's experiment and W&B's project, unless the environment names another
EVENT_FILES = "events.out.tfevents.*"
FLUSHED = 30.0  # seconds that W&B may take at the end to send what it has buffered
ROWS = 50  # in a request to MLflow, which takes a thousand numbers at a time
PAUSES = (0.5, 2.0, 5.0)  # seconds between attempts to make MLflow's database
PACKAGES: dict[TrackerName, tuple[str, ...]] = {  # one of them must be installed
    "tensorboard": ("tensorboardX", "tensorboard"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}

Row = Mapping[str, float]


class Tracker(Protocol):
    """One place where a run is shown. Any exception means that it could not be reached."""

    id: str  # of the run there
    sent: int  # rows that it has

    def log(self, rows: Sequence[Row]) -> None:
        """Show the metrics of further epochs."""

    def finish(self, final: Mapping[str, float]) -> None:
        """Show the final metrics, and mark the run as finished. When this returns, all of it is kept there."""

    def is_there(self) -> bool:
        """Whether what was sent is still there, as far as that can be told without asking a server."""

    def close(self) -> None:
        """Flush buffers."""


def open_tracker(name: TrackerName, run: Run, settings: Mapping[str, Any], known: str | None, sent: int) -> Tracker:
    """The client of a tracker, with the run's record there begun or continued.

    Args:
        name: of the tracker.
        run: whose rows it will get.
        settings: all settings of the run's recipe, by dotted key.
        known: id of the run there; None if it has none yet.
        sent: rows that it is known to have; only W&B cannot say so itself.
    """
    if name == "mlflow":
        return _MLflow(run, settings, known)
    if name == "wandb":
        return _WeightsAndBiases(run, settings, known, sent)
    return _TensorBoard(run, settings)


def place_of(name: str) -> str | None:
    """Where a tracker keeps runs now, without passwords; None if it is switched off."""
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
        if mode in ("offline", "disabled"):
            return None if mode == "disabled" else mode
        names = (os.environ.get("WANDB_BASE_URL", ""), os.environ.get("WANDB_ENTITY", ""))
        return without_passwords(" ".join(part for part in (*names, os.environ.get("WANDB_PROJECT", PROJECT)) if part))
    return EVENTS


def _wandb_mode() -> str:
    """The mode of W&B, which `wandb offline` and `wandb disabled` set too; older names as today's."""
    import wandb

    mode = str(os.environ.get("WANDB_MODE") or getattr(wandb.setup().settings, "mode", "online"))
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def is_kept(name: str, run: Run, place: str | None, known: Mapping[str, Any]) -> bool:
    """Whether what was recorded as sent is there: a server is believed, local files and databases are asked."""
    if name == "tensorboard":
        return any((run.folder / EVENTS).glob(EVENT_FILES))
    if name == "wandb":
        return place != "offline" or any((run.folder / "wandb").glob("offline-run-*"))
    if known.get("where") is None:  # an earlier version did not record of which server
        return False
    if place is None or _is_remote(place):
        return True
    return _run_there(_mlflow_client(), str(known.get("run"))) is not None


def _is_remote(place: str) -> bool:
    """Whether MLflow's runs are on a server, and not in a local database or folder."""
    return "://" in place.replace("sqlite://", "")


def _mlflow_client() -> Any:
    # By default MLflow would block training for seven attempts of two minutes each.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):  # they tell of each table that a new database gets
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient()


def _run_there(client: Any, id_: str) -> Any:
    """MLflow's run of this id; None if the store has none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(id_)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def without_passwords(text: str) -> str:
    """A text in which addresses have neither user nor password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def check_installed(name: TrackerName) -> None:
    """UserError if the package of a tracker is not installed."""
    if not any(map(is_installed, PACKAGES[name])):
        extra = "tensorboardX" if name == "tensorboard" else f"'emoreg[{name}]'"
        raise UserError(f"training.trackers names {name}, which is not installed: pip install {extra}, or leave it out")


class _TensorBoard:
    """Event files in the run folder, replaced at every start, so that they hold each row once."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        import_fabric()
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self.folder = run.folder / EVENTS
        for old in self.folder.glob(EVENT_FILES):
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

    def is_there(self) -> bool:
        return any(self.folder.glob(EVENT_FILES))

    def close(self) -> None:
        self.logger.finalize("")


class _MLflow:
    """A run on an MLflow server, or wherever MLFLOW_TRACKING_URI points.

    Uses MLflow's own client: Lightning's logger needs the whole package pytorch-lightning.
    """

    def __init__(self, run: Run, settings: Mapping[str, Any], known: str | None) -> None:
        for pause in PAUSES:  # several runs that start at once all make the database and the experiment
            try:
                self.client = _mlflow_client()
                self.id, self.sent = self._found(run, settings, known)
                return
            except Exception as error:  # of MLflow, SQLAlchemy and Alembic
                is_taken = getattr(error, "error_code", None) == "RESOURCE_ALREADY_EXISTS"
                if not is_taken and _is_remote(place_of("mlflow") or ""):
                    raise
                time.sleep(pause)
        self.client = _mlflow_client()
        self.id, self.sent = self._found(run, settings, known)

    def _found(self, run: Run, settings: Mapping[str, Any], known: str | None) -> tuple[str, int]:
        """The id of the run there, made if it has none, and the rows that it has: the server knows best."""
        from mlflow.entities import Param

        there = None if known is None else _run_there(self.client, known)
        if there is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self.client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self.client.create_experiment(name)
            there = self.client.create_run(experiment, run_name=run.folder.name)
        id_ = str(there.info.run_id)
        new = {key: value for key, value in settings.items() if key not in there.data.params}  # it refuses other values
        self.client.log_batch(id_, params=[Param(key, str(value)) for key, value in new.items()])
        return id_, int(there.data.metrics.get("epoch", 0))

    def log(self, rows: Sequence[Row]) -> None:
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            self._send([(row, int(row["epoch"])) for row in part])
            self.sent += len(part)

    def finish(self, final: Mapping[str, float]) -> None:
        self._send([(final, 0)])
        self.client.set_terminated(self.id)

    def is_there(self) -> bool:
        return True

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
        self.sent = max(sent, self.run.step - 1)  # offline, W&B's step starts from 0

        self.is_open = True

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.run.log(dict(row), step=int(row["epoch"]))
            self.sent += 1

    def finish(self, final: Mapping[str, float]) -> None:
        self.run.summary.update(dict(final))
        self.close()  # waits until it has arrived, or raises

    def is_there(self) -> bool:
        return True

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.run.finish()

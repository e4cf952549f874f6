from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import emoreg.runs.trackers
import emoreg.training.captured_step
from emoreg.config.read_recipe import differences
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import StimuliSettings
from emoreg.config.training import TrackerName
from emoreg.errors import Diverged
from emoreg.runs.run import METRICS, Run
from emoreg.runs.tracker_clients import Row, place_of, without_passwords
from emoreg.runs.trackers import Trackers, send_all_later, tracked
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain
from emoreg.study.plan import run_id
from refusing import refusal

TIMES = ["seconds", "images_per_second"]


class Told(Progress):
    """Records lines; interrupts the run after an epoch."""

    def __init__(self, cut_off: int | None = None) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.cut_off = cut_off

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.cut_off is not None and line.startswith(f"epoch {self.cut_off}/"):
            raise ConnectionAbortedError


@pytest.fixture(autouse=True)
def _no_tracker_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoreg.runs.trackers, "_failed", {})
    monkeypatch.setattr(emoreg.runs.trackers, "SLOW", math.inf)  # on a busy machine every request is slow


def tracked_by(recipe: Any, *names: TrackerName) -> Any:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, trackers=names))


def numbers(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.folder / METRICS).drop(columns=TIMES)


def train_in_two_goes(recipe: TrainRecipe, folder: Path) -> Run:
    with pytest.raises(ConnectionAbortedError):
        train(recipe, folder, progress=Told(cut_off=2))
    return train(recipe, folder, progress=Told())


# TensorBoard


def events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yield (tag, step, value) for every number in a folder's event files, which are TFRecords of protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    yield value.tag, event.step, value.simple_value


@pytest.mark.parametrize("in_two_goes", [False, True])
def test_event_files_contain_each_row_of_metrics_csv_once(
    stage2: TrainRecipe, tmp_path: Path, in_two_goes: bool
) -> None:
    go = train_in_two_goes if in_two_goes else lambda recipe, folder: train(recipe, folder, progress=Told())
    run = go(tracked_by(stage2, "tensorboard"), tmp_path / "run")
    found = [event for event in events(run.folder / "tensorboard") if not event[0].startswith("final/")]
    rows = run.metrics.set_index("epoch")
    expected = {(key, epoch): value for epoch, row in rows.iterrows() for key, value in row.items()}
    assert {(tag, step): value for tag, step, value in found if tag != "epoch"} == pytest.approx(expected, rel=1e-5)
    assert len(found) == len({(tag, step) for tag, step, _ in found}) == len(rows) * (rows.shape[1] + 1)


def test_event_files_contain_the_final_metrics_and_the_recipe(stage1: PretrainRecipe, tmp_path: Path) -> None:
    run = pretrain(tracked_by(stage1, "tensorboard"), tmp_path / "run", progress=Told())
    found = {tag: value for tag, _, value in events(run.folder / "tensorboard")}
    assert found["final/test_ccc" if run.final["test"] else "final/validation_ccc"] == pytest.approx(
        (run.final["test"] or run.final["validation"])["ccc"], abs=1e-6
    )
    content = b"".join(path.read_bytes() for path in (run.folder / "tensorboard").iterdir())
    assert b"stimuli.image_size" in content and b"training.batch_size" in content


def test_hyperparameters_contain_no_private_paths_even_of_further_sets(stage1: PretrainRecipe, tmp_path: Path) -> None:
    rated = StimuliSettings("oasis", f"{tmp_path}/annabel/oasis.zip")
    both = dataclasses.replace(stage1, stimuli=rated, also=(StimuliSettings("emod", f"{tmp_path}/annabel/emod"),))
    settings = Trackers(Run(tmp_path / "run"), both, Told()).settings
    assert settings["stimuli.root"] == "oasis.zip" and settings["also"][0]["root"] == "emod"
    assert "annabel" not in str(settings)


# Any tracker


class Fake:
    """A tracker that fails while `away`, and keeps the rows that it receives."""

    away = False
    place: str | None = "here"
    rows: list[Mapping[str, float]]
    finals: list[Mapping[str, float]]
    opened: list[tuple[str | None, int]]
    failures = 0
    id = "there"

    def __init__(self, known: str | None, sent: int) -> None:
        if Fake.away:
            raise ConnectionError("no route\nto host")
        Fake.opened.append((known, sent))
        self.sent = sent

    def log(self, rows: Sequence[Row]) -> None:
        if Fake.away:
            raise ConnectionError("no route\nto host")
        Fake.rows += map(dict, rows)
        self.sent += len(rows)

    def finish(self, final: Mapping[str, float]) -> None:
        if Fake.away:
            raise ConnectionError("no route\nto host")
        Fake.finals.append(dict(final))

    def fail(self) -> None:
        Fake.failures += 1

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(Fake, "away", False)
    monkeypatch.setattr(Fake, "place", "here")
    monkeypatch.setattr(Fake, "failures", 0)
    for name in ("rows", "finals", "opened"):
        monkeypatch.setattr(Fake, name, [], raising=False)
    monkeypatch.setattr(
        emoreg.runs.trackers, "open_tracker", lambda name, run, settings, known, sent: Fake(known, sent)
    )
    monkeypatch.setattr(emoreg.runs.trackers, "check_installed", lambda name: None)
    monkeypatch.setattr(emoreg.runs.trackers, "place_of", lambda name: Fake.place)
    monkeypatch.setattr(emoreg.runs.trackers, "is_kept", lambda name, run, place, known: True)
    return Fake


def test_a_resumed_run_continues_its_record_without_sending_a_row_twice(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake]
) -> None:
    run = train_in_two_goes(tracked_by(stage2, "mlflow"), tmp_path / "run")
    assert [row["epoch"] for row in fake.rows] == [1, 2, 3]
    assert fake.opened == [(None, 0), ("there", 2)]
    assert [final["final/test_accuracy"] for final in fake.finals] == [run.final["test"]["accuracy"]]


@pytest.mark.parametrize(("error", "failures"), [(Diverged("the loss is nan"), 1), (KeyboardInterrupt(), 0)])
def test_a_run_that_diverges_is_marked_as_failed_and_one_that_is_stopped_is_not(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], error: BaseException, failures: int
) -> None:
    with pytest.raises(type(error)), tracked(Run(tmp_path), tracked_by(stage2, "mlflow"), Told()) as track:
        track([{"epoch": 1}])
        raise error
    assert fake.failures == failures and not fake.finals


def test_a_run_that_fails_before_its_first_epoch_is_done_leaves_no_record(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(emoreg.training.captured_step, "train_step", fail)
        assert "out of memory" in refusal(lambda: train(tracked_by(stage2, "mlflow"), tmp_path / "run"))
    assert not fake.opened and not (tmp_path / "run").exists()
    other = tracked_by(dataclasses.replace(stage2, seed=3), "mlflow")
    assert len(train(other, tmp_path / "run", progress=Told()).environment) == 1
    assert fake.opened == [(None, 0)]


def test_an_unreachable_tracker_is_reported_once_and_changes_nothing(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "away", True)
    told = Told()
    run = train(tracked_by(stage2, "mlflow"), tmp_path / "run", progress=told)
    plain = train(tracked_by(stage2), tmp_path / "plain", progress=Told())
    about = [line for line in told.lines if "mlflow" in line]
    assert len(about) == 1 and "no route to host" in about[0] and "\n" not in about[0]
    pd.testing.assert_frame_equal(numbers(run), numbers(plain))
    assert run.final["test"] == plain.final["test"]


def test_missing_rows_are_sent_when_the_tracker_responds_again(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoreg.runs.trackers, "PAUSE", 0.0)
    run = Run(tmp_path)
    trackers = Trackers(run, tracked_by(stage2, "wandb"), Told())
    rows = [{"epoch": number} for number in (1, 2, 3)]
    trackers.update(rows[:1])
    fake.away = True
    trackers.update(rows[:2])
    fake.away = False
    trackers.update(rows)
    assert [row["epoch"] for row in fake.rows] == [1, 2, 3]


def test_an_unreachable_tracker_is_not_tried_again_at_once(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake]
) -> None:
    trackers = Trackers(Run(tmp_path), tracked_by(stage2, "wandb"), Told())
    fake.away = True
    trackers.update([{"epoch": 1}])
    fake.away = False
    trackers.update([{"epoch": 1}])
    assert not fake.rows


def test_the_same_command_sends_a_finished_run_to_a_tracker_that_does_not_have_it(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake]
) -> None:
    train(tracked_by(stage2), tmp_path / "run", progress=Told())
    for _ in range(2):
        train(tracked_by(stage2, "mlflow"), tmp_path / "run", progress=Told())
    assert [row["epoch"] for row in fake.rows] == [1, 2, 3] and len(fake.finals) == 1


def test_a_run_is_sent_to_every_place_once(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tracked_by(stage2, "mlflow")
    for place in ("here", "there", "here", "there"):
        monkeypatch.setattr(Fake, "place", place)
        told = Told()
        train(recipe, tmp_path / "run", progress=told)
    assert len(fake.finals) == 2 and [row["epoch"] for row in fake.rows] == [1, 2, 3] * 2
    assert fake.opened == [(None, 0), (None, 0)] and not [line for line in told.lines if "mlflow" in line]


def test_a_record_without_a_place_counts_for_the_current_place(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake]
) -> None:
    (tmp_path / "trackers.json").write_text('{"wandb": {"run": "old", "rows": 2, "finished": false}}')
    Trackers(Run(tmp_path), tracked_by(stage2, "wandb"), Told()).update([{"epoch": 1}, {"epoch": 2}, {"epoch": 3}])
    assert fake.opened == [("old", 2)] and fake.rows == [{"epoch": 3}]


def test_a_tracker_that_is_switched_off_is_reported_and_receives_everything_once_it_is_on(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, told = tracked_by(stage2, "wandb"), Told()
    monkeypatch.setattr(Fake, "place", None)
    run = train(recipe, tmp_path / "run", progress=told)
    assert [line for line in told.lines if "wandb" in line] == [
        "run: the tracker wandb is switched off: nothing is sent"
    ]
    assert not (run.folder / "trackers.json").exists() and not fake.opened
    monkeypatch.setattr(Fake, "place", "here")
    later = Told()
    train(recipe, tmp_path / "run", progress=later)
    assert [row["epoch"] for row in fake.rows] == [
        1,
        2,
        3,
    ] and "run: sent to wandb, which lacked part of it" in later.lines


def test_a_study_sends_its_finished_runs_and_tries_an_unreachable_server_once(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tracked_by(stage2, "mlflow")
    runs = [(train(tracked_by(stage2), tmp_path / name, progress=Told()), recipe) for name in ("one", "two", "three")]
    monkeypatch.setattr(Fake, "away", True)
    told = Told()
    send_all_later(runs, told)
    assert len(told.lines) == 2 and told.lines[0].startswith("one: the tracker mlflow fails")
    assert (
        told.lines[1] == "3 finished runs are still to be sent to mlflow: run the same command again when it responds"
    )
    monkeypatch.setattr(Fake, "away", False)
    monkeypatch.setattr(emoreg.runs.trackers, "_failed", {})  # as in another process
    told = Told()
    send_all_later(runs, told)
    assert told.lines == [f"{name}: sent to mlflow, which lacked part of it" for name in ("one", "two", "three")]
    assert len(fake.finals) == 3
    send_all_later(runs, told)
    assert len(told.lines) == len(fake.finals) == 3


def test_nothing_is_sent_if_it_cannot_be_recorded(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tracked_by(stage2), tmp_path / "run", progress=Told())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    told = Told()
    train(tracked_by(stage2, "mlflow"), tmp_path / "run", progress=told)
    assert not fake.opened and any("cannot be written" in line for line in told.lines)


def test_a_slow_server_gets_fewer_requests_and_has_everything_at_the_end(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoreg.runs.trackers, "SLOW", 0.0)
    monkeypatch.setattr(emoreg.runs.trackers, "SHARE", 1e9)
    trackers = Trackers(Run(tmp_path), tracked_by(stage2, "wandb"), Told())
    rows: list[Row] = [{"epoch": number} for number in (1, 2, 3)]
    for number in (1, 2):
        trackers.update(rows[:number])
    assert fake.rows == rows[:1]
    trackers.update(rows, {"seconds": 1.0})
    assert fake.rows == rows and len(fake.finals) == 1


def test_a_tracker_that_failed_for_one_run_is_not_tried_again_at_once_for_the_next(
    stage2: TrainRecipe, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "away", True)
    recipe = tracked_by(stage2, "mlflow")
    train(recipe, tmp_path / "one", progress=Told())
    monkeypatch.setattr(Fake, "away", False)
    told = Told()
    train(recipe, tmp_path / "two", progress=told)
    assert "two: the tracker mlflow has just failed; this run is sent by the same command later" in told.lines
    assert not fake.opened


def test_event_files_that_were_deleted_are_written_again(stage2: TrainRecipe, tmp_path: Path) -> None:
    recipe = tracked_by(stage2, "tensorboard")
    run = train(recipe, tmp_path / "run", progress=Told())
    shutil.rmtree(run.folder / "tensorboard")
    told = Told()
    train(recipe, tmp_path / "run", progress=told)
    found = {step for tag, step, _ in events(run.folder / "tensorboard") if tag == "train_loss"}
    assert found == {1, 2, 3} and "run: sent to tensorboard, which lacked part of it" in told.lines


def test_event_files_that_are_deleted_while_a_run_trains_have_all_rows_in_the_end(
    stage2: TrainRecipe, tmp_path: Path
) -> None:
    with contextlib.closing(Trackers(Run(tmp_path), tracked_by(stage2, "tensorboard"), Told())) as trackers:
        rows: list[Row] = [{"epoch": number, "train_loss": 1.0} for number in (1, 2, 3)]
        trackers.update(rows[:2])
        shutil.rmtree(tmp_path / "tensorboard")
        trackers.update(rows)
    assert {step for tag, step, _ in events(tmp_path / "tensorboard") if tag == "train_loss"} == {1, 2, 3}


def test_no_event_files_are_added_to_a_finished_run(stage2: TrainRecipe, tmp_path: Path) -> None:
    run = train(tracked_by(stage2), tmp_path / "run", progress=Told())
    before = sorted(path.name for path in run.folder.iterdir())
    train(tracked_by(stage2, "tensorboard"), tmp_path / "run", progress=Told())
    assert sorted(path.name for path in run.folder.iterdir()) == before


def test_trackers_are_not_part_of_a_runs_identity(stage1: PretrainRecipe, stage2: TrainRecipe) -> None:
    for recipe in (stage1, stage2):
        other = tracked_by(recipe, "mlflow", "wandb")
        assert differences(recipe, other) == [] and run_id(recipe) == run_id(other)


def test_a_tracker_that_is_not_installed_is_refused_before_training(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = refusal(lambda: train(tracked_by(stage2, "mlflow"), tmp_path / "run", progress=Told()))
    assert "pip install 'emoreg[mlflow]'" in told and not (tmp_path / "run" / METRICS).exists()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://me:secret@host:5000/runs", "https://host:5000/runs"),
        ("https://token@host", "https://host"),
        ("postgresql://me:sec/ret@host/db", "postgresql://host/db"),  # SQLAlchemy lets passwords have slashes
        ("https://me:sec@ret@host emoreg", "https://host emoreg"),
        ("https://host:5000/runs me@home", "https://host:5000/runs me@home"),
        ("sqlite:////home/me/runs.db", "sqlite:////home/me/runs.db"),
    ],
)
def test_addresses_are_told_without_names_and_passwords(address: str, told: str) -> None:
    assert without_passwords(address) == told
    assert without_passwords(f"{address} failed") == f"{told} failed"


@pytest.mark.parametrize("content", ["[]", "[" * 200_000])
def test_a_damaged_record_does_not_stop_a_run(
    content: str, stage2: TrainRecipe, tmp_path: Path, fake: type[Fake]
) -> None:
    (tmp_path / "trackers.json").write_text(content)
    Trackers(Run(tmp_path), tracked_by(stage2, "wandb"), Told()).update([{"epoch": 1}])
    assert len(fake.rows) == 1


# MLflow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        else:
            pytest.skip("the MLflow server did not start within a minute")
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.mark.extra("mlflow")
def test_an_mlflow_server_receives_a_resumed_run(
    stage2: TrainRecipe, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    from mlflow import MlflowClient

    run = train_in_two_goes(tracked_by(stage2, "mlflow"), tmp_path / "digits-run")
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("emoreg")
    assert experiment is not None
    (there,) = client.search_runs([experiment.experiment_id])
    assert there.info.run_name == "digits-run" and there.info.status == "FINISHED"
    history = client.get_metric_history(there.info.run_id, "train_loss")
    assert [(each.step, each.value) for each in history] == [
        (row.epoch, row.train_loss) for row in run.metrics.itertuples()
    ]
    assert there.data.metrics["final/test_accuracy"] == run.final["test"]["accuracy"]
    assert there.data.params["training.epochs"] == "3" and there.data.params["backbone.name"] == "resnet8"


@pytest.mark.extra("mlflow")
def test_a_run_that_diverges_has_failed_in_mlflow(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(Diverged), tracked(Run(tmp_path), tracked_by(stage2, "mlflow"), Told()) as track:
        track([{"epoch": 1}])
        raise Diverged("the loss is nan")
    client = mlflow.MlflowClient()
    (there,) = client.search_runs([client.get_experiment_by_name("emoreg").experiment_id])
    assert there.info.status == "FAILED"


@pytest.mark.extra("mlflow")
def test_another_local_database_gets_the_runs_that_it_lacks(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    for is_late in (False, False, True):
        if is_late:  # as if the file had been deleted and created again by something else
            known = json.loads((tmp_path / "run" / "trackers.json").read_text())
            known["mlflow"][0]["run"] = "0" * 32
            (tmp_path / "run" / "trackers.json").write_text(json.dumps(known))
        told = Told()
        train(tracked_by(stage2, "mlflow"), tmp_path / "run", progress=told)
        assert any("sent to mlflow" in line for line in told.lines) == is_late
    client = mlflow.MlflowClient()
    assert len(client.search_runs([client.get_experiment_by_name("emoreg").experiment_id])) == 2


@pytest.mark.extra("mlflow")
def test_passwords_of_a_server_are_neither_in_the_record_nor_in_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert place_of("mlflow") == "http://127.0.0.1:9 mine"


@pytest.mark.extra("mlflow")
def test_an_unreachable_server_costs_one_line_and_seconds(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port, where nothing listens
    told, begun = Told(), time.monotonic()
    run = train(tracked_by(stage2, "mlflow"), tmp_path / "run", progress=told)
    assert run.is_finished and len([line for line in told.lines if "mlflow" in line]) == 1
    assert time.monotonic() - begun < 60


# Weights & Biases


@pytest.mark.extra("wandb")
def test_weights_and_biases_keeps_a_run_offline_in_the_run_folder(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = train_in_two_goes(tracked_by(stage2, "wandb"), tmp_path / "run")
    steps: list[int] = []
    for _ in range(100):  # W&B's process writes a moment later
        steps = [step for path in sorted(run.folder.glob("wandb/offline-run-*/*.wandb")) for step in history(path)]
        if len(steps) >= 3:
            break
        time.sleep(0.1)
    assert steps == [1, 2, 3]


def history(path: Path) -> list[int]:
    """Return the steps of the rows in a short W&B file, which has chunks like LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, steps = path.read_bytes(), 7, []
    while place + 7 <= len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        assert kind == 1  # whole
        record = Record.FromString(content[place + 7 : place + 7 + length])
        place += 7 + length
        if record.WhichOneof("record_type") == "history":
            steps.append(record.history.step.num)
    return steps


@pytest.mark.extra("wandb")
def test_without_a_key_weights_and_biases_neither_prompts_nor_stops_the_run(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    told = Told()
    run = train(tracked_by(stage2, "wandb"), tmp_path / "run", progress=told)
    about = [line for line in told.lines if "wandb" in line]
    assert run.is_finished and len(about) == 1 and "WANDB_MODE=offline" in about[0]

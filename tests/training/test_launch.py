"""Two processes on one processor, connected by gloo, represent two GPUs connected by NCCL."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emoreg.config.loss import LossSettings
from emoreg.config.read_recipe import differences, recipe_yaml
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.config.training import TrainingSettings
from emoreg.errors import UserError
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import CHECKPOINT, METRICS, WEIGHTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain
from emoreg.study.plan import run_id
from emoreg.training import launch
from emoreg.training.fabric import make_fabric
from refusing import refusal

# Differences between runs on two processes and on one, which add the same numbers in another order.
TOLERANCE = 1e-4
# No batch norm, whose statistics differ between processes on CPUs; no dropout.
VIT = BackboneSettings(name="vit_tiny_patch16_224", patch_size=4, width=24)


def on(recipe: Any, devices: int, **training: Any) -> Any:
    own = dataclasses.replace(recipe.training, devices=devices, trackers=(), **training)
    return dataclasses.replace(recipe, training=own)


@pytest.fixture
def regulated(stage2: TrainRecipe) -> TrainRecipe:
    """A ViT with a λ for each sample: a gate, two heads and two encoders whose gradients are averaged."""
    regulation = dataclasses.replace(stage2.regulation, mode="learned", granularity="per_sample")
    training = dataclasses.replace(stage2.training, epochs=2, batch_size=15)  # shares of 7 and 8
    optimizer = dataclasses.replace(stage2.optimizer, clip_norm=1.0, ema=0.9)
    return dataclasses.replace(stage2, backbone=VIT, regulation=regulation, training=training, optimizer=optimizer)


def assert_same(one: Run, other: Run, tolerance: float = TOLERANCE) -> None:
    times = ["seconds", "images_per_second"]
    left, right = (run.metrics.drop(columns=times).to_numpy() for run in (one, other))
    np.testing.assert_allclose(left, right, atol=tolerance, rtol=tolerance)
    weights, others = one.weights()[0], other.weights()[0]
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], atol=tolerance, rtol=tolerance, msg=name)


def process_count(run: Run) -> list[int]:
    return [session["processes"] for session in run.environment]


# The same result


@pytest.mark.thorough
def test_two_processes_train_a_regulated_classifier_as_one_does(
    regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    one, two = (train(on(regulated, n), tmp_path / str(n), progress=quiet) for n in (1, 2))
    assert (process_count(one), process_count(two)) == ([1], [2])
    assert_same(one, two)
    assert one.final["test"]["accuracy"] == pytest.approx(two.final["test"]["accuracy"], abs=0.02)


@pytest.mark.slow
def test_two_processes_accumulate_to_the_steps_of_one(regulated: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    one, two = (train(on(regulated, n, accumulate=3), tmp_path / str(n), progress=quiet) for n in (1, 2))
    assert_same(one, two)


class Plain(nn.Module):
    """Features without batch norm; `spare` does not affect them, `shared` affects two losses."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.spare = nn.Linear(3 * 64, 6), nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)).tanh()


def own_model() -> RegulatedClassifier:
    torch.manual_seed(3)
    return RegulatedClassifier(Plain(), Plain(), 10, mode="fixed", freeze_encoder=True)


@pytest.mark.slow
def test_a_users_model_with_parameters_that_nothing_uses_is_trained_in_place(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    # The emotional head does not affect the loss.
    loss = LossSettings(regulated=0.0, non_emotional=1.0, emotional=0.0, budget="as_given")
    regulation = dataclasses.replace(stage2.regulation, mode="fixed")
    recipe = dataclasses.replace(stage2, loss=loss, regulation=regulation)
    models = [own_model(), own_model()]
    for number, model in enumerate(models, 1):
        train(on(recipe, number), tmp_path / str(number), model, quiet)
    for (name, one), two in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, atol=TOLERANCE, rtol=TOLERANCE, msg=name)
    untrained = own_model().state_dict()
    changed = {name for name, weight in models[1].state_dict().items() if not torch.equal(weight, untrained[name])}
    assert changed == {"backbone.linear.weight", "backbone.linear.bias", "head.weight", "head.bias"}


def test_devices_are_not_part_of_a_runs_identity(stage2: TrainRecipe) -> None:
    assert differences(on(stage2, 1), on(stage2, 2)) == [] and run_id(on(stage2, 1)) == run_id(on(stage2, 2))


@pytest.mark.parametrize("before", [False, True])
def test_deterministic_algorithms_are_enabled_during_a_run_and_restored(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def train_nothing(*_: Any) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())

    torch.use_deterministic_algorithms(before)
    try:
        for deterministic in (True, False):
            recipe = on(stage2, 1, deterministic=deterministic)
            launch.launch(tmp_path / str(deterministic), recipe, train_nothing, None, quiet)
            assert torch.are_deterministic_algorithms_enabled() is before
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [True, before]


# Launched by others


def command(name: str, recipe: Recipe, folder: Path) -> list[str]:
    file = folder.with_suffix(".yaml")
    file.write_text(recipe_yaml(recipe), encoding="utf-8")
    return ["-m", "emoreg", name, str(file), "--out", str(folder)]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without variables that launchers set."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "MASTER_"))}
    source = str(Path(__file__).parents[2] / "src")
    return {**inherited, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", **more}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.thorough
def test_torchrun_trains_an_encoder_as_one_process_does_and_only_one_prints(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    optimizer = dataclasses.replace(stage1.optimizer, name="sgd", lr=0.01)
    recipe = on(dataclasses.replace(stage1, backbone=VIT, optimizer=optimizer), 1, epochs=2)
    one = pretrain(recipe, tmp_path / "one", progress=quiet)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", free_port()]
    arguments = [*torchrun, *command("pretrain", recipe, tmp_path / "two")]
    ended = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    two = Run(tmp_path / "two")
    assert process_count(two) == [2]
    assert_same(one, two)
    assert ended.stdout.count("run folder:") == 1 and ended.stderr.count("epoch 1/2") == 1


def by_srun(arguments: Sequence[str], tasks: int = 2) -> list[tuple[int, str, str]]:
    """Start tasks as srun does; return (exit code, stdout, stderr) of each."""
    shared = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    shared |= {"SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_NODEID": "0"}
    shared |= {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": "1", "MASTER_PORT": free_port()}
    started = []
    for rank in range(tasks):
        own = environment(**shared, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
        started.append(
            subprocess.Popen([sys.executable, *arguments], env=own, text=True, stdout=subprocess.PIPE, stderr=-1)
        )
    ended = [process.communicate(timeout=240) for process in started]
    return [(process.returncode, *told) for process, told in zip(started, ended, strict=True)]


@pytest.mark.slow
def test_the_tasks_of_srun_train_one_run_and_find_it_finished_together(regulated: TrainRecipe, tmp_path: Path) -> None:
    with_unused = dataclasses.replace(regulated, encoder=dataclasses.replace(regulated.encoder, shrink=0.2))
    arguments = command("train", on(with_unused, 1, epochs=1), tmp_path / "run")
    for is_new in (True, False):
        ended = by_srun(arguments)
        assert [code for code, _, _ in ended] == [0, 0], ended
        assert "run folder:" in ended[0][1] and ended[1][1:] == ("", "")
        assert ("encoder.shrink is not used" in ended[0][2]) is is_new
    assert process_count(Run(tmp_path / "run")) == [2]


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_by_all_tasks_in_one_line(
    regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    train(on(dataclasses.replace(regulated, seed=1), 1, epochs=1), tmp_path / "run", progress=quiet)
    leading, other = by_srun(command("train", on(regulated, 1, epochs=1), tmp_path / "run"))
    assert leading[0] == 2 and leading[2].count("\n") == 1 and "seed: 1 -> 0" in leading[2]
    assert other[1:] == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "reason"), [(16, "the loss became"), (10_000, "the loss on the test images")])
def test_only_the_leading_task_reports_a_run_that_diverges(
    batch_size: int, reason: str, stage2: TrainRecipe, tmp_path: Path
) -> None:
    optimizer = dataclasses.replace(stage2.optimizer, lr=1e30)
    # Weights are finite after the first step; if it is the only one, only the leader's metrics are not.
    recipe = on(dataclasses.replace(stage2, backbone=VIT, optimizer=optimizer), 1, epochs=1, batch_size=batch_size)
    for _ in range(2):  # the second time it has diverged before
        (code, _, told), other = by_srun([*command("train", recipe, tmp_path / "run"), "--quiet"])
        assert code == 2 and told.count("\n") == 1 and f"{tmp_path / 'run'}: stage 2 diverged: {reason}" in told
        assert other == (2, "", "")
    assert process_count(Run(tmp_path / "run")) == [2]


@pytest.mark.slow
@pytest.mark.parametrize("name", [METRICS, WEIGHTS])
def test_the_leading_task_reports_its_own_error_and_the_other_says_that_it_ends(
    name: str, stage2: TrainRecipe, tmp_path: Path
) -> None:
    recipe, folder = on(dataclasses.replace(stage2, backbone=VIT), 1, epochs=2), tmp_path / "run"
    arguments = [*command("train", recipe, folder), "--quiet"]
    (folder / name).mkdir(parents=True)  # the others train while the first is written, and wait while the second is
    (folder / "recipe.yaml").write_text(recipe_yaml(recipe))
    (code, _, told), other = by_srun(arguments)
    assert code == 2 and told.count("\n") == 1 and f"cannot write {folder / name}: " in told
    assert other[0] != 0 and f"{folder}: process 1 of 2 ends: " in other[2]
    assert other[2].count("Traceback (most recent call last)") == 1


@pytest.mark.parametrize("error", [UserError("own"), ValueError("own"), RuntimeError("own")])
def test_an_error_of_another_task_is_reported_with_its_traceback(
    error: Exception,
    stage2: TrainRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Follower:
        global_rank, world_size = 1, 2

        def launch(self) -> None: ...

        def broadcast(self, _: Any) -> Any:
            return launch._Decision.TRAIN

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(launch, "_ddp_fabric", lambda *_: Follower())
    monkeypatch.setattr(launch, "_carry_out", fail)
    with pytest.raises(type(error)) as raised:
        launch._join_launched(tmp_path / "run", stage2, fail, None, Progress(quiet=True), None)
    assert raised.value is error and raised.traceback[-1].name == "fail"
    line = f"emoreg: {tmp_path / 'run'}: process 1 of 2 ends: own\n"  # a process group's own says nothing of the run
    assert capsys.readouterr().err == (line if isinstance(error, RuntimeError) else "")


# Stopping, dying, refusing


def started(recipe: TrainRecipe, folder: Path) -> subprocess.Popen[str]:
    """Start a run on two processes and wait until it has finished an epoch."""
    process = subprocess.Popen(
        [sys.executable, *command("train", recipe, folder)],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=-1,
    )
    for _ in range(1200):
        if (folder / METRICS).exists():
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise TimeoutError


@pytest.mark.slow
def test_a_signal_stops_all_processes_and_the_same_command_resumes_to_the_same_numbers(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe = on(stage2, 2, epochs=12)
    process = started(recipe, tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143 and "run the same command again to resume" in told, told
    run = Run(tmp_path / "run")
    done = len(run.metrics)
    assert not run.is_finished and 1 <= done < 12
    state = run.load_checkpoint()
    assert state is not None and (state["begun"] is None or len(state["begun"]["draws"]) == 2)
    run = train(recipe, run.folder, progress=quiet)
    assert run.metrics["epoch"].tolist() == list(range(1, 13)) and process_count(run) == [2, 2]
    assert_same(run, train(recipe, tmp_path / "whole", progress=quiet), tolerance=1e-6)


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_with_one(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    process = started(on(stage2, 2, epochs=12), tmp_path / "run")
    process.kill()
    process.communicate()
    time.sleep(2)  # its processes end with it
    run = train(on(stage2, 1, epochs=12), tmp_path / "run", progress=quiet)
    assert run.is_finished and process_count(run) == [2, 1]
    assert run.metrics["epoch"].tolist() == list(range(1, 13))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_reported_in_one_line(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    optimizer = dataclasses.replace(stage2.optimizer, lr=1e30)
    recipe = on(dataclasses.replace(stage2, backbone=VIT, optimizer=optimizer), 2)
    told = refusal(lambda: train(recipe, tmp_path / "run", progress=quiet))
    assert "the loss became" in told and "optimizer.lr" in told
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_more_devices_than_exist_or_than_images_in_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "finds 2" in refusal(lambda: make_fabric(TrainingSettings(device="cuda"), devices=4))
    with pytest.raises(ValueError, match=r"devices: must be at least 1 and at most training\.batch_size \(8\), not 9"):
        TrainingSettings(devices=9, batch_size=8)


@pytest.mark.parametrize("devices", [2, 3])
def test_more_processes_than_cores_are_reported(
    devices: int,
    stage2: TrainRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def none_start(*_: Any, **__: Any) -> None:
        raise OSError("none started")

    monkeypatch.setattr(importlib.import_module("torch.multiprocessing.spawn"), "start_processes", none_start)
    monkeypatch.setattr(launch, "allowed_cores", lambda: 2)
    assert "none started" in refusal(lambda: train(on(stage2, devices), tmp_path / "run", progress=Progress()))
    told = "run: training.devices is 3, and this process may use 2 cores: as many processes are as fast"
    assert (told in capsys.readouterr().err) == (devices == 3)


def test_a_user_supplied_model_that_cannot_be_pickled_is_refused_before_a_process_starts(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    model = own_model()
    model.register_forward_hook(lambda *_: None)
    told = refusal(lambda: train(on(stage2, 2), tmp_path / "run", model, quiet))
    assert "training.devices is 2" in told and "torchrun" in told


class Own:
    """Represents a model that a user defined in `__main__`."""


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        (None, "", "are defined in a notebook, in a console or on the standard input"),
        ("script.py", "train()", "are defined in the script, and every process that emoreg starts imports the script"),
        ("script.py", "if __name__ == '__main__': train()", None),
    ],
)
def test_a_user_supplied_model_that_other_processes_cannot_import_is_refused_before_one_starts(
    file: str | None, text: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    if file is not None:
        (tmp_path / file).write_text(text)
        main.__file__ = str(tmp_path / file)
    monkeypatch.setattr(Own, "__module__", "__main__")
    monkeypatch.setattr(main, "Own", Own, raising=False)
    monkeypatch.setitem(sys.modules, "__main__", main)
    training = TrainingSettings(devices=2)
    if told is None:
        launch._require_sendable(Own(), training)
    else:
        message = refusal(lambda: launch._require_sendable(Own(), training))
        assert message.startswith("training.devices is 2, but your own model or images are defined") and told in message
    launch._require_sendable(np.zeros(3), training)  # from a library


def test_mpirun_is_refused_before_anything_is_started(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert "mpirun has started 2 processes" in refusal(lambda: train(stage2, tmp_path / "run", progress=quiet))
    assert not (tmp_path / "run").exists()

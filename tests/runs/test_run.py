from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import emoreg.runs.run
import emoreg.runtime.safe_io
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.read_recipe import read_recipe, recipe_yaml
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings
from emoreg.errors import Diverged, UserError
from emoreg.inference.load import load_run
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.inputs import Inputs
from emoreg.runs.run import (
    CHECKPOINT,
    DIVERGED,
    ENVIRONMENT,
    EVENTS,
    FINAL,
    INPUTS,
    METRICS,
    RECIPE,
    SEEN,
    TRACKED,
    WEIGHTS,
    Run,
    claim_run,
    start_run,
)
from emoreg.runtime import signals
from emoreg.runtime.progress import Advance, Progress
from emoreg.runtime.safe_io import write_atomically
from emoreg.stages import classify
from emoreg.stages import pretrain as stage_1
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain
from narrow import present
from refusing import refusal
from tiny_backbone import TinyBackbone

PLAIN, RESNET = RegulationSettings(), BackboneSettings("resnet8")
VIT = BackboneSettings("test_vit", patch_size=8, drop_path=0.3)  # timm's smallest, with random depth
STEPS = 4  # an epoch of the tiny stage-2 recipe: 64 images in batches of 16


class Stopped(Exception):
    """Stands in for a power cut."""


class StopAt(Progress):
    """Stops training after a number of steps, or at the line of an epoch, which is printed after its checkpoint."""

    def __init__(self, step: int | None = None, line: int | None = None, by_signal: bool = False) -> None:
        super().__init__(quiet=True)
        self.step, self.line, self.by_signal = step, line, by_signal

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        def advance(more: int) -> None:
            nonlocal done
            done += more
            if description.startswith("train") and done == self.step:
                if not self.by_signal:
                    raise Stopped
                signals._receive(signal.SIGTERM, None)

        yield advance

    def detail(self, line: str) -> None:
        if line.startswith(f"epoch {self.line}/"):
            raise Stopped


STOPS = {
    "in the first epoch": StopAt(step=2),
    "at the end of the first epoch, before it is saved": StopAt(step=STEPS),
    "after the first epoch is saved": StopAt(line=1),
    "in the middle of the second epoch": StopAt(step=STEPS + 2),
    "by a signal there": StopAt(step=STEPS + 1, by_signal=True),
    "by a signal again, in the same epoch": StopAt(step=STEPS + 3, by_signal=True),
    "by a signal at the end of the epoch": StopAt(step=2 * STEPS, by_signal=True),
    "at the last step": StopAt(step=3 * STEPS),
    "after the last epoch is saved": StopAt(line=3),
}


def assert_same_run(run: Run, reference: Run) -> None:
    """Assert equality to the last bit, except for measured times."""
    weights, metadata = run.weights()
    expected_weights, expected_metadata = reference.weights()
    assert metadata == expected_metadata and weights.keys() == expected_weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, expected_weights[name]), name
    clocks = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(
        run.metrics.drop(columns=clocks), reference.metrics.drop(columns=clocks), check_exact=True
    )
    final, expected = ({k: v for k, v in r.final.items() if k not in clocks} for r in (run, reference))
    assert final == expected


# Resuming


@dataclasses.dataclass(frozen=True)
class Case:
    stage: int
    optimizer: OptimizerSettings
    backbone: BackboneSettings = RESNET
    regulation: RegulationSettings = PLAIN
    own_model: bool = False

    def start(self, folder: Path, stage1: PretrainRecipe, stage2: TrainRecipe, progress: Progress) -> Run:
        if self.stage == 1:
            return pretrain(
                dataclasses.replace(
                    stage1,
                    stimuli=dataclasses.replace(stage1.stimuli, count=80, validation=0.2),  # 64 for training
                    optimizer=self.optimizer,
                    backbone=self.backbone,
                ),
                folder,
                progress=progress,
            )
        recipe = dataclasses.replace(
            stage2,
            target=dataclasses.replace(stage2.target, image_size=16 if self.backbone is VIT else 8),
            optimizer=self.optimizer,
            backbone=self.backbone,
            regulation=self.regulation,
        )
        return train(recipe, folder, dropout_classifier() if self.own_model else None, progress)


def dropout_classifier() -> RegulatedClassifier:
    torch.manual_seed(0)
    return RegulatedClassifier(TinyBackbone(6), TinyBackbone(9), 10, mode="random")


SGD = OptimizerSettings(name="sgd", lr=0.05)
ADAMW = OptimizerSettings(name="adamw", lr=1e-3, weight_decay=0.05)
CASES = {
    "stage 1, SGD, one cycle, average": Case(1, dataclasses.replace(SGD, schedule="one_cycle", warmup=0.3, ema=0.8)),
    "stage 1, AdamW, random depth": Case(1, ADAMW, VIT),
    "stage 2, SGD, drawn λ": Case(2, SGD, regulation=RegulationSettings(mode="random")),
    "stage 2, SGD, average, one λ a class": Case(
        2, dataclasses.replace(SGD, ema=0.8), regulation=RegulationSettings("random_learned", granularity="per_class")
    ),
    "stage 2, AdamW, one cycle, average, clipping, random depth": Case(
        2,
        dataclasses.replace(ADAMW, schedule="one_cycle", warmup=0.3, ema=0.8, clip_norm=0.5),
        VIT,
        RegulationSettings("random_learned", granularity="per_sample"),
    ),
    "stage 2, own model with dropout": Case(2, SGD, own_model=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_run_that_is_stopped_repeatedly_ends_like_an_uninterrupted_one(
    case: Case,
    tmp_path: Path,
    stage1: PretrainRecipe,
    stage2: TrainRecipe,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "_DEFAULTS", ())  # as in a command, which has its own handlers
    reference = case.start(tmp_path / "whole", stage1, stage2, quiet)
    for when, progress in STOPS.items():
        monkeypatch.setattr(signals, "_request", None)
        with pytest.raises((Stopped, signals.Stopped)):
            case.start(tmp_path / "stopped", stage1, stage2, progress)
        assert not Run(tmp_path / "stopped").is_finished, when
    monkeypatch.setattr(signals, "_request", None)
    run = case.start(tmp_path / "stopped", stage1, stage2, quiet)
    assert_same_run(run, reference)
    assert len(run.environment) == len(STOPS) + 1


@pytest.mark.parametrize("file", [CHECKPOINT, METRICS, WEIGHTS, FINAL])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_cannot_write_a_file_resumes_from_the_last_checkpoint(
    file: str, epochs: int, tmp_path: Path, stage2: TrainRecipe, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(stage2, training=dataclasses.replace(stage2.training, epochs=epochs))
    reference = train(recipe, tmp_path / "whole", progress=quiet)
    writes = 0

    def write(path: Path, content: bytes | memoryview) -> None:
        nonlocal writes
        if path.name == file:
            writes += 1
            if writes == (epochs if file in (CHECKPOINT, METRICS) else 1):  # in the last epoch
                raise Stopped
        write_atomically(path, content)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        for module in (emoreg.runs.run, emoreg.runtime.safe_io):
            patch.setattr(module, "write_atomically", write)
        train(recipe, tmp_path / "stopped", progress=quiet)
    assert_same_run(train(recipe, tmp_path / "stopped", progress=quiet), reference)


@pytest.mark.thorough
def test_a_killed_process_resumes_when_started_again(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    recipe = dataclasses.replace(
        stage2,
        regulation=RegulationSettings(mode="random"),
        optimizer=dataclasses.replace(stage2.optimizer, ema=0.9),
        training=dataclasses.replace(stage2.training, epochs=15),
    )
    (tmp_path / "recipe.yaml").write_text(recipe_yaml(recipe))
    command = [sys.executable, "-m", "emoreg", "train", "recipe.yaml", "--out", "killed", "--quiet"]
    paths = os.pathsep.join(path for path in sys.path if path)  # the same emoreg as in this process
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "killed" / METRICS).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    run = Run(tmp_path / "killed")
    assert not run.is_finished and 1 <= len(run.metrics) < 15
    train(recipe, run.folder, progress=quiet)
    assert len(run.environment) == 2 and len(run.metrics) == 15
    assert_same_run(run, train(recipe, tmp_path / "whole", progress=quiet))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_process_that_gets_a_signal_saves_the_step_and_says_so(
    name: str, tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    recipe = dataclasses.replace(stage2, training=dataclasses.replace(stage2.training, epochs=500))
    (tmp_path / "recipe.yaml").write_text(recipe_yaml(recipe))
    command = [sys.executable, "-m", "emoreg", "train", "recipe.yaml", "--out", "asked", "--quiet"]
    paths = os.pathsep.join(path for path in sys.path if path)  # the same emoreg as in this process
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "asked" / METRICS).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(getattr(signal, name))
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert told == "emoreg: stopped by a signal; run the same command again to resume\n"
    run = Run(tmp_path / "asked")
    saved = run.load_checkpoint()
    assert saved is not None and not run.is_finished and not list(run.folder.glob("*.part"))


@pytest.mark.parametrize("stage", [1, 2])
def test_a_finished_run_is_returned_as_it_is(
    stage: int,
    tmp_path: Path,
    stage1: PretrainRecipe,
    stage2: TrainRecipe,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start() -> Run:
        return (
            pretrain(stage1, tmp_path / "run", progress=quiet)
            if stage == 1
            else train(stage2, tmp_path / "run", progress=quiet)
        )

    def files() -> dict[str, tuple[int, bytes]]:
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "run").glob("[!.]*")}

    final = start().final
    before = files()
    assert before.keys() == {RECIPE, INPUTS, ENVIRONMENT, METRICS, WEIGHTS, FINAL, SEEN}  # but no checkpoint
    for module in (stage_1, classify):
        monkeypatch.setattr(module, "fit", lambda *_arguments: pytest.fail("trained again"))
    again = start()
    assert again.is_finished and again.final == final
    assert before == files()


def test_same_recipe_and_seed_give_the_same_bits_and_another_seed_does_not(
    tmp_path: Path, stage1: PretrainRecipe, stage2: TrainRecipe, quiet: Progress
) -> None:
    starts: list[tuple[Recipe, Callable[..., Run]]] = [(stage1, pretrain), (stage2, train)]
    for recipe, start in starts:
        first, second = (start(recipe, tmp_path / start.__name__ / name, progress=quiet) for name in ("one", "two"))
        assert_same_run(first, second)
        other = start(dataclasses.replace(recipe, seed=1), tmp_path / start.__name__ / "other", progress=quiet)
        assert (other.metrics["train_loss"] != first.metrics["train_loss"]).all()
        weights, others = first.weights()[0], other.weights()[0]
        assert not any(torch.equal(value, others[name]) for name, value in weights.items() if name.endswith("weight"))


def test_the_callers_random_state_does_not_matter(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    recipe = dataclasses.replace(stage2, regulation=RegulationSettings(mode="random_learned"))
    torch.manual_seed(1)
    first = train(recipe, tmp_path / "one", progress=quiet)
    torch.manual_seed(2)
    assert_same_run(train(recipe, tmp_path / "two", progress=quiet), first)


# Writing


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("no space left on device")

    path = tmp_path / "final.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(broken, fail)
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("no space left on device")

    run = Run(tmp_path)
    run.save_checkpoint({"model": {"w": torch.ones(3)}, "rows": [{"epoch": 1}]})
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"cannot write .*metrics\.csv: no space"):
        patch.setattr("os.fsync", fail)
        run.save_checkpoint({"model": {"w": torch.zeros(3)}, "rows": [{"epoch": 1}, {"epoch": 2}]})
    saved = run.load_checkpoint()
    assert saved is not None and torch.equal(saved["model"]["w"], torch.ones(3)) and saved["rows"] == [{"epoch": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, METRICS]


def test_weights_and_metadata_can_be_read_back(tmp_path: Path) -> None:
    run = Run(tmp_path)
    shared = torch.randn(2, 3)
    weights = {
        "conv": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "one": shared,
        "same": shared,  # tied weights, or one module for both branches
    }
    metadata = {"stage": 2, "classes": ["Käfer", "ant"], "space": {"kind": "votes", "names": ["joy"]}}
    run.finish(weights, metadata, {"test": {"accuracy": 0.5}})
    read, told = run.weights()
    assert told == metadata and run.final == {"test": {"accuracy": 0.5}}
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())


# Starting


def test_a_new_run_contains_its_recipe_with_every_setting(tmp_path: Path, stage1: PretrainRecipe) -> None:
    for recipe in (dataclasses.replace(stage1, seed=7), TrainRecipe(seed=8)):
        run = start_run(tmp_path / f"deep/in/{recipe.seed}", recipe)
        assert re.search(rf"^seed: {recipe.seed}$", (run.folder / RECIPE).read_text(), re.MULTILINE)
        assert read_recipe(type(recipe), run.folder / RECIPE) == recipe == Run(run.folder).recipe
        assert not run.is_finished and run.environment == []
        assert start_run(run.folder, recipe) == run  # unfinished, so it is resumed


def test_another_recipe_is_refused_and_the_settings_that_differ_are_named(tmp_path: Path, stage2: TrainRecipe) -> None:
    (start_run(tmp_path / "run", stage2).folder / CHECKPOINT).touch()
    other = dataclasses.replace(stage2, seed=3, optimizer=dataclasses.replace(stage2.optimizer, lr=0.2))
    with pytest.raises(UserError) as caught:
        start_run(tmp_path / "run", other)
    message = str(caught.value)
    assert "optimizer.lr: 0.05 -> 0.2" in message and "seed: 0 -> 3" in message and "choose another folder" in message
    assert "momentum" not in message and "\n" not in message


def test_a_run_whose_first_start_failed_is_corrected(tmp_path: Path, stage2: TrainRecipe) -> None:
    start_run(tmp_path / "run", stage2)
    (tmp_path / "run" / f".{RECIPE}.123.part").touch()
    other = dataclasses.replace(stage2, seed=3)
    assert start_run(tmp_path / "run", other).recipe == other == Run(tmp_path / "run").recipe


@pytest.mark.parametrize("what", ["the same", "another recipe", "other inputs"])
def test_a_first_start_that_failed_leaves_nothing_to_another_run(
    what: str, tmp_path: Path, stage2: TrainRecipe
) -> None:
    run = start_run(tmp_path / "run", stage2, Inputs(experience="0" * 64))
    run.record_session({"device": "cpu"})
    for name in (SEEN, TRACKED, "notes.txt"):
        (run.folder / name).write_text("{}")
    (run.folder / EVENTS).mkdir()
    recipe = dataclasses.replace(stage2, seed=3) if what == "another recipe" else stage2
    again = start_run(run.folder, recipe, Inputs(experience=("1" if what == "other inputs" else "0") * 64))
    left = {SEEN, TRACKED, ENVIRONMENT, EVENTS} if what == "the same" else set()
    assert {path.name for path in run.folder.iterdir()} == {RECIPE, INPUTS, "notes.txt"} | left
    assert len(again.environment) == (what == "the same")


@pytest.mark.parametrize("first", [1, 2])
def test_a_run_of_the_other_stage_is_refused(
    first: int, tmp_path: Path, stage1: PretrainRecipe, stage2: TrainRecipe
) -> None:
    recipes: list[Recipe] = [stage1, stage2]
    start_run(tmp_path / "run", recipes[first - 1])
    with pytest.raises(UserError, match=f"a run of stage {first}; choose another folder"):
        start_run(tmp_path / "run", recipes[2 - first])


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, stage2: TrainRecipe) -> None:
    (tmp_path / "thesis.tex").write_text("three years")
    with pytest.raises(UserError, match=r"is not empty and holds no run; choose another folder"):
        start_run(tmp_path, stage2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="cannot create the run folder"):
        start_run(tmp_path / "thesis.tex", stage2)
    assert (tmp_path / "thesis.tex").read_text() == "three years"
    (tmp_path / "empty").mkdir()
    assert start_run(tmp_path / "empty", stage2).recipe == stage2


def test_each_start_records_its_environment(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    with pytest.raises(Stopped):
        train(stage2, tmp_path / "run", progress=StopAt(line=1))
    run = train(stage2, tmp_path / "run", progress=quiet)
    assert len(run.environment) == 2
    for session in run.environment:
        assert session["packages"]["torch"] == torch.__version__.split("+")[0]
        assert {"emoreg", "timm", "numpy", "lightning-fabric"} <= session["packages"].keys()
        assert session["git"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", session["git"])
        assert session["cpu"] and session["cores"] >= 1 and session["threads"] == 1 and "gpu" in session
        assert session["device"] == "cpu" and session["precision"] == "32-true"
        assert {"started", "command", "python", "platform"} <= session.keys()
    run.record_session({"note": "later"})
    assert [session.get("note") for session in run.environment] == [None, None, "later"]


# Damage


@pytest.fixture
def saved(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    model = TinyBackbone()
    run.save_checkpoint({"model": model.state_dict(), "rows": [{"epoch": 1, "lr": 0.1}], "seconds": 1.0})
    content = (run.folder / CHECKPOINT).read_bytes()
    run.finish(model.state_dict(), {"stage": 2, "classes": ["a"]}, {"test": {"accuracy": 1.0}})
    (run.folder / CHECKPOINT).write_bytes(content)
    return run


def test_a_checkpoint_cut_short_anywhere_says_so(saved: Run) -> None:
    path = saved.folder / CHECKPOINT
    content = path.read_bytes()
    assert saved.load_checkpoint() is not None
    for length in [0, 1, 2, 3, 4, 10, *range(50, len(content), len(content) // 20), len(content) - 1]:
        path.write_bytes(content[:length])
        assert f"{path} is damaged" in refusal(saved.load_checkpoint), length


def test_a_checkpoint_with_a_single_bit_changed_in_a_weight_says_so(saved: Run) -> None:
    path = saved.folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    weight = max(present(saved.load_checkpoint())["model"].values(), key=torch.numel)
    content[content.index(weight.numpy().tobytes()) + 1] ^= 1
    path.write_bytes(content)
    assert "is damaged" in refusal(saved.load_checkpoint) and "checksum" in refusal(saved.load_checkpoint)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [b"\0" * 100, b"not a checkpoint", b"\x80\x02", b"\x80\x04]", b"(lp0\n", b"\xff" * 64, pickle.dumps([1, 2])],
)
def test_a_checkpoint_of_anything_else_says_so(saved: Run, content: bytes) -> None:
    (saved.folder / CHECKPOINT).write_bytes(content)
    assert "is damaged" in refusal(saved.load_checkpoint) and "delete it" in refusal(saved.load_checkpoint)


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], None, [], {}, {"format": 1}, {"rows": 3}])
def test_a_checkpoint_that_is_no_state_says_so(saved: Run, content: object) -> None:
    torch.save(content, saved.folder / CHECKPOINT)
    assert "is damaged" in refusal(saved.load_checkpoint)


class Malice:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "torch, old", "pickle"])
def test_code_in_a_checkpoint_is_not_run(form: str, tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    run, trace = start_run(tmp_path / "run", stage2), tmp_path / "trace"
    state = {"model": Malice(trace), "rows": [], "seconds": 0.0}
    if form == "pickle":
        (run.folder / CHECKPOINT).write_bytes(pickle.dumps(state))
    else:
        torch.save(state, run.folder / CHECKPOINT, _use_new_zipfile_serialization=form == "torch")
    assert CHECKPOINT in refusal(lambda: train(stage2, run.folder, progress=quiet))
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malice(trace))).close()
    assert trace.exists()  # without the safeguard it is created


def test_weights_cut_short_anywhere_say_so(saved: Run) -> None:
    path = saved.folder / WEIGHTS
    content = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 40, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        assert str(path) in refusal(saved.weights), length
    path.write_bytes(b"\xff" * 100)
    assert str(path) in refusal(saved.weights)
    path.unlink()
    assert str(path) in refusal(saved.weights)


def test_weights_without_metadata_say_so(saved: Run) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, saved.folder / WEIGHTS)
    assert WEIGHTS in refusal(saved.weights)
    save_file({"w": torch.ones(2)}, saved.folder / WEIGHTS, {"emoreg": "{half"})
    assert WEIGHTS in refusal(saved.weights)


@pytest.mark.parametrize("content", ["", '{"test": {"accu', "[1, 2]", "null", "\0\0"])
def test_damaged_json_says_so(saved: Run, content: str) -> None:
    (saved.folder / FINAL).write_text(content)
    assert f"{saved.folder / FINAL} is damaged" in refusal(lambda: saved.final)
    (saved.folder / ENVIRONMENT).write_text(content)
    assert f"{saved.folder / ENVIRONMENT} is damaged" in refusal(lambda: saved.environment)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"a recipe", b"stimuli: [", b"\xff\xfe\x00", b"\0"])
def test_a_damaged_recipe_says_so(tmp_path: Path, stage2: TrainRecipe, content: bytes) -> None:
    (tmp_path / RECIPE).write_bytes(content)
    assert str(tmp_path) in refusal(lambda: Run(tmp_path).recipe)
    assert str(tmp_path) in refusal(lambda: start_run(tmp_path, stage2))


def test_an_unfinished_run_says_so(tmp_path: Path, stage2: TrainRecipe) -> None:
    run = start_run(tmp_path / "run", stage2)
    for ask in (run.weights, lambda: run.final):
        assert "not finished" in refusal(ask)
    assert run.load_checkpoint() is None


def test_a_missing_run_is_an_error_that_names_the_searched_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(lambda: Run(Path("typo")).final) == f"there is no run folder typo in {Path.cwd()}"
    assert refusal(Run(tmp_path / "typo").weights) == f"there is no run folder {tmp_path / 'typo'}"


def test_a_run_that_diverged_says_so_and_is_trained_again_only_without_its_folder(
    tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    diverging = dataclasses.replace(stage2, optimizer=OptimizerSettings(lr=1e38, warmup=0.0))
    run = Run(tmp_path / "run")
    first = refusal(lambda: train(diverging, run.folder, progress=quiet))
    assert first.startswith(f"{run.folder}: stage 2 diverged: ") and "in another run; to train this one again" in first
    with pytest.raises(Diverged) as again:
        train(diverging, run.folder, progress=quiet)
    assert first == str(again.value) == str(run.divergence) and len(run.environment) == 1
    assert first == refusal(run.weights) == refusal(lambda: run.final)
    assert "holds a run with other settings" in refusal(lambda: train(stage2, run.folder, progress=quiet))
    shutil.rmtree(run.folder)
    assert train(stage2, run.folder, progress=quiet).divergence is None


def test_a_diverged_run_has_ended_also_after_it_was_moved(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    with pytest.raises(Diverged), claim_run(tmp_path / "run", stage2, quiet):
        raise Diverged("the loss became nan")
    run = Run((tmp_path / "run").rename(tmp_path / "moved"))
    assert run.has_ended and not run.is_finished and not (tmp_path / "run").exists()
    assert str(run.divergence).startswith(f"{tmp_path / 'moved'}: stage 2 diverged: the loss became nan; ")


def test_only_divergence_is_recorded_as_such(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    for error in (UserError("out of memory"), RuntimeError("of a library"), KeyboardInterrupt()):
        with pytest.raises(type(error)), claim_run(tmp_path / "run", stage2, quiet):
            raise error
        assert not Run(tmp_path / "run").has_diverged
    assert train(stage2, tmp_path / "run", progress=quiet).is_finished


def test_the_advice_on_divergence_names_settings_of_its_stage(
    tmp_path: Path, stage1: PretrainRecipe, stage2: TrainRecipe, quiet: Progress
) -> None:
    encoder = EncoderSettings(experience="stage1", rehearsal=1.0)
    rehearsing = dataclasses.replace(stage2, regulation=RegulationSettings("learned"), encoder=encoder)
    for recipe, told in (
        (stage1, "stage 1 diverged: the loss became nan; lower optimizer.lr, raise"),
        (stage2, "stage 2 diverged: the loss became nan; lower optimizer.lr, raise"),
        (rehearsing, "stage 2 diverged: the loss became nan; lower optimizer.lr or encoder.rehearsal, raise"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(Diverged, match=re.escape(told)), claim_run(folder, recipe, quiet):
            raise Diverged("the loss became nan")


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "{}", '{"error": 3}', "\0\0"])
def test_a_damaged_record_of_a_divergence_says_so(
    tmp_path: Path, stage2: TrainRecipe, quiet: Progress, content: str
) -> None:
    run = start_run(tmp_path / "run", stage2)
    (run.folder / DIVERGED).write_text(content)
    for ask in (run.weights, lambda: run.divergence, lambda: train(stage2, run.folder, progress=quiet)):
        assert f"{run.folder / DIVERGED} is damaged" in refusal(ask)


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    assert "is not a run folder" in refusal(lambda: Run(tmp_path).recipe)
    assert "is not a run folder" in refusal(lambda: Run(tmp_path / "missing").stage)


def test_an_export_given_as_a_run_is_refused_with_how_to_load_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"regulation": {"mode": "learned"}}')
    told = refusal(lambda: load_run(tmp_path))
    assert "an export" in told and "from_pretrained" in told and "recipe.yaml" not in told
    for content in ('{"architectures": ["BertModel"]}', "[]", "{"):  # of another library, or invalid
        (tmp_path / "config.json").write_text(content)
        assert "an export" not in refusal(lambda: load_run(tmp_path))


def test_a_folder_with_only_traces_of_a_killed_start_is_accepted(tmp_path: Path, stage2: TrainRecipe) -> None:
    for name in (".lock", ".holder.json", f".{RECIPE}.123.part"):
        (tmp_path / name).touch()
    assert start_run(tmp_path, stage2).recipe == stage2


def test_a_run_killed_before_its_checkpoint_was_deleted_is_finished_and_cleaned_up(
    tmp_path: Path, stage2: TrainRecipe, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Run, "drop_checkpoint", lambda _run: (_ for _ in ()).throw(Stopped))
        train(stage2, tmp_path / "run", progress=quiet)
    run = Run(tmp_path / "run")
    assert run.is_finished and (run.folder / CHECKPOINT).exists()
    train(stage2, run.folder, progress=quiet)
    assert not (run.folder / CHECKPOINT).exists() and len(run.environment) == 1


def test_a_failed_start_leaves_no_folders(tmp_path: Path, stage2: TrainRecipe, quiet: Progress) -> None:
    nowhere = dataclasses.replace(stage2.target, name="folder", root=str(tmp_path / "nowhere"))
    unknown = dataclasses.replace(stage2, backbone=BackboneSettings("resnet1999"))
    for recipe in (dataclasses.replace(stage2, target=nowhere), unknown):
        refusal(partial(train, recipe, tmp_path / "runs" / "run", progress=quiet))
        assert not any(tmp_path.iterdir())
    (tmp_path / "own").mkdir()
    refusal(lambda: train(unknown, tmp_path / "own", progress=quiet))
    assert (tmp_path / "own").is_dir() and not (tmp_path / "own" / RECIPE).exists()


def test_a_resumed_run_keeps_its_precision_even_if_auto_now_means_another(
    tmp_path: Path, stage2: TrainRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(stage2, training=dataclasses.replace(stage2.training, epochs=2, precision="auto"))
    whole = train(recipe, tmp_path / "whole", progress=Progress(quiet=True))
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "run", progress=StopAt(line=1))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    lines: list[str] = []
    progress = Progress(quiet=True)
    monkeypatch.setattr(progress, "say", lines.append)
    run = train(recipe, tmp_path / "run", progress=progress)
    assert_same_run(run, whole)
    assert [session["precision"] for session in run.environment] == ["32-true", "32-true"]
    assert "run: was started in 32-true and continues in it (training.precision auto is bf16-mixed here)" in lines

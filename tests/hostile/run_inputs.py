"""Malformed files in the folders of runs and studies: checkpoints, weights, metrics, recipes, tables, exports."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.read_recipe import recipe_yaml
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings, StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.runs.run import (
    CALIBRATION,
    CHECKPOINT,
    DIVERGED,
    ENVIRONMENT,
    FINAL,
    INPUTS,
    METRICS,
    RECIPE,
    SEEN,
    WEIGHTS,
    Run,
)
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain
from emoreg.suites.options import parse_suites
from hostile.label_inputs import parquet
from hostile.malformed import Content, Malformed, put
from hostile.set_inputs import DEEP, png
from pickles import Touches, torch_saved

ONE = TrainingSettings(epochs=1, batch_size=16, device="cpu", precision="32-true")
STAGE_1 = PretrainRecipe(
    stimuli=StimuliSettings(count=20, image_size=8), backbone=BackboneSettings("resnet8"), training=ONE
)
STAGE_2 = TrainRecipe(
    target=TargetSettings(image_size=8, limit=32),
    backbone=BackboneSettings("resnet8"),
    encoder=EncoderSettings(experience="experience"),
    regulation=RegulationSettings(mode="learned"),
    optimizer=OptimizerSettings(lr=0.01),
    training=ONE,
)
STUDY = """\
edition: 2
modes: []
references: [backbone]
seeds: 1
classifier:
  backbone: {name: resnet8}
  training: {device: cpu, precision: 32-true}
"""
Change = Callable[[Path], object]  # changes a run folder


@functools.cache
def finished() -> Path:
    """A folder with the runs "experience" and "run", and the checkpoint of "run" after its only epoch."""
    home = Path(tempfile.mkdtemp(prefix="emoreg-hostile-"))
    kept: list[bytes] = []
    with contextlib.chdir(home):  # the recipe of "run" names "experience" by its relative path, as users do
        torch.set_num_threads(1)
        with mock.patch.object(Run, "drop_checkpoint", lambda run: kept.append((run.folder / CHECKPOINT).read_bytes())):
            pretrain(STAGE_1, "experience", progress=Progress(quiet=True))
            train(STAGE_2, "run", progress=Progress(quiet=True))
        for folder in ("experience", "run"):
            (Path(folder) / CHECKPOINT).unlink(missing_ok=True)
        Path("checkpoint").write_bytes(kept[-1])
    return home


def copied(change: Change, name: str = "run") -> Callable[[Path], None]:
    """Return a function that copies the runs of `finished` and changes one of them."""

    def make(path: Path) -> None:
        for folder in ("experience", "run"):
            shutil.copytree(finished() / folder, path.parent / folder)
        change(path.parent / name)

    return make


def unfinished(change: Change) -> Change:
    """Return a change that makes a finished run unfinished and then applies `change`."""

    def make(folder: Path) -> None:
        for name in (FINAL, WEIGHTS):
            (folder / name).unlink()
        shutil.copy(finished() / "checkpoint", folder / CHECKPOINT)
        change(folder)

    return make


def written(name: str, content: Content) -> Change:
    """Return a change that replaces a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        put(folder / name, content)

    return change


def edited(name: str, edit: Callable[[bytes], bytes]) -> Change:
    """Return a change that edits the bytes of a file."""
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


def state_with(change: Callable[[dict[str, Any]], object]) -> Change:
    """Return a change that edits the content of the checkpoint."""

    def edit(folder: Path) -> None:
        state = torch.load(folder / CHECKPOINT, weights_only=True)
        change(state)
        torch.save(state, folder / CHECKPOINT)

    return edit


def first_weight(state: dict[str, Any]) -> str:
    """The name of a weight matrix, the same in any order of tensors. λ's logit would not do: it may be infinite."""
    return min(n for n, v in state.items() if v.is_floating_point() and v.ndim > 1 and min(v.shape[:2]) > 1)


def compressed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


def epoch_with(**changes: object) -> Change:
    """Return a change that saves the checkpoint within the first epoch, with changes to the state of that epoch."""
    epoch = {"steps": 1, "seconds": 0.1, "losses": torch.zeros(2), "draws": None}
    return state_with(lambda state: state.update(rows=[], begun=epoch | changes))


CHECKPOINTS: tuple[tuple[str, Change], ...] = (
    ("nothing", written(CHECKPOINT, b"")),
    ("text", written(CHECKPOINT, "weights")),
    ("cut in half", edited(CHECKPOINT, lambda content: content[: len(content) // 2])),
    ("its end cut off", edited(CHECKPOINT, lambda content: content[:-1])),
    ("zeros in the middle", edited(CHECKPOINT, lambda c: c[: len(c) // 3] + bytes(len(c) // 3) + c[2 * len(c) // 3 :])),
    ("code", written(CHECKPOINT, torch_saved({"model": Touches()}))),
    ("code in the older format", written(CHECKPOINT, torch_saved(Touches(), _use_new_zipfile_serialization=False))),
    ("code in a bare pickle", written(CHECKPOINT, pickle.dumps(Touches()))),
    ("compressed", edited(CHECKPOINT, compressed)),
    ("a zip of something else", written(CHECKPOINT, compressed(torch_saved(1)))),
    ("a list", written(CHECKPOINT, torch_saved([1, 2]))),
    ("a tensor", written(CHECKPOINT, torch_saved(torch.ones(3)))),
    ("an empty state", written(CHECKPOINT, torch_saved({}))),
    ("a whole module", written(CHECKPOINT, torch_saved(torch.nn.Linear(2, 2)))),
    ("a later format", state_with(lambda state: state.update(format=99))),
    ("text for a format", state_with(lambda state: state.update(format="one"))),
    ("no model", state_with(lambda state: state.pop("model"))),
    ("a list for the model", state_with(lambda state: state.update(model=[1]))),
    ("text for a weight", state_with(lambda state: state["model"].update({first_weight(state["model"]): "x"}))),
    ("a weight of another shape", state_with(lambda s: s["model"].update({first_weight(s["model"]): torch.ones(7)}))),
    ("a weight that is missing", state_with(lambda state: state["model"].pop(first_weight(state["model"])))),
    ("a weight too many", state_with(lambda state: state["model"].update(more=torch.ones(2)))),
    ("weights that are NaN", state_with(lambda s: s["model"][first_weight(s["model"])].fill_(float("nan")))),
    ("infinite weights", state_with(lambda state: state["model"][first_weight(state["model"])].fill_(float("inf")))),
    ("no optimizer", state_with(lambda state: state.pop("optimizer"))),
    ("text for a learning rate", state_with(lambda state: state["optimizer"]["param_groups"][0].update(lr="fast"))),
    ("no groups of parameters", state_with(lambda state: state["optimizer"].update(param_groups=[]))),
    ("a momentum of another shape", state_with(
        lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.ones(7)))),
    ("text for a momentum", state_with(lambda s: s["optimizer"]["state"][0].update(momentum_buffer="x"))),
    ("a schedule that is a list", state_with(lambda state: state.update(schedule=[1]))),
    ("a schedule with text for a step", state_with(lambda state: state["schedule"].update(last_epoch="x"))),
    ("text for the metrics", state_with(lambda state: state.update(rows="x"))),
    ("a list of text for the metrics", state_with(lambda state: state.update(rows=["x"]))),
    ("text in a row of metrics", state_with(lambda state: state.update(rows=[{"epoch": "one"}]))),
    ("text for the seconds", state_with(lambda state: state.update(seconds="x"))),
    ("an epoch that is text", state_with(lambda state: state.update(rows=[], begun="x"))),
    ("an epoch with losses of more steps", epoch_with(losses=torch.zeros(99))),
    ("an epoch with too many steps", epoch_with(steps=99)),
    ("an epoch without losses", epoch_with(losses=[1.0])),
    ("an epoch with an unknown key", epoch_with(more=1)),
    ("invalid random states", epoch_with(draws={"cpu": torch.ones(3)})),
    ("a tensor for the random states", epoch_with(draws=torch.ones(3))),
    ("a folder", written(CHECKPOINT, Path.mkdir)),
    ("a link to an endless file", written(CHECKPOINT, lambda path: path.symlink_to("/dev/zero"))),
    ("a pipe that nobody writes to", written(CHECKPOINT, os.mkfifo)),
)  # fmt: skip


def tensors_with(
    change: Callable[[dict[str, Any]], object] = lambda weights: None,
    metadata: Callable[[Any], Any] = lambda m: m,
) -> Change:
    """Return a change that edits a weight file and replaces its metadata; None leaves the metadata out."""

    def edit(folder: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(folder / WEIGHTS, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            changed = metadata(json.loads(file.metadata()["emoreg"]))
        change(weights)
        text = changed if isinstance(changed, str) else json.dumps(changed)
        save_file(weights, folder / WEIGHTS, {"emoreg": text} if changed is not None else None)

    return edit


def header(text: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    return len(text).to_bytes(8, "little") + text + data


WEIGHT_FILES: tuple[tuple[str, Change], ...] = (
    ("nothing", written(WEIGHTS, b"")),
    ("text", written(WEIGHTS, "weights")),
    ("cut in half", edited(WEIGHTS, lambda content: content[: len(content) // 2])),
    ("its end cut off", edited(WEIGHTS, lambda content: content[:-1])),
    ("code in torch's format", written(WEIGHTS, torch_saved(Touches()))),
    ("code in a bare pickle", written(WEIGHTS, pickle.dumps(Touches()))),
    ("a header that never ends", written(WEIGHTS, b"\xff" * 7 + b"\x7f{}")),
    ("a header nested deep", written(WEIGHTS, header(b'{"a":' * 5000))),
    ("a header that is a list", written(WEIGHTS, header(b"[1, 2]"))),
    ("a tensor beyond the file", written(WEIGHTS, header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'))),
    ("a tensor of 2^64 numbers", written(WEIGHTS, header(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', bytes(4)))),
    ("tensors that overlap", written(WEIGHTS, header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4)))),
    ("an unknown type", written(WEIGHTS, header(
        b'{"a":{"dtype":"Q99","shape":[1],"data_offsets":[0,4]}}', bytes(4)))),
    ("no metadata", tensors_with(metadata=lambda m: None)),
    ("metadata cut off", tensors_with(metadata=lambda m: '{"classes": [')),
    ("nested brackets as metadata", tensors_with(metadata=lambda m: "[" * DEEP)),
    ("a list as metadata", tensors_with(metadata=lambda m: [1, 2])),
    ("a later format", tensors_with(metadata=lambda m: m | {"format": 2})),
    ("a fraction for a format", tensors_with(metadata=lambda m: m | {"format": 0.5})),
    ("weights that are NaN", tensors_with(lambda weights: weights[first_weight(weights)].fill_(float("nan")))),
    ("infinite weights", tensors_with(lambda weights: weights[first_weight(weights)].fill_(float("inf")))),
    ("a weight of another shape", tensors_with(lambda weights: weights.update({first_weight(weights): torch.ones(7)}))),
    ("a weight that is missing", tensors_with(lambda weights: weights.pop(first_weight(weights)))),
    ("no weights", tensors_with(lambda weights: weights.clear())),
    ("a folder", written(WEIGHTS, Path.mkdir)),
    ("a link to an endless file", written(WEIGHTS, lambda path: path.symlink_to("/dev/zero"))),
    ("a pipe that nobody writes to", written(WEIGHTS, os.mkfifo)),
)  # fmt: skip
CLASSIFIER_METADATA: tuple[tuple[str, Change], ...] = (
    ("no classes", tensors_with(metadata=lambda m: {"stage": 2})),
    ("a number for the classes", tensors_with(metadata=lambda m: m | {"classes": 10})),
    ("text for the classes", tensors_with(metadata=lambda m: m | {"classes": "abcdefghij"})),
    ("numbers for classes", tensors_with(metadata=lambda m: m | {"classes": list(range(10))})),
    ("two classes of ten", tensors_with(metadata=lambda m: m | {"classes": ["a", "b"]})),
    ("classes with terminal codes", tensors_with(metadata=lambda m: m | {"classes": ["\x1b[2J"] * 10})),
)
ENCODER_METADATA: tuple[tuple[str, Change], ...] = (
    ("no space", tensors_with(metadata=lambda m: {"stage": 1})),
    ("a space that is text", tensors_with(metadata=lambda m: m | {"space": "plane"})),
    ("a space of an unknown kind", tensors_with(metadata=lambda t: t | {"space": {"kind": "x", "names": ["a", "b"]}})),
    ("a space of numbers", tensors_with(metadata=lambda m: m | {"space": {"kind": "votes", "names": [1, 2]}})),
    ("a space of another size", tensors_with(metadata=lambda t: t | {"space": {"kind": "votes", "names": ["a"] * 9}})),
    ("no heads", tensors_with(metadata=lambda m: m | {"heads": []})),
    ("heads that end nowhere", tensors_with(metadata=lambda m: m | {"heads": [
        {"name": "x", "start": 0, "stop": 10**12, "space": {"kind": "votes", "names": ["a", "b"]}}]})),
)  # fmt: skip
FINALS: tuple[tuple[str, Content, str], ...] = (
    ("nothing", "", FINAL),
    ("not JSON", "{half", FINAL),
    ("a list", "[1, 2]", FINAL),
    ("nested brackets", "[" * DEEP, FINAL),
    ("bytes that are not Unicode", b'{"test": "\xff"}', FINAL),
    ("no measurement", '{"seconds": 1}', "test"),
    ("a list for a measurement", '{"test": [1]}', "test"),
    ("text for an accuracy", '{"test": {"accuracy": "high"}}', "test"),
    ("an accuracy of 300 %", '{"test": {"accuracy": 3}}', "test"),
    ("a number of 400 digits", '{"test": {"images": 1' + "0" * 400 + "}}", "test"),
    ("a number of 5,000 digits", '{"test": {"images": 1' + "0" * 5000 + "}}", FINAL),
    ("text for λ", '{"test": {}, "lambda": ["x"]}', "lambda"),
    ("numbers for classes", '{"test": {}, "classes": [1, 2]}', "classes"),
    ("text for the seconds", '{"test": {}, "seconds": "long"}', "seconds"),
    ("lists of different length", '{"test": {"reliability": {"count": [1], "accuracy": [1, 1]}}}', "test"),
    ("an endless file", lambda path: path.symlink_to("/dev/zero"), FINAL),
)
DIVERGENCES: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[1, 2]"),
    ("a number for the reason", '{"error": 3}'),
    ("nested brackets", "[" * DEEP),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
)
SEEN_FILES: tuple[tuple[str, Content], ...] = (  # fingerprints of the images that a run was trained on
    ("nothing", b""),
    ("an image", png()),
    ("a later format", b"emoregSE" + bytes([9, 0, 0, 0, 8, 0, 0, 0]) + bytes(8)),
    ("fewer images than it says", b"emoregSE" + bytes([1, 0, 0, 0, 8, 0, 0, 0, 5]) + bytes(7 + 8)),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
)
METRIC_FILES: tuple[tuple[str, Content], ...] = (
    ("no column of epochs", "loss\n1\n"),
    ("text for a loss", "epoch,train_loss\n1,high\n"),
    ("an image", png()),
    ("bytes that are not Unicode", b"epoch,\xff\xfe\n1,2\n"),
    ("a quote that is left open", 'epoch,"train_loss\n1,2\n'),
    ("rows of different length", "epoch,a\n1,2\n1,2,3,4\n"),
    ("a number of 5,000 digits", "epoch,a\n1," + "9" * 5000 + "\n"),
    ("null bytes", b"epoch,train_loss\n1,\0\0\n"),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
    ("a pipe that nobody writes to", os.mkfifo),
)
ENVIRONMENTS: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[]"),
    ("no sessions", "{}"),
    ("text for the sessions", '{"sessions": "x"}'),
    ("numbers for sessions", '{"sessions": [1]}'),
    ("nested brackets", "[" * DEEP),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
)
INPUT_FILES: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[]"),
    ("no checksums", '{"data": {"target": {}}, "experience": null}'),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
)
CALIBRATIONS: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[]"),
    ("nested brackets", "[" * DEEP),
    ("a temperature of 0", '{"format": 1, "temperature": 0, "fitted_on": "x", "images": 9, "nll": 1, "nll_scaled": 1}'),
    ("a later format", '{"format": 99}'),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
    ("a pipe", os.mkfifo),
)
RECIPES: tuple[tuple[str, Change, str], ...] = (
    ("nothing", written(RECIPE, ""), RECIPE),
    ("a list", written(RECIPE, "- a\n- b\n"), RECIPE),
    ("an image", written(RECIPE, png()), RECIPE),
    ("no file", lambda folder: (folder / RECIPE).unlink(), RECIPE),
    ("an endless file", written(RECIPE, lambda path: path.symlink_to("/dev/zero")), RECIPE),
    ("an alias", edited(RECIPE, lambda text: text + b"more: *x\n"), RECIPE),
    ("a tag", edited(RECIPE, lambda text: text.replace(b"seed: 0", b"seed: !!python/name:os.system 0")), RECIPE),
    ("a key of a later emoreg", edited(RECIPE, lambda text: text + b"quantum: true\n"), "quantum"),
    ("a deeper network", edited(RECIPE, lambda text: text.replace(b"name: resnet8", b"name: resnet14")), WEIGHTS),
    ("an unknown network", edited(RECIPE, lambda t: t.replace(b"resnet8", b"resnet9")), "backbone"),
    ("a network from the Hub", edited(RECIPE, lambda t: t.replace(b"resnet8", b"hf-hub:me/mine")), "backbone.name"),
    (
        "a network for larger images",
        edited(RECIPE, lambda t: t.replace(b"resnet8", b"inception_v3")),
        "does not take images of 8 pixels",
    ),
    ("unknown weights", edited(RECIPE, lambda t: t.replace(b"resnet8", b"resnet18.mine")), "backbone.name"),
    ("another mode", edited(RECIPE, lambda text: text.replace(b"mode: learned", b"mode: none")), "encoder.experience"),
    ("λ for each class", edited(RECIPE, lambda text: text.replace(b"scalar", b"per_class")), WEIGHTS),
    ("images of 10^12 pixels a side", edited(RECIPE, lambda t: t.replace(b"size: 8", b"size: 1000000000000")), "size"),
    ("an experience with a null byte", edited(RECIPE, lambda t: t.replace(b": experience", b': "a\\0"')), "experience"),
    ("the other stage", written(RECIPE, recipe_yaml(STAGE_1)), "stage 1"),
)  # fmt: skip


def study_with(name: str, content: Content) -> Callable[[Path], None]:
    """Return a function that writes a study whose only run is finished, with one file of the run replaced."""

    def make(path: Path) -> None:
        from emoreg.study.plan import plan_runs
        from emoreg.study.read_study import read_study

        path.mkdir()
        (path / "study.yaml").write_text(STUDY)
        for planned in plan_runs(read_study(path / "study.yaml"), path / "runs"):
            planned.folder.mkdir(parents=True)
            (planned.folder / RECIPE).write_text(recipe_yaml(planned.recipe))
            (planned.folder / METRICS).write_text("epoch,train_loss,val_accuracy\n1,1.0,0.5\n")
            (planned.folder / FINAL).write_text('{"test": {"accuracy": 0.5, "ece": 0.1}, "images": {"train": 9}}')
            written(name, content)(planned.folder)

    return make


def tables() -> Iterator[tuple[str, Content]]:
    import pyarrow as pa
    from pyarrow import parquet as pq

    whole = parquet(stage=[2, 2], status=["finished"] * 2, run=["a", "b"])
    yield "nothing", b""
    yield "text", b"a table"
    yield "cut in half", whole[: len(whole) // 2]
    yield "a damaged footer", whole[:-80] + bytes(60) + whole[-20:]
    yield "damaged pages", whole[:4] + bytes(60) + whole[64:]
    yield "another table", parquet(x=[1, 2])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"stage": pa.array(np.zeros(2_000_000, np.int8))}), buffer)
    yield "two million rows in a few kilobytes", buffer.getvalue()
    buffer = io.BytesIO()
    metadata = {b"pandas": b'{"columns": [{"name": 3}], "index_columns": [{"kind": "x"}]}'}
    pq.write_table(pa.table({"stage": [1]}).replace_schema_metadata(metadata), buffer)
    yield "a schema that pandas does not understand", buffer.getvalue()
    yield "a folder", Path.mkdir
    yield "a pipe that nobody writes to", os.mkfifo


def tables_for_reports() -> Iterator[tuple[str, bytes]]:
    """Tables that can be read but have wrong values for a report."""
    import pandas as pd

    valid: dict[str, object] = {"stage": 2, "status": "finished", "run": "a", "error": None, "mode": "none", "seed": 0}
    valid |= {"target": "cifar10", "backbone": "resnet8", "experience": None, "variant": None, "stimuli": None}
    valid |= {"test_accuracy": 0.5, "test_per_class": [0.5], "epochs.epoch": [1, 2], "epochs.train_loss": [2.0, 1.0]}
    for what, change in (
        ("no run is finished", {"status": "waiting"}),
        ("an unknown status", {"status": "done"}),
        ("a column whose name is misspelt", {"lamda": 0.5}),
        ("a run that is there twice", {}),
        ("an unknown mode", {"mode": "<b>learnt</b>"}),
        ("an unknown arm", {"arm": "<b>learnt</b>"}),
        ("a mode that is a number", {"mode": 3}),
        ("no mode", {"mode": None}),
        ("half a seed", {"seed": 0.5}),
        ("no seed", {"seed": None}),
        ("a stage that is text", {"stage": "two"}),
        ("an accuracy of 5000 %", {"test_accuracy": 50.0}),
        ("an accuracy that is text", {"test_accuracy": "high"}),
        ("no accuracy", {"test_accuracy": None}),
        ("an infinite time", {"seconds": math.inf}),
        ("times for seconds", {"seconds": pd.Timestamp("2026-01-01")}),
        ("accuracies of classes that are text", {"test_per_class": ["high"]}),
        ("accuracies of classes above one", {"test_per_class": [3.0]}),
        ("one accuracy for all classes", {"test_per_class": 0.5}),
        ("classes that are numbers", {"classes": [1, 2]}),
        ("a command that is a list", {"env.command": ["rm"]}),
        ("a count of images that is text", {"images_train": "many"}),
        ("curves of different lengths", {"epochs.train_loss": [2.0]}),
        ("a curve of lists", {"epochs.train_loss": [[1.0], [2.0]]}),
    ):
        rows = [valid | change] * (2 if "twice" in what else 1)
        yield what, pd.DataFrame(rows).to_parquet()


SUITE_RESULT = f"suites/calibration-{parse_suites(['calibration'])[0].id}.json"
GOOD_RESULT = {
    "format": 1,
    "suite": "calibration",
    "options": {"seed": 0},
    "run": "0",
    "figures": {"ece": 0.1},
    "images": "9 test images",
}


def _result(**changes: Any) -> str:
    return json.dumps(GOOD_RESULT | changes)


SUITE_RESULTS: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[]"),
    ("bytes", b"\xff\xfe\x00"),
    ("nested brackets", "[" * DEEP),
    ("figures that are text", _result(figures={"ece": "low"})),
    ("figures that are a list", _result(figures=[0.1])),
    ("no figures", _result(figures={})),
    ("a figure whose name has terminal codes", _result(figures={"\x1b[2J": 0.1})),
    ("an infinite figure", _result().replace("0.1", "1e999")),
    ("a later format", _result(format=99)),
    ("options of another suite", _result(suite="corruptions")),
    ("a number for its images", _result(images=9)),
    ("a pipe", os.mkfifo),
)


def _suite_results() -> Iterator[Malformed]:
    for what, content in SUITE_RESULTS:

        def change(folder: Path, content: Content = content) -> None:
            (folder / SUITE_RESULT).parent.mkdir()
            written(SUITE_RESULT, content)(folder)

        command = ("suites", "run", "--suites", "calibration", "--quiet")
        yield Malformed("result of a suite", what, {"x": copied(change)}, command, SUITE_RESULT)


def _diverged_and_seen() -> Iterator[Malformed]:
    resume = ("train", "run/recipe.yaml", "--out", "run", "--quiet")
    for what, content in DIVERGENCES:
        files = {"x": copied(unfinished(written(DIVERGED, content)))}
        yield Malformed("diverged.json", what, files, resume, DIVERGED)
    for what, content in SEEN_FILES:
        files = {"x": copied(written(SEEN, content))}
        yield Malformed("seen.bin", what, files, ("evaluate", "run", "--quiet"), SEEN)


def _calibrations() -> Iterator[Malformed]:
    command = ("predict", "run", "photo.png", "--temperature", "calibrated", "--quiet")
    for what, content in CALIBRATIONS:
        files: dict[str, Content] = {"x": copied(written(CALIBRATION, content)), "photo.png": png()}
        yield Malformed("calibration.json", what, files, command, CALIBRATION)


def run_inputs() -> Iterator[Malformed]:
    """Every malformed file, as input of a command that reads it."""
    quiet = ("--out", "run", "--quiet")
    resume = ("train", "run/recipe.yaml", *quiet)
    export = ("export", "run", "--to", "out", "--format", "hub", "--quiet")
    predict = ("predict", "run", "photo.png", "--quiet")
    command: tuple[str, ...]
    for what, change in CHECKPOINTS:
        yield Malformed("checkpoint", what, {"x": copied(unfinished(change))}, resume, "run")
    for number, (what, change) in enumerate((*WEIGHT_FILES, *CLASSIFIER_METADATA)):
        command = (predict, ("evaluate", "run", "--quiet"), export)[number % 3]
        files: dict[str, Content] = {"x": copied(change), "photo.png": png()}
        yield Malformed("weights of a classifier", what, files, command, f"run/{WEIGHTS}")
    for what, change in WEIGHT_FILES:
        files = {"x": copied(_both(unfinished(lambda folder: (folder / CHECKPOINT).unlink()), change))}
        yield Malformed("weights of an encoder", what, files, resume, "experience")
    for what, change in ENCODER_METADATA:
        files = {"x": copied(change, "experience"), "photo.png": png()}
        command = (*predict, "--experience", "experience")
        yield Malformed("weights of an encoder", what, files, command, "experience")
    for what, content, place in FINALS:
        command = export if "measurement" in what or "400" in what else resume
        yield Malformed("final.json", what, {"x": copied(written(FINAL, content))}, command, place)
    yield from _diverged_and_seen()
    yield from _suite_results()
    for what, content in METRIC_FILES:
        yield Malformed("metrics.csv", what, {"study": study_with(METRICS, content)}, ("report", "study"), METRICS)
    for what, content in ENVIRONMENTS:
        yield Malformed(
            "environment.json", what, {"x": copied(unfinished(written(ENVIRONMENT, content)))}, resume, ENVIRONMENT
        )
    for what, content in INPUT_FILES:
        yield Malformed("inputs.json", what, {"x": copied(unfinished(written(INPUTS, content)))}, resume, INPUTS)
    yield from _calibrations()
    for what, change, place in RECIPES:
        yield Malformed("recipe of a run", what, {"x": copied(change), "photo.png": png()}, predict, place)
    for what, content in tables():
        yield Malformed(
            "results.parquet", what, {"r.parquet": content}, ("results", "r.parquet", "--columns", "all"), "r.parquet"
        )
    for what, content in tables_for_reports():
        place = "seed 0 twice" if "twice" in what else "in r" if "no run" in what else "r.parquet"
        yield Malformed("results.parquet for a report", what, {"r.parquet": content}, ("report", "r.parquet"), place)
    for what, command in (("predict", predict), ("evaluate", ("evaluate", "run")), ("export", export)):
        files = {"run/model.pt2": torch_saved(Touches()), "run/config.json": "{}", "photo.png": png()}
        yield Malformed("exported model", f"given to {what}", files, command, "run")


def _both(run_change: Change, experience_change: Change) -> Change:
    def change(folder: Path) -> None:
        run_change(folder)
        experience_change(folder.parent / "experience")

    return change

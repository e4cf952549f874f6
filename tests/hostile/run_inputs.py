"""Malformed files in the folders of runs and studies: checkpoints, weights, metrics, recipes, tables, exports."""

from __future__ import annotations

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
from emoreg.runs.run import CHECKPOINT, DIVERGED, ENVIRONMENT, FINAL, INPUTS, METRICS, RECIPE, SEEN, WEIGHTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain
from emoreg.suites.options import parse_suites
from hostile.malformed import Content, Malformed
from hostile.set_inputs import DEEP, png

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
Change = Callable[[Path], object]  # of a run folder


@functools.cache
def finished() -> Path:
    """A folder with the runs "experience" and "run", and the checkpoint of "run" after its only epoch."""
    home = Path(tempfile.mkdtemp(prefix="emoreg-hostile-"))
    before = Path.cwd()
    os.chdir(home)  # the second names the first by its relative path, as a user in the folder would
    kept: list[bytes] = []
    try:
        torch.set_num_threads(1)
        with mock.patch.object(Run, "drop_checkpoint", lambda run: kept.append((run.folder / CHECKPOINT).read_bytes())):
            pretrain(STAGE_1, "experience", progress=Progress(quiet=True))
            train(STAGE_2, "run", progress=Progress(quiet=True))
        for folder in ("experience", "run"):
            (Path(folder) / CHECKPOINT).unlink(missing_ok=True)
        Path("checkpoint").write_bytes(kept[-1])
    finally:
        os.chdir(before)
    return home


def copied(change: Change, name: str = "run") -> Callable[[Path], None]:
    """What makes the runs, and changes one of them."""

    def make(path: Path) -> None:
        for folder in ("experience", "run"):
            shutil.copytree(finished() / folder, path.parent / folder)
        change(path.parent / name)

    return make


def unfinished(change: Change) -> Change:
    """The run as it was before it was finished."""

    def make(folder: Path) -> None:
        for name in (FINAL, WEIGHTS):
            (folder / name).unlink()
        shutil.copy(finished() / "checkpoint", folder / CHECKPOINT)
        change(folder)

    return make


def written(name: str, content: Content) -> Change:
    """A file that is replaced."""

    def change(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def edited(name: str, edit: Callable[[bytes], bytes]) -> Change:
    """A file whose bytes are changed."""
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


class Runs:
    """Unpickled, it creates the file "hacked"."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("hacked", "w")


def torch_saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def state_with(change: Callable[[dict[str, Any]], object]) -> Change:
    """The checkpoint with other content."""

    def edit(folder: Path) -> None:
        state = torch.load(folder / CHECKPOINT, weights_only=True)
        change(state)
        torch.save(state, folder / CHECKPOINT)

    return edit


def first_weight(state: dict[str, Any]) -> str:
    """A matrix by its name: λ's logit may be infinite, and safetensors gives tensors in any order."""
    matrices = (n for n, v in state.items() if v.is_floating_point() and v.ndim > 1 and min(v.shape[:2]) > 1)
    return min(matrices)


def compressed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


BEGUN = {"steps": 1, "seconds": 0.1, "losses": torch.zeros(2), "draws": None}
CHECKPOINTS: tuple[tuple[str, Change], ...] = (
    ("nothing", written(CHECKPOINT, b"")),
    ("text", written(CHECKPOINT, "weights")),
    ("cut in half", edited(CHECKPOINT, lambda content: content[: len(content) // 2])),
    ("its end cut off", edited(CHECKPOINT, lambda content: content[:-1])),
    ("zeros in the middle", edited(CHECKPOINT, lambda c: c[: len(c) // 3] + bytes(len(c) // 3) + c[2 * len(c) // 3 :])),
    ("code", written(CHECKPOINT, torch_saved({"model": Runs()}))),
    ("code in the older format", written(CHECKPOINT, torch_saved(Runs(), _use_new_zipfile_serialization=False))),
    ("code in a bare pickle", written(CHECKPOINT, pickle.dumps(Runs()))),
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
    ("an epoch of other steps", state_with(lambda s: s.update(rows=[], begun=BEGUN | {"losses": torch.zeros(99)}))),
    ("an epoch with too many steps", state_with(lambda state: state.update(rows=[], begun=BEGUN | {"steps": 99}))),
    ("an epoch without losses", state_with(lambda state: state.update(rows=[], begun=BEGUN | {"losses": [1.0]}))),
    ("an epoch with more in it", state_with(lambda state: state.update(rows=[], begun=BEGUN | {"more": 1}))),
    ("draws that are none", state_with(lambda s: s.update(rows=[], begun=BEGUN | {"draws": {"cpu": torch.ones(3)}}))),
    ("draws that are a tensor", state_with(lambda s: s.update(rows=[], begun=BEGUN | {"draws": torch.ones(3)}))),
    ("a folder", written(CHECKPOINT, Path.mkdir)),
    ("a link to an endless file", written(CHECKPOINT, lambda path: path.symlink_to("/dev/zero"))),
    ("a pipe that nobody writes to", written(CHECKPOINT, os.mkfifo)),
)  # fmt: skip


def tensors_with(
    change: Callable[[dict[str, Any]], object] = lambda weights: None, meaning: Callable[[Any], Any] = lambda told: told
) -> Change:
    """The weights, and what they say of themselves, with other content."""

    def edit(folder: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(folder / WEIGHTS, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            told = meaning(json.loads(file.metadata()["emoreg"]))
        change(weights)
        text = told if isinstance(told, str) else json.dumps(told)
        save_file(weights, folder / WEIGHTS, {"emoreg": text} if told is not None else None)

    return edit


def header(text: bytes, data: bytes = b"") -> bytes:
    """As safetensors begins."""
    return len(text).to_bytes(8, "little") + text + data


WEIGHT_FILES: tuple[tuple[str, Change], ...] = (
    ("nothing", written(WEIGHTS, b"")),
    ("text", written(WEIGHTS, "weights")),
    ("cut in half", edited(WEIGHTS, lambda content: content[: len(content) // 2])),
    ("its end cut off", edited(WEIGHTS, lambda content: content[:-1])),
    ("code in torch's format", written(WEIGHTS, torch_saved(Runs()))),
    ("code in a bare pickle", written(WEIGHTS, pickle.dumps(Runs()))),
    ("a header that never ends", written(WEIGHTS, b"\xff" * 7 + b"\x7f{}")),
    ("a header nested deep", written(WEIGHTS, header(b'{"a":' * 5000))),
    ("a header that is a list", written(WEIGHTS, header(b"[1, 2]"))),
    ("a tensor beyond the file", written(WEIGHTS, header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'))),
    ("a tensor of 2^64 numbers", written(WEIGHTS, header(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', bytes(4)))),
    ("tensors that overlap", written(WEIGHTS, header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4)))),
    ("a type that nobody knows", written(WEIGHTS, header(
        b'{"a":{"dtype":"Q99","shape":[1],"data_offsets":[0,4]}}', bytes(4)))),
    ("no word of what they mean", tensors_with(meaning=lambda told: None)),
    ("half a word of what they mean", tensors_with(meaning=lambda told: '{"classes": [')),
    ("brackets for what they mean", tensors_with(meaning=lambda told: "[" * DEEP)),
    ("a list for what they mean", tensors_with(meaning=lambda told: [1, 2])),
    ("a later format", tensors_with(meaning=lambda told: told | {"format": 2})),
    ("a fraction for a format", tensors_with(meaning=lambda told: told | {"format": 0.5})),
    ("weights that are NaN", tensors_with(lambda weights: weights[first_weight(weights)].fill_(float("nan")))),
    ("infinite weights", tensors_with(lambda weights: weights[first_weight(weights)].fill_(float("inf")))),
    ("a weight of another shape", tensors_with(lambda weights: weights.update({first_weight(weights): torch.ones(7)}))),
    ("a weight that is missing", tensors_with(lambda weights: weights.pop(first_weight(weights)))),
    ("no weights", tensors_with(lambda weights: weights.clear())),
    ("a folder", written(WEIGHTS, Path.mkdir)),
    ("a link to an endless file", written(WEIGHTS, lambda path: path.symlink_to("/dev/zero"))),
    ("a pipe that nobody writes to", written(WEIGHTS, os.mkfifo)),
)  # fmt: skip
MEANINGS_2: tuple[tuple[str, Change], ...] = (
    ("no classes", tensors_with(meaning=lambda told: {"stage": 2})),
    ("a number for the classes", tensors_with(meaning=lambda told: told | {"classes": 10})),
    ("text for the classes", tensors_with(meaning=lambda told: told | {"classes": "abcdefghij"})),
    ("numbers for classes", tensors_with(meaning=lambda told: told | {"classes": list(range(10))})),
    ("two classes of ten", tensors_with(meaning=lambda told: told | {"classes": ["a", "b"]})),
    ("classes that paint the terminal", tensors_with(meaning=lambda told: told | {"classes": ["\x1b[2J"] * 10})),
)
MEANINGS_1: tuple[tuple[str, Change], ...] = (
    ("no space", tensors_with(meaning=lambda told: {"stage": 1})),
    ("a space that is text", tensors_with(meaning=lambda told: told | {"space": "plane"})),
    ("a space of no known kind", tensors_with(meaning=lambda t: t | {"space": {"kind": "x", "names": ["a", "b"]}})),
    ("a space of numbers", tensors_with(meaning=lambda told: told | {"space": {"kind": "votes", "names": [1, 2]}})),
    ("a space of another size", tensors_with(meaning=lambda t: t | {"space": {"kind": "votes", "names": ["a"] * 9}})),
    ("no heads", tensors_with(meaning=lambda told: told | {"heads": []})),
    ("heads that end nowhere", tensors_with(meaning=lambda told: told | {"heads": [
        {"name": "x", "start": 0, "stop": 10**12, "space": {"kind": "votes", "names": ["a", "b"]}}]})),
)  # fmt: skip
FINALS: tuple[tuple[str, Content, str], ...] = (
    ("nothing", "", FINAL),
    ("no JSON", "{half", FINAL),
    ("a list", "[1, 2]", FINAL),
    ("brackets in brackets", "[" * DEEP, FINAL),
    ("bytes that are no Unicode", b'{"test": "\xff"}', FINAL),
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
    ("brackets in brackets", "[" * DEEP),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
)
SEEN_FILES: tuple[tuple[str, Content], ...] = (  # of the images that a run was trained on
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
    ("bytes that are no Unicode", b"epoch,\xff\xfe\n1,2\n"),
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
    ("brackets in brackets", "[" * DEEP),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
)
INPUT_FILES: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[]"),
    ("no checksums", '{"data": {"target": {}}, "experience": null}'),
    ("an endless file", lambda path: path.symlink_to("/dev/zero")),
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
    ("a network that nobody knows", edited(RECIPE, lambda t: t.replace(b"resnet8", b"resnet9")), "backbone"),
    ("a network from the Hub", edited(RECIPE, lambda t: t.replace(b"resnet8", b"hf-hub:me/mine")), "backbone.name"),
    (
        "a network for larger images",
        edited(RECIPE, lambda t: t.replace(b"resnet8", b"inception_v3")),
        "does not take images of 8 pixels",
    ),
    ("weights that nobody knows", edited(RECIPE, lambda t: t.replace(b"resnet8", b"resnet18.mine")), "backbone.name"),
    ("another mode", edited(RECIPE, lambda text: text.replace(b"mode: learned", b"mode: none")), "encoder.experience"),
    ("λ for each class", edited(RECIPE, lambda text: text.replace(b"scalar", b"per_class")), WEIGHTS),
    ("images of 10^12 pixels a side", edited(RECIPE, lambda t: t.replace(b"size: 8", b"size: 1000000000000")), "size"),
    ("an experience with a null byte", edited(RECIPE, lambda t: t.replace(b": experience", b': "a\\0"')), "experience"),
    ("the other stage", written(RECIPE, recipe_yaml(STAGE_1)), "stage 1"),
)  # fmt: skip


def study_with(name: str, content: Content) -> Callable[[Path], None]:
    """A study's folder with its one run finished, but for a file of it."""

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
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet as pq

    def table(**columns: object) -> bytes:
        buffer = io.BytesIO()
        pd.DataFrame(columns).to_parquet(buffer)
        return buffer.getvalue()

    whole = table(stage=[2, 2], status=["finished"] * 2, run=["a", "b"])
    yield "nothing", b""
    yield "text", b"a table"
    yield "cut in half", whole[: len(whole) // 2]
    yield "a damaged footer", whole[:-80] + bytes(60) + whole[-20:]
    yield "damaged pages", whole[:4] + bytes(60) + whole[64:]
    yield "another table", table(x=[1, 2])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"stage": pa.array(np.zeros(2_000_000, np.int8))}), buffer)
    yield "two million rows in a few kilobytes", buffer.getvalue()
    buffer = io.BytesIO()
    meaning = {b"pandas": b'{"columns": [{"name": 3}], "index_columns": [{"kind": "x"}]}'}
    pq.write_table(pa.table({"stage": [1]}).replace_schema_metadata(meaning), buffer)
    yield "a schema that pandas does not understand", buffer.getvalue()
    yield "a folder", Path.mkdir
    yield "a pipe that nobody writes to", os.mkfifo


def tables_for_reports() -> Iterator[tuple[str, bytes]]:
    """Tables that can be read, and that a report must not rely on."""
    import pandas as pd

    right: dict[str, object] = {"stage": 2, "status": "finished", "run": "a", "error": None, "mode": "none"}
    right |= {
        "target": "cifar10",
        "backbone": "resnet8",
        "experience": None,
        "variant": None,
        "stimuli": None,
        "seed": 0,
    }
    right |= {"test_accuracy": 0.5, "test_per_class": [0.5], "epochs.epoch": [1, 2], "epochs.train_loss": [2.0, 1.0]}
    for what, change in (
        ("no run is finished", {"status": "waiting"}),
        ("a status that nobody knows", {"status": "done"}),
        ("a column whose name is misspelt", {"lamda": 0.5}),
        ("a run that is there twice", {}),
        ("a mode that nobody knows", {"mode": "<b>learnt</b>"}),
        ("an arm that nobody knew", {"arm": "<b>learnt</b>"}),
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
        rows = [right | change] * (2 if "twice" in what else 1)
        buffer = io.BytesIO()
        pd.DataFrame(rows).to_parquet(buffer)
        yield what, buffer.getvalue()


SUITE_RESULT = f"suites/calibration-{parse_suites(['calibration'])[0].id}.json"
GOOD_RESULT = {
    "format": 1,
    "suite": "calibration",
    "options": {"seed": 0},
    "run": "0",
    "figures": {"ece": 0.1},
    "images": "9 test images",
}


def _result(**changed: Any) -> str:
    return json.dumps(GOOD_RESULT | changed)


SUITE_RESULTS: tuple[tuple[str, Content], ...] = (
    ("nothing", ""),
    ("a list", "[]"),
    ("bytes", b"\xff\xfe\x00"),
    ("brackets in brackets", "[" * DEEP),
    ("figures that are text", _result(figures={"ece": "low"})),
    ("figures that are a list", _result(figures=[0.1])),
    ("no figures", _result(figures={})),
    ("a figure with a name that paints the terminal", _result(figures={"\x1b[2J": 0.1})),
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


def run_inputs() -> Iterator[Malformed]:
    """The files of runs, each through the command that reads it."""
    quiet = ("--out", "run", "--quiet")
    resume = ("train", "run/recipe.yaml", *quiet)
    finish = ("export", "run", "--to", "out", "--format", "hub", "--quiet")
    predict = ("predict", "run", "photo.png", "--quiet")
    command: tuple[str, ...]
    for what, change in CHECKPOINTS:
        yield Malformed("checkpoint", what, {"x": copied(unfinished(change))}, resume, "run")
    for number, (what, change) in enumerate((*WEIGHT_FILES, *MEANINGS_2)):
        command = (predict, ("evaluate", "run", "--quiet"), finish)[number % 3]  # each in one of the three
        files: dict[str, Content] = {"x": copied(change), "photo.png": png()}
        yield Malformed("weights of a classifier", what, files, command, f"run/{WEIGHTS}")
    for what, change in WEIGHT_FILES:
        files = {"x": copied(_both(unfinished(lambda folder: (folder / CHECKPOINT).unlink()), change))}
        yield Malformed("weights of an encoder", what, files, resume, "experience")
    for what, change in MEANINGS_1:
        files = {"x": copied(change, "experience"), "photo.png": png()}
        command = (*predict, "--experience", "experience")
        yield Malformed("weights of an encoder", what, files, command, "experience")
    for what, content, place in FINALS:
        command = finish if "measurement" in what or "400" in what else ("train", "run/recipe.yaml", *quiet)
        yield Malformed("final.json", what, {"x": copied(written(FINAL, content))}, command, place)
    yield from (
        Malformed("diverged.json", what, {"x": copied(unfinished(written(DIVERGED, file)))}, resume, DIVERGED)
        for what, file in DIVERGENCES
    )
    score = ("evaluate", "run", "--quiet")
    yield from (
        Malformed("seen.bin", what, {"x": copied(written(SEEN, file))}, score, SEEN) for what, file in SEEN_FILES
    )
    yield from _suite_results()
    for what, content in METRIC_FILES:
        yield Malformed("metrics.csv", what, {"study": study_with(METRICS, content)}, ("report", "study"), METRICS)
    for what, content in ENVIRONMENTS:
        yield Malformed(
            "environment.json", what, {"x": copied(unfinished(written(ENVIRONMENT, content)))}, resume, ENVIRONMENT
        )
    for what, content in INPUT_FILES:
        yield Malformed("inputs.json", what, {"x": copied(unfinished(written(INPUTS, content)))}, resume, INPUTS)
    for what, change, place in RECIPES:
        yield Malformed("recipe of a run", what, {"x": copied(change), "photo.png": png()}, predict, place)
    for what, content in tables():
        yield Malformed(
            "results.parquet", what, {"r.parquet": content}, ("results", "r.parquet", "--columns", "all"), "r.parquet"
        )
    for what, content in tables_for_reports():
        place = "seed 0 twice" if "twice" in what else "in r" if "no run" in what else "r.parquet"
        yield Malformed("results.parquet for a report", what, {"r.parquet": content}, ("report", "r.parquet"), place)
    for what, command in (("predict", predict), ("evaluate", ("evaluate", "run")), ("export", finish)):
        files = {"run/model.pt2": torch_saved(Runs()), "run/config.json": "{}", "photo.png": png()}
        yield Malformed("exported model", f"given to {what}", files, command, "run")


def _both(of_run: Change, of_experience: Change) -> Change:
    def change(folder: Path) -> None:
        of_run(folder)
        of_experience(folder.parent / "experience")

    return change

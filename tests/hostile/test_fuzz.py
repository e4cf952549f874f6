"""Reading a file with any content gives a value, or a UserError of one line that names the place.

By default each test runs the same few dozen examples. To run more, and different ones each time:

    EMOREG_FUZZ_EXAMPLES=2000 python -m pytest tests/hostile/test_fuzz.py
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.stimuli.layouts import LAYOUTS, file_of
from emoreg.config.read_recipe import all_settings, read_recipe, recipe_yaml
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.data.images.decode import decode
from emoreg.data.images.files import File, list_files
from emoreg.data.images.packed import open_pack
from emoreg.data.stimuli import SETS
from emoreg.errors import UserError
from emoreg.report.analyse_table import analyse
from emoreg.report.findings import findings
from emoreg.report.page_tables import accuracy_grid, calibration_grid, contrasts_grid, cost_grid
from emoreg.report.paper_tables import latex_report, markdown_table
from emoreg.runs.run import CHECKPOINT, DIVERGED, ENVIRONMENT, FINAL, METRICS, RECIPE, WEIGHTS, Run
from emoreg.study.plan import plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.results import results_of
from emoreg.study.results_table import read_results, write_results
from hostile.set_inputs import encoded, pack_into, png, zipped
from pickles import torch_saved

EXAMPLES = os.environ.get("EMOREG_FUZZ_EXAMPLES")
fuzzed = settings(
    max_examples=int(EXAMPLES or 40),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.filterwarnings("ignore")  # about images, numbers and tables that are odd on purpose
HOME = Path(tempfile.mkdtemp(prefix="emoreg-fuzz-"))


def is_refused(call: Callable[[], object], place: str) -> bool:
    """Whether the call raises UserError; its message must be one line that names the place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except UserError as error:
        assert str(error).isprintable() and place in str(error) and len(str(error)) < 1200
        return True
    return False


@functools.cache
def folder(name: str) -> Path:
    """A folder that all examples of a test share."""
    (HOME / name).mkdir()
    return HOME / name


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, signs: bytes = b"\0\xff\x80\n\r\"'{}[],:;\\/.-+0123456789eE \t") -> bytes:
    """The content of a file with a few changes."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((1, 1, 2, 4, 16, 64)))
        change = draw(st.sampled_from(("set", "delete", "insert", "repeat", "cut", "sign")))
        if change == "set":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif change == "sign":
            content[place : place + 1] = bytes([draw(st.sampled_from(signs))])
        elif change == "delete":
            del content[place : place + length]
        elif change == "insert":
            content[place:place] = draw(st.binary(max_size=length))
        elif change == "repeat":
            content[place:place] = content[place : place + length] * draw(st.sampled_from((1, 3, 40)))
        else:
            del content[place:]
    return bytes(content)


numbers = st.one_of(
    st.integers(-3, 12), st.integers(), st.floats(), st.sampled_from((2**63, -(2**63) - 1, 10**400, 1e308, 1e-320))
)
texts = st.one_of(
    st.text(max_size=12), st.sampled_from(("digits", "resnet8", "learned", "a\0b", "\ud800", "[/red]", ""))
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Turn {"a.b": 1} into {"a": {"b": 1}}. If keys contradict each other, the last wins."""
    whole: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        inner = whole
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[name] = value
    return whole


def settings_of(kind: type) -> st.SearchStrategy[dict[str, Any]]:
    """A few settings of a recipe with arbitrary values."""
    return st.dictionaries(st.sampled_from(list(all_settings(kind))), anything, max_size=4).map(nested)


KINDS: tuple[type[Any], ...] = (PretrainRecipe, TrainRecipe)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed
def test_a_recipe_with_arbitrary_values(kind: Any, data: st.DataObject) -> None:
    path = folder(kind.__name__) / RECIPE
    values = data.draw(settings_of(kind))
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    if not is_refused(lambda: read_recipe(kind, path), str(path)):
        recipe = read_recipe(kind, path)
        path.write_text(recipe_yaml(recipe), encoding="utf-8")
        assert repr(read_recipe(kind, path)) == repr(recipe)  # what was accepted is written and read unchanged


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed
def test_a_damaged_recipe(kind: Any, data: st.DataObject) -> None:
    path = folder(f"damaged-{kind.__name__}") / RECIPE
    path.write_bytes(data.draw(st.one_of(damaged(recipe_yaml(kind()).encode()), st.binary(), st.text().map(str_bytes))))
    is_refused(lambda: read_recipe(kind, path), str(path))
    is_refused(lambda: Run(path.parent).recipe, str(path.parent))


def str_bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


ARMS = st.lists(st.sampled_from(("backbone", "learned", "ensemble", "nobody")), max_size=3)
VARIANTS = st.fixed_dictionaries(
    {}, optional={"name": st.one_of(texts, anything), "classifier": st.one_of(settings_of(TrainRecipe), anything)}
)
STUDIES = st.fixed_dictionaries(
    {},
    optional={
        "edition": st.one_of(st.integers(0, 3), anything),
        "purpose": st.one_of(st.sampled_from(("exploration", "confirmation")), anything),
        "arms": st.one_of(ARMS, anything),
        "modes": st.one_of(ARMS, anything),
        "references": st.one_of(ARMS, anything),
        "seeds": st.one_of(st.integers(1, 3), anything),
        "looks": st.one_of(st.lists(st.integers(1, 3), max_size=3), anything),
        "run_seeds": st.one_of(st.integers(1, 3), anything),
        "first_seed": st.one_of(st.integers(0, 2000), anything),
        "control_mode": st.one_of(st.sampled_from(("learned", "none")), anything),
        "experience": st.one_of(settings_of(PretrainRecipe), anything),
        "pretraining": st.one_of(settings_of(PretrainRecipe), anything),
        "stimuli": st.one_of(st.lists(settings_of(PretrainRecipe), max_size=3), anything),
        "variants": st.one_of(st.lists(VARIANTS, max_size=3), anything),
        "classifier": st.one_of(settings_of(TrainRecipe), anything),
        "experiences": st.one_of(st.lists(settings_of(PretrainRecipe), max_size=3), anything),
        "targets": st.one_of(st.lists(settings_of(TrainRecipe), max_size=3), anything),
        "backbones": st.one_of(st.lists(settings_of(TrainRecipe), max_size=3), anything),
    },
)
STUDY = b"""edition: 2
purpose: confirmation
modes: [learned]
experiences: [affect, fresh]
references: [backbone]
seeds: 3
looks: [2, 3]
pretraining: {optimizer: {lr: 0.002}}
stimuli: [{stimuli: {name: oasis, root: oasis.zip}}, {stimuli: {name: procedural}, training: {epochs: 15}}]
classifier: {training: {epochs: 100}}
targets: [{target: {name: cifar10}}, {target: {name: cifar100}}]
backbones: [{backbone: {name: resnet20}}, {backbone: {name: vit_tiny_patch16_224, patch_size: 4}}]
variants: [{name: mixture, classifier: {regulation: {mix: logits}}}]
"""


@given(content=st.one_of(STUDIES.map(lambda values: yaml.safe_dump(values).encode()), damaged(STUDY)))
@fuzzed
def test_a_damaged_study_or_one_with_arbitrary_values(content: bytes) -> None:
    path = folder("study") / "study.yaml"
    path.write_bytes(content)
    is_refused(lambda: plan_runs(read_study(path), path.parent / "runs"), str(path))


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.sheets])
@given(data=st.data())
@fuzzed
def test_a_damaged_label_file(name: str, data: st.DataObject) -> None:
    root = _set(name)
    for sheet, text in LAYOUTS[name].sheets.items():
        (root / sheet).write_bytes(text.encode())
    sheet = data.draw(st.sampled_from(list(LAYOUTS[name].sheets)))
    (root / sheet).write_bytes(data.draw(damaged(LAYOUTS[name].sheets[sheet].encode())))
    is_refused(lambda: SETS[name][1](str(root), False), str(root))
    is_refused(lambda: SETS[name][1](str(root), True), str(root))


@functools.cache
def _set(name: str) -> Path:
    root = folder(f"set-{name}")
    for image in LAYOUTS[name].images:
        (root / file_of(name, image)).parent.mkdir(parents=True, exist_ok=True)
        (root / file_of(name, image)).write_bytes(b"an image")
    return root


ROWS = st.dictionaries(
    st.sampled_from(("path", "emotion", "valence", "arousal", "dominance", "p_awe", "p_joy", "split", "Path ", "x")),
    anything,
)


@given(rows=st.lists(ROWS, max_size=4), form=st.sampled_from(("jsonl", "parquet", "csv")))
@fuzzed
def test_a_manifest_with_arbitrary_cells(rows: list[dict[str, Any]], form: str) -> None:
    root = folder(f"manifest-{form}")
    (root / "a.jpg").write_bytes(b"an image")
    path = root / f"manifest.{form}"
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif form == "csv":
        table = pd.DataFrame([{key: repr(value) for key, value in row.items()} for row in rows])
        path.write_bytes(table.to_csv(index=False).encode("utf-8", "replace"))
    else:
        with contextlib.suppress(Exception):  # Arrow cannot store some values
            path.unlink(missing_ok=True)
            pd.DataFrame(rows).to_parquet(path)
    is_refused(lambda: SETS["manifest"][1](str(root), False), str(root))


@pytest.mark.parametrize("form", ["jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm"])
@given(data=st.data())
@fuzzed
def test_a_damaged_image(form: str, data: st.DataObject) -> None:
    path = folder(f"image-{form}") / "x.img"
    whole = _image(form)
    path.write_bytes(data.draw(damaged(whole[:200])) + whole[200:])
    is_refused(lambda: decode(File(path.name, path.parent), 8), str(path))


_image = functools.cache(encoded)


@given(data=st.data())
@fuzzed
def test_a_damaged_zip(data: st.DataObject) -> None:
    compression = data.draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    path = folder("zip") / "set.zip"
    path.write_bytes(data.draw(damaged(zipped("a/1.png", "b/2.png", compression=compression))))

    def read_all() -> None:
        for file in list_files(path):
            is_refused(file.read, str(path))

    is_refused(read_all, str(path))


@pytest.mark.parametrize("name", ["pack.json", "pixels.npy", "names.npy", "labels-class.npy", "splits.npy"])
@given(data=st.data())
@fuzzed
def test_a_damaged_pack(name: str, data: st.DataObject) -> None:
    root = folder(f"pack-{name}") / "pack"
    if not root.exists():
        pack_into(root)
        (root.parent / "whole").write_bytes((root / name).read_bytes())
    whole = (root.parent / "whole").read_bytes()
    (root / name).write_bytes(data.draw(damaged(whole[:300])) + whole[300:])
    is_refused(lambda: open_pack(root, "target"), str(root))


ABOUT = st.dictionaries(
    st.sampled_from(("set", "title", "kind", "image_size", "images", "labels", "splits")),
    st.one_of(anything, st.lists(st.fixed_dictionaries({"kind": texts, "names": anything}), max_size=2)),
)


@given(changes=ABOUT)
@fuzzed
def test_a_pack_with_an_arbitrary_description(changes: dict[str, Any]) -> None:
    root = folder("about") / "pack"
    if not root.exists():
        pack_into(root)
        (root.parent / "whole").write_bytes((root / "pack.json").read_bytes())
    about = json.loads((root.parent / "whole").read_text()) | changes
    (root / "pack.json").write_text(json.dumps(about))
    is_refused(lambda: open_pack(root, "target"), str(root))


shares = st.one_of(st.floats(0, 1), st.none())
METRICS_OF_A_SPLIT = st.dictionaries(
    st.sampled_from(("accuracy", "loss", "ece", "images", "per_class", "reliability", "lambda", "accuracy_emotional")),
    st.one_of(
        shares,
        anything,
        st.lists(shares, max_size=4),
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("confidence", "accuracy", "count"), st.lists(shares, max_size=3))
        ),
    ),
)
FINALS = st.fixed_dictionaries(
    {"test": st.one_of(METRICS_OF_A_SPLIT, anything)},
    optional={
        "validation": st.one_of(METRICS_OF_A_SPLIT, anything),
        "lambda": st.one_of(st.lists(shares, max_size=3), anything),
        "classes": st.one_of(st.lists(texts, max_size=3), anything),
        "images": st.one_of(st.dictionaries(st.sampled_from(("train", "test")), numbers), anything),
        **dict.fromkeys(("seconds", "images_per_second", "parameters", "flops"), numbers),
    },
)


@given(finals=st.lists(FINALS, min_size=2, max_size=2), session=st.one_of(anything, st.dictionaries(texts, anything)))
@fuzzed
def test_a_report_of_runs_with_arbitrary_results(finals: list[Any], session: Any) -> None:
    root = folder("report")
    (root / "study.yaml").write_text("edition: 2\nexperiences: [affect]\nreferences: [backbone]\nseeds: 1\n")
    study = read_study(root / "study.yaml")
    planned = [run for run in plan_runs(study, root / "runs") if run.mode is not None]
    for run, final in zip(planned, finals, strict=False):
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / FINAL).write_text(json.dumps(final))
        (run.folder / METRICS).write_text("epoch,train_loss,val_accuracy,lambda\n1,inf,0.5,1e300\n2,,nan,0.5\n")
        (run.folder / ENVIRONMENT).write_text(json.dumps({"sessions": [session]}))

    def report() -> None:
        table = results_of(study, planned, {})
        write_results(root / "results.parquet", table)
        read_results(root / "results.parquet")
        analysis = analyse("a study", table)
        if analysis.cells:
            findings(analysis)
        for cell in analysis.cells:
            contrasts_grid(cell), accuracy_grid(cell), calibration_grid(cell), cost_grid(cell)
        markdown_table(analysis), latex_report(analysis, "")

    is_refused(report, "")


@pytest.mark.parametrize("name", [METRICS, FINAL, DIVERGED, ENVIRONMENT])
@given(data=st.data())
@fuzzed
def test_damaged_records_of_a_run(name: str, data: st.DataObject) -> None:
    run = Run(folder(f"run-{name}"))
    whole = {
        METRICS: b"epoch,train_loss,val_accuracy\n1,2.0,0.1\n2,1.0,0.2\n",
        FINAL: b'{"test": {"accuracy": 0.5, "per_class": [0.5, null]}, "lambda": [0.25], "classes": ["a", "b"]}',
        DIVERGED: b'{"error": "stage 2 diverged: the loss became nan"}',
        ENVIRONMENT: b'{"sessions": [{"started": "2024", "packages": {"emoreg": "0.1.0"}}]}',
    }[name]
    (run.folder / name).write_bytes(data.draw(damaged(whole)))
    read: dict[str, Callable[[], object]] = {
        METRICS: lambda: run.metrics,
        FINAL: lambda: run.final,
        DIVERGED: lambda: run.divergence,
        ENVIRONMENT: lambda: run.environment,
    }
    is_refused(read[name], str(run.folder / name))


@given(content=st.data())
@fuzzed
def test_damaged_weights(content: st.DataObject) -> None:
    import torch
    from safetensors.torch import save

    run = Run(folder("weights"))
    (run.folder / FINAL).write_text('{"test": {}}')
    whole = save({"a.weight": torch.ones(2, 3), "b": torch.zeros(4)}, {"emoreg": json.dumps({"classes": ["a"]})})
    (run.folder / WEIGHTS).write_bytes(content.draw(damaged(whole)))
    is_refused(run.weights, str(run.folder / WEIGHTS))


@given(content=st.data())
@fuzzed
def test_a_damaged_checkpoint(content: st.DataObject) -> None:
    run = Run(folder("checkpoint"))
    (run.folder / CHECKPOINT).write_bytes(content.draw(damaged(_checkpoint())))
    is_refused(run.load_checkpoint, str(run.folder / CHECKPOINT))


@functools.cache
def _checkpoint() -> bytes:
    import torch

    return torch_saved({"model": {"w": torch.ones(3)}, "rows": [{"epoch": 1}], "seconds": 1.0})


@given(content=st.data())
@fuzzed
def test_a_damaged_table_of_results(content: st.DataObject) -> None:
    path = folder("table") / "results.parquet"
    path.write_bytes(content.draw(damaged(_table())))
    is_refused(lambda: read_results(path), str(path))


@functools.cache
def _table() -> bytes:
    table = pd.DataFrame({"stage": [1, 2], "status": ["finished"] * 2, "run": ["a", "b"]})
    return table.to_parquet(compression="zstd")


def test_valid_files_are_not_refused() -> None:
    """The tests above would also pass if everything were refused."""
    path = folder("whole") / "x.png"
    path.write_bytes(png())
    assert not is_refused(lambda: decode(File(path.name, path.parent), 8), "")
    assert not is_refused(lambda: SETS["oasis"][1](str(_whole_set()), False), "")


def _whole_set() -> Path:
    root = _set("oasis")
    for sheet, text in LAYOUTS["oasis"].sheets.items():
        (root / sheet).write_bytes(text.encode())
    return root

"""The examples of docs/extend.md run unchanged."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm

import emoreg.data.stimuli
import emoreg.data.targets
import emoreg.data.tools.catalogue
from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.errors import UserError
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain

PAGE = (Path(__file__).parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python(?: title=\"(.+?)\")?\n(.*?)```", PAGE, re.DOTALL)
FILES = {title: code for title, code in BLOCKS if title}
SCRIPTS = [code for title, code in BLOCKS if not title and code.startswith("import")]
LINES = [code for title, code in BLOCKS if not title and code.startswith("    ")]


def module_of(title: str) -> ModuleType:
    """A module made from the page's file of this title."""
    module = ModuleType(Path(title).stem)
    exec(compile(FILES[title], title, "exec"), module.__dict__)
    return module


def script_with(word: str) -> str:
    (script,) = [code for code in SCRIPTS if word in code]
    return script


@pytest.fixture
def moodboard(tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page's set to disk and register it as the page says; return its folder."""
    module = module_of("src/emoreg/data/stimuli/moodboard.py")
    entry = eval(LINES[0].partition(":")[2].strip().rstrip(","), {"moodboard": module})
    monkeypatch.setattr(emoreg.data.stimuli, "SETS", {**emoreg.data.stimuli.SETS, "moodboard": entry})
    monkeypatch.setattr(emoreg.data.tools.catalogue, "SETS", emoreg.data.stimuli.SETS)
    root = tmp_path / "moodboard"
    rows = ["photo,mood"]
    for number in range(16):
        write_image(root / "photos" / f"{number}.JPG")
        rows.append(f"{number},{('awe', 'Fear', 'sad')[number % 3]}")
    (root / "moods.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


def test_a_stimulus_set_is_one_file_and_one_line(moodboard: Path, tmp_path: Path, quiet: Progress) -> None:
    changes = {"stimuli.name": "moodboard", "stimuli.root": str(moodboard), "stimuli.image_size": 8}
    recipe = read_recipe(PretrainRecipe, None, changes | {"backbone.name": "resnet8", "training.epochs": 1})
    run = pretrain(recipe, tmp_path / "run", progress=quiet)
    assert run.final["stimuli"] == "moodboard" and run.final["images"] == 13  # of 16, one of each emotion is held out
    assert "moodboard" in [entry.name for entry in emoreg.data.tools.catalogue.catalogue()]


def test_a_bad_row_of_that_set_is_an_error_with_its_number(moodboard: Path) -> None:
    sheet = moodboard / "moods.csv"
    sheet.write_text(sheet.read_text().replace("Fear", "Feer"), encoding="utf-8")
    with pytest.raises(UserError, match=r"moods.csv, row 3: no emotion 'Feer' \(did you mean 'fear'\?\)"):
        emoreg.data.stimuli.read_stimuli(StimuliSettings(name="moodboard", root=str(moodboard)), seed=0)


def test_a_target_is_one_file_and_two_lines(tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of("src/emoreg/data/targets/stripes.py")
    source = f"def _read(name):\n{LINES[1]}"
    space: dict[str, Callable[[str], emoreg.data.targets.Target]] = {}
    exec(source, {"Target": emoreg.data.targets.Target, "stripes": module}, space)
    monkeypatch.setattr(emoreg.data.targets, "_read", lambda settings, edition: space["_read"](settings.name))
    target = emoreg.data.targets.read_target(TargetSettings(name="stripes"))
    assert (len(target.train), len(target.test), target.classes) == (64, 32, ("horizontal", "vertical"))
    changes = {"target.name": "stripes", "target.image_size": 8, "backbone.name": "resnet8", "training.epochs": 1}
    run = train(read_recipe(TrainRecipe, None, changes), tmp_path / "run", progress=quiet)
    assert run.final["test"]["images"] == 32


@pytest.mark.parametrize(
    ("word", "run"),
    [
        ("valence =", "mine"),
        ("emoreg.Target(", "my-stripes"),
        ("AtMostHalf", "at-most-half"),
        ("register_model", "pooled"),
    ],
)
def test_the_other_examples_run_unchanged(word: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script_with(word), "docs/extend.md", "exec"), space)
    made = Run(tmp_path / "runs" / run)
    assert made.is_finished
    if run == "at-most-half":
        lam = space["classifier"].lam.item()
        assert 0 < lam < 0.5 and lam != 0.25
        assert made.final["lambda"] == [pytest.approx(lam)]
    if run == "pooled":
        assert timm.is_model("pooled")


def test_every_block_of_code_is_tested_here() -> None:
    assert len(FILES) == 2 and len(SCRIPTS) == 4 and len(LINES) == 2
    assert len(BLOCKS) == len(FILES) + len(SCRIPTS) + len(LINES)


def test_the_places_to_change_exist() -> None:
    places = re.findall(r"`(\w+)` (?:in|of)\s`src/(emoreg/[\w/]+)\.py`", PAGE)
    assert {name for name, _ in places} >= {"SETS", "TARGETS", "EMBEDDED", "Mode", "READ_IF", "Regulation", "LABELS"}
    for name, path in places:
        assert hasattr(importlib.import_module(path.replace("/", ".").removesuffix(".__init__")), name)

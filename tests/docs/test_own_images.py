"""The files and code of docs/own-images.md work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.data.targets import read_target
from emoreg.study.read_study import read_study

PAGE = (Path(__file__).parents[2] / "docs" / "own-images.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    files = re.findall(r"```\w+ title=\"(.+?)\"\n(.*?)```", PAGE, re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert {name for name, _ in files} == {"make_shapes.py", "shapes.yaml", "experience.yaml", "study.yaml"}
    return tmp_path


def test_the_code_makes_a_target_of_three_classes(here: Path) -> None:
    exec(compile((here / "make_shapes.py").read_text(encoding="utf-8"), "make_shapes.py", "exec"), {})
    target = read_target(TargetSettings(name="folder", root="shapes"))
    assert (target.classes, len(target.train), len(target.test)) == (("circle", "square", "triangle"), 192, 48)


def test_the_study_has_the_recipes_that_the_page_tries_before(here: Path) -> None:
    study = read_study(here / "study.yaml")
    (cell,) = study.grid
    (stimuli,) = cell.stimuli
    assert cell.recipe == read_recipe(TrainRecipe, here / "shapes.yaml", {"regulation.mode": "learned"})
    assert stimuli.recipe == read_recipe(PretrainRecipe, here / "experience.yaml")
    assert study.seeds == 6 and f"{study.seeds} seeds" in PAGE

"""The files and code of docs/own-images.md work."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.data.targets import read_target
from emoreg.runtime.progress import Progress
from emoreg.study.arms import factorial
from emoreg.study.read_study import read_study
from emoreg.study.run_study import run_study

PAGE = (Path(__file__).parents[2] / "docs" / "own-images.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    files = re.findall(r"```\w+ title=\"(.+?)\"\n(.*?)```", PAGE, re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert {name for name, _ in files} == {
        "make_shapes.py",
        "shapes.yaml",
        "experience.yaml",
        "study.yaml",
        "in_python.py",
    }
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


def test_a_study_runs_on_images_that_exist_only_in_python(here: Path, quiet: Progress) -> None:
    exec(compile((here / "in_python.py").read_text(encoding="utf-8"), "in_python.py", "exec"), {})
    study = read_study(here / "in-python.yaml")
    (point,) = study.grid
    assert point.target == "my-digits-16px"
    assert [stimuli.label for stimuli in point.stimuli] == ["rated-16px", "felt-16px"]
    some = factorial(("learned",), ("affect",), ("backbone",))
    table = run_study(dataclasses.replace(study, arms=some, seeds=1), here / "runs", progress=quiet)
    assert table["status"].tolist() == ["finished"] * 5  # two of stage 1, an arm of each, Backbone

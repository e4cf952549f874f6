from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.study.arms import factorial
from emoreg.study.definition import GridPoint, StimuliRecipe, Study
from emoreg.study.part import part_of
from emoreg.study.plan import PlannedRun, plan_runs


@pytest.fixture
def planned(tmp_path: Path) -> list[PlannedRun]:
    """Two backbones, two stimulus sets, two modes; backbone, affect and fresh."""
    sets = [
        StimuliRecipe(f"drawn {n}", build(PretrainRecipe(), {"stimuli": {"name": "procedural", "count": n}}))
        for n in (20, 30)
    ]
    recipes = [build(TrainRecipe(), {"backbone": {"name": name}}) for name in ("resnet8", "resnet20")]
    grid = tuple(GridPoint("digits", recipe.backbone.name, recipe, tuple(sets)) for recipe in recipes)
    arms = factorial(("fixed", "learned"), ("affect", "fresh"), ("backbone",))
    return plan_runs(Study("s", grid, arms, seeds=1), tmp_path)


def cells(runs: list[PlannedRun]) -> set[tuple[str | None, ...]]:
    return {(run.backbone, run.mode, run.experience, run.stimuli) for run in runs}


def test_without_labels_a_part_is_the_whole(planned: list[PlannedRun]) -> None:
    assert part_of(planned, ()) == planned


def test_labels_of_different_factors_must_all_hold_and_runs_without_the_factor_stay(planned: list[PlannedRun]) -> None:
    part = part_of(planned, ["resnet8", "drawn 30", "learned"])
    assert cells(part) == {
        ("resnet8", None, "affect", "drawn 30"),
        ("resnet8", "none", None, None),
        ("resnet8", "learned", "affect", "drawn 30"),
        ("resnet8", "learned", "fresh", None),
    }
    assert {run.needs for run in part} - {None} <= {run.id for run in part}


def test_labels_of_the_same_factor_are_alternatives(planned: list[PlannedRun]) -> None:
    assert part_of(planned, ["resnet8", "resnet20"]) == planned
    assert cells(part_of(planned, ["fixed"])) == {cell for cell in cells(planned) if cell[1] != "learned"}


def test_an_unknown_label_is_refused_with_the_closest_match(planned: list[PlannedRun]) -> None:
    with pytest.raises(UserError, match="is called 'resnet9' \\(did you mean 'resnet8'"):
        part_of(planned, ["resnet9"])

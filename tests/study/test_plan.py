from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from emoreg.config.recipe import build
from emoreg.config.schema import BackboneSettings, PretrainRecipe, StimuliSettings, TrainRecipe
from emoreg.study.arms import ARMS
from emoreg.study.definition import ExperienceRecipe, GridPoint, Study
from emoreg.study.plan import plan_runs, run_id

OASIS = ExperienceRecipe("oasis", PretrainRecipe(stimuli=StimuliSettings("oasis", root="x")))
PROCEDURAL = ExperienceRecipe("procedural", PretrainRecipe())


def grid(*cells: GridPoint, arms: tuple[str, ...] = tuple(ARMS), seeds: int = 2) -> Study:
    return Study("grid", cells or (cell(),), arms, seeds)


def cell(target: str = "digits", recipe: TrainRecipe | None = None) -> GridPoint:
    recipe = recipe or build(TrainRecipe(), {"regulation": {"mode": "learned"}, "target": {"name": target}})
    return GridPoint(target, "resnet20", recipe, (OASIS, PROCEDURAL))


def test_every_arm_is_run_once_a_seed_and_once_an_experience_where_it_has_one(tmp_path: Path) -> None:
    planned = plan_runs(grid(), tmp_path)
    for name, arm in ARMS.items():
        got = [(run.seed, run.experience) for run in planned if run.arm == name]
        labels = ("oasis", "procedural") if arm.pretext else (None,)
        assert got == [(seed, label) for seed in (0, 1) for label in labels]
    pretexts = [(run.recipe.pretext, run.experience) for run in planned if isinstance(run.recipe, PretrainRecipe)]
    assert len(pretexts) == 2 * 3 * 2 and len(set(pretexts)) == 6  # once, though four arms take the affective one


def test_seeds_come_one_after_the_other_and_an_encoder_before_the_arms_that_take_it(tmp_path: Path) -> None:
    planned = plan_runs(grid(), tmp_path)
    assert [run.seed for run in planned] == sorted(run.seed for run in planned)
    seen: dict[str, Path] = {}
    for run in planned:
        if isinstance(run.recipe, TrainRecipe) and run.recipe.encoder.experience is not None:
            assert run.needs in seen and run.recipe.encoder.experience == str(seen[run.needs])
        else:
            assert run.needs is None
        seen[run.id] = run.folder
    assert len({run.folder for run in planned}) == len(planned)


def test_targets_share_their_encoders(tmp_path: Path) -> None:
    planned = plan_runs(grid(cell("digits"), cell("cifar10"), arms=("learned",), seeds=1), tmp_path)
    assert sum(run.arm is None for run in planned) == 2
    assert sum(run.arm == "learned" for run in planned) == 4


def test_a_random_encoder_starts_as_stage_1_does_and_has_the_architecture_of_the_other_arms(tmp_path: Path) -> None:
    own = {"regulation": {"mode": "learned"}, "encoder": {"backbone": {"name": "resnet18", "pretrained": True}}}
    planned = plan_runs(grid(cell(recipe=build(TrainRecipe(), own)), seeds=1), tmp_path)
    published = BackboneSettings("resnet18", pretrained=True)
    for run in planned:
        if isinstance(run.recipe, PretrainRecipe):
            assert run.recipe.backbone == published
        elif run.arm == "random_encoder":
            assert run.recipe.encoder.backbone == published
        elif run.needs:  # its weights come from stage 1
            assert run.recipe.encoder.backbone == BackboneSettings("resnet18")


def test_the_hash_knows_every_setting_and_no_place(tmp_path: Path) -> None:
    recipe = TrainRecipe()
    changed = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=3))
    assert run_id(recipe) == run_id(TrainRecipe()) != run_id(changed)
    here, there = (plan_runs(grid(), tmp_path / place) for place in ("here", "there"))
    assert [run.id for run in here] == [run.id for run in there]
    assert len({run.id for run in here}) == len(here)
    more = plan_runs(grid(seeds=3, arms=("learned", "backbone")), tmp_path / "here")
    assert {run.folder for run in more if run.seed < 2} <= {run.folder for run in here}  # found again in a larger study


@pytest.mark.parametrize("label", ["a/b: <c>", "ünïcode set, limit 5"])
def test_a_label_makes_a_folder_name_that_any_disk_takes(tmp_path: Path, label: str) -> None:
    (run,) = plan_runs(grid(dataclasses.replace(cell(), target=label), arms=("backbone",), seeds=1), tmp_path)
    assert run.target == label and run.folder.parent == tmp_path
    assert not set(run.folder.name) & set('/\\:<>"|?* ')

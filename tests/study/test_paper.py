"""The paper's grid, and the same with open sets: complete, with the recipes' settings, and trainable on stand-ins."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.stimuli.layouts import LAYOUTS, file_of
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.runtime.progress import Progress
from emoreg.study import plan
from emoreg.study.arms import EXPERIENCES, REFERENCES, REGULATED, USUAL_REFERENCES, ArmMode, Experience
from emoreg.study.columns import RunStatus
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.run_one import perform

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER, OPEN = (RECIPES / "studies" / f"{name}.yaml" for name in ("paper", "paper-open"))
BACKBONES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "vit_tiny_patch16_224": "vit-tiny",
    "vit_small_patch16_224": "vit-small",
}
TARGETS = {"cifar10": 10, "cifar100": 100}
STIMULI = {
    PAPER: ["emod", "diffused_emod", "abstract", "emoset"],
    OPEN: ["abstract", "emotion6", "fi", "oasis", "bass-32"],
}


@pytest.fixture(autouse=True)
def width_without_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the search for a width, which builds a dozen networks and is tested elsewhere."""

    def wider(recipe: TrainRecipe) -> BackboneSettings:
        own = recipe.backbone.width
        return dataclasses.replace(recipe.backbone, width=2 * own if own else 96)

    monkeypatch.setattr(plan, "wider_backbone", wider)


@pytest.mark.parametrize("path", [PAPER, OPEN], ids=lambda path: path.stem)
def test_the_grid_has_every_cell_once_with_all_its_twins(path: Path, tmp_path: Path) -> None:
    planned = plan_runs(read_study(path, seeds=1), tmp_path)
    of_stage_2 = [run for run in planned if run.mode is not None]
    cells: Counter[tuple[str | None, ...]] = Counter(
        (run.target, run.backbone, run.mode, run.experience, run.stimuli) for run in of_stage_2
    )
    points = list(itertools.product(TARGETS, BACKBONES))
    stimuli = STIMULI[path]
    twins = [(e, s) for e in EXPERIENCES for s in ([None] if e == "fresh" else stimuli)]
    expected: list[tuple[str | None, ...]] = [
        (*point, mode, *twin) for point in points for mode in REGULATED for twin in twins
    ]
    expected += [(*point, mode, None, None) for point in points for mode in ("none", "ensemble", "wide")]
    expected += [(*point, "transfer", "affect", each) for point in points for each in stimuli]
    assert cells == Counter(expected)
    stage_1 = Counter((run.backbone, run.stimuli, run.experience) for run in planned if run.mode is None)
    pretexts = ("affect", "shuffled", "neutral", "rotation")
    assert stage_1 == Counter(itertools.product(BACKBONES, stimuli, pretexts))
    assert len(planned) == len({run.id for run in planned})


@pytest.mark.parametrize("path", [PAPER, OPEN], ids=lambda path: path.stem)
def test_the_grid_has_the_settings_of_the_recipes_of_its_backbones(path: Path) -> None:
    for point in read_study(path).grid:
        recipe = read_recipe(TrainRecipe, RECIPES / point.target / f"{BACKBONES[point.backbone]}.yaml")
        for section in ("backbone", "augment", "training"):
            assert getattr(point.recipe, section) == getattr(recipe, section), (point.backbone, section)
        assert _rate(point.recipe) == _rate(recipe)
        assert point.recipe.loss.label_smoothing == recipe.loss.label_smoothing
        own = read_recipe(PretrainRecipe, RECIPES / "experience" / f"oasis-{BACKBONES[point.backbone]}.yaml")
        assert all(_rate(each.recipe) == _rate(own) for each in point.stimuli)
        assert all(each.recipe.augment == own.augment for each in point.stimuli)


def _rate(recipe: TrainRecipe | PretrainRecipe) -> dict[str, Any]:
    """The optimiser's settings, with the learning rate scaled to the recipe's batch size."""
    settings = {each.name: getattr(recipe.optimizer, each.name) for each in dataclasses.fields(OptimizerSettings)}
    per_batch = settings.pop("lr_per_batch", None)
    assert per_batch in (None, recipe.training.batch_size)
    return settings


@pytest.fixture
def stand_ins(tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with every stimulus set in its own layout, and tiny targets of 10 and 100 classes."""
    monkeypatch.chdir(tmp_path)
    for name, folder in [*((name, f"{name.replace('_', '-')}-32") for name in LAYOUTS), ("manifest", "bass-32")]:
        root = tmp_path / "data" / folder
        for image in LAYOUTS[name].images:
            write_image(root / file_of(name, image))
        for sheet, text in LAYOUTS[name].sheets.items():
            (root / sheet).write_bytes(text.encode())
    for name, classes in TARGETS.items():
        for split, number in itertools.product(("train", "test"), range(classes)):
            write_image(tmp_path / "data" / name / split / f"{number:03}" / "a.png")
    return tmp_path


def _tiny(path: Path, folder: Path) -> Path:
    """The study's file with narrow networks, images of 16 pixels, and one step in every run."""
    values = yaml.safe_load(path.read_text())
    del values["looks"]
    values["seeds"] = 1
    for stage in ("classifier", "pretraining"):
        values[stage]["training"] = {"epochs": 1, "batch_size": 100, "device": "cpu", "precision": "32-true"}
    for entry in values["stimuli"]:
        entry.pop("training", None)
    for entry in values["targets"]:
        entry["target"] |= {"root": f"data/{entry['target']['name']}", "image_size": 16}
    for entry in values["backbones"]:
        entry["backbone"]["width"] = 12 if "vit" in entry["backbone"]["name"] else 4
    file = folder / path.name
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.thorough
def test_every_kind_of_cell_trains_a_step_on_stand_ins(stand_ins: Path) -> None:
    """Every backbone, mode, reference, experience, target and stimulus set; all combinations would be slow."""
    planned = plan_runs(read_study(_tiny(PAPER, stand_ins)), stand_ins / "runs")
    backbones, stimuli, targets = list(BACKBONES), STIMULI[PAPER], list(TARGETS)
    wanted: list[tuple[str, ArmMode, Experience | None, str | None]] = [
        (backbones[n % 4], REGULATED[(n + n // 4) % 4], experience, None if experience == "fresh" else stimuli[n % 4])
        for n, experience in enumerate(EXPERIENCES)
    ]
    for backbone, arm in zip(backbones, map(REFERENCES.__getitem__, USUAL_REFERENCES), strict=True):
        wanted.append((backbone, arm.mode, arm.experience, stimuli[1] if arm.pretext else None))
    cells = {(run.target, run.backbone, run.mode, run.experience, run.stimuli): run for run in planned}
    chosen = [cells[targets[n % 2], *cell] for n, cell in enumerate(wanted)]
    assert {run.experience for run in chosen} == {None, *EXPERIENCES}
    assert {run.stimuli for run in chosen} == {None, *STIMULI[PAPER]} and {run.target for run in chosen} == set(TARGETS)
    _train(planned, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("path", [PAPER, OPEN], ids=lambda path: path.stem)
def test_every_cell_trains_a_step_on_stand_ins(path: Path, stand_ins: Path) -> None:
    planned = plan_runs(read_study(_tiny(path, stand_ins)), stand_ins / "runs")
    _train(planned, [run for run in planned if run.mode is not None])


def _train(planned: Sequence[PlannedRun], chosen: Sequence[PlannedRun]) -> None:
    """The chosen runs of stage 2, after the runs of stage 1 that they need."""
    needed = {run.needs for run in chosen}
    for run in [*(run for run in planned if run.id in needed), *chosen]:
        outcome = perform(run, Progress(quiet=True))
        assert outcome.status is RunStatus.FINISHED, (run.name, outcome.error)

"""Every shipped study can be planned, and its runs train on stand-ins for its images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from emoreg.config.read_recipe import has_edition, read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, with_stems
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.runtime.progress import Progress
from emoreg.study.columns import RunStatus
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.run_one import perform

RECIPES = Path(__file__).parents[2] / "recipes"
STUDIES = sorted((RECIPES / "studies").glob("*.yaml"))
TINY = TrainingSettings(epochs=1, batch_size=16, device="cpu", precision="32-true", trackers=())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_has_all_its_arms_on_all_its_targets(path: Path, tmp_path: Path) -> None:
    study = read_study(path, seeds=1)
    assert has_edition(path) and study.edition == 2
    planned = plan_runs(study, tmp_path)
    assert {run.target for run in planned} - {None} == {point.target for point in study.grid}
    assert {(run.mode, run.experience) for run in planned if run.mode} == {(a.mode, a.experience) for a in study.arms}
    assert len({run.folder for run in planned}) == len({run.id for run in planned})


@pytest.mark.parametrize(
    ("study", "recipe"),
    [
        ("reference-cifar10", "cifar10/resnet18-fast"),
        ("reference-cifar100", "cifar100/resnet18-fast"),
        ("reference-abstract", "cifar100/resnet18-fast"),
        ("reference-vit", "cifar100/vit-tiny-fast"),
    ],
)
def test_backbone_of_a_reference_study_is_trained_as_the_fast_recipe(study: str, recipe: str, tmp_path: Path) -> None:
    planned = plan_runs(read_study(RECIPES / "studies" / f"{study}.yaml", seeds=1), tmp_path)
    trained = next(run.recipe for run in planned if run.mode == "none")
    fast = with_stems(read_recipe(TrainRecipe, RECIPES / f"{recipe}.yaml"))
    assert isinstance(trained, TrainRecipe)
    for name in ("backbone", "loss", "augment", "optimizer"):
        assert getattr(trained, name) == getattr(fast, name), name
    assert (trained.training.epochs, trained.training.batch_size) == (fast.training.epochs, fast.training.batch_size)


@pytest.mark.thorough
def test_every_kind_of_run_trains_on_stand_ins(tmp_path: Path) -> None:
    """The runs of one seed of the positive control: both stages, all twins and references."""
    study = read_study(RECIPES / "studies" / "positive-control-cifar10.yaml", seeds=1)
    study = dataclasses.replace(study, grid=study.grid[:1])
    for run in plan_runs(study, tmp_path):
        outcome = perform(dataclasses.replace(run, recipe=_on_stand_ins(run)), Progress(quiet=True))
        assert outcome.status is RunStatus.FINISHED, (run.name, outcome.error)


def _on_stand_ins(run: PlannedRun) -> PretrainRecipe | TrainRecipe:
    """The run's recipe for one epoch on a few digits, with the classes halved as in the study."""
    recipe = run.recipe
    if isinstance(recipe, PretrainRecipe):
        classes = tuple(str(digit) for digit in range(5))
        stimuli = StimuliSettings("digits", classes=classes, image_size=8, limit=32)
        return dataclasses.replace(recipe, stimuli=stimuli, training=TINY)
    target = TargetSettings("digits", classes=tuple(str(digit) for digit in range(5, 10)), image_size=8, per_class=5)
    target = dataclasses.replace(target, validation=recipe.target.validation)
    return dataclasses.replace(recipe, target=target, training=TINY)

"""Which runs a study needs. A run is identified by the hash of its resolved recipe, so none is ever done twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emoreg.config.schema import PretrainRecipe, Recipe, TrainRecipe, identity
from emoreg.runs.run import Run
from emoreg.study.arms import ARMS, arm_recipe
from emoreg.study.definition import ExperienceRecipe, GridPoint, Study


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, done or to be done."""

    id: str  # hash of its resolved recipe
    name: str  # for people: "cifar10-resnet20-learned-oasis-seed0"
    folder: Path
    recipe: Recipe
    needs: str | None  # id of the stage-1 run that provides its encoder
    arm: str | None  # None in stage 1
    target: str | None  # None in stage 1, which may serve several
    backbone: str  # label; in stage 1 the encoder's
    experience: str | None  # label; None for an arm without stage 1
    seed: int

    @property
    def run(self) -> Run:
        """Its folder as a run."""
        return Run(self.folder)

    @property
    def branches(self) -> int:
        """Number of networks that it trains: the approximate cost of a step."""
        return 2 if isinstance(self.recipe, TrainRecipe) and self.recipe.regulation.mode != "none" else 1


def plan_runs(study: Study, runs: Path) -> list[PlannedRun]:
    """All runs of a study, in the order in which they are to be done.

    Seed by seed, so that a stopped study has complete seeds to compare. Each encoder comes before the arms that use it,
    and only once, however many arms and targets share it.

    Args:
        study: arms, cells and seeds.
        runs: folder of the run folders. Studies with the same one share their runs.
    """
    planned: dict[str, PlannedRun] = {}
    for seed in range(study.seeds):
        for point in study.grid:
            for name in study.arms:
                pretext = ARMS[name].pretext
                for experience in point.experiences if pretext else (None,):
                    for run in _runs(study, point, name, experience, seed, runs):
                        planned.setdefault(run.id, run)
    return list(planned.values())


def _runs(
    study: Study, point: GridPoint, name: str, experience: ExperienceRecipe | None, seed: int, runs: Path
) -> Iterator[PlannedRun]:
    """An arm's run, preceded by the stage-1 run of its encoder if it has one."""
    encoder = point.recipe.encoder_backbone
    pretext, needed, folder = ARMS[name].pretext, None, None
    if experience is not None and pretext is not None:
        stage1 = dataclasses.replace(experience.recipe, backbone=encoder, pretext=pretext, seed=seed)
        pretraining = _planned(stage1, runs, None, None, None, encoder.name, experience.label, seed)
        yield pretraining
        needed, folder = pretraining.id, pretraining.folder
        encoder = dataclasses.replace(encoder, pretrained=False)  # its weights come from stage 1
    base = dataclasses.replace(point.recipe, encoder=dataclasses.replace(point.recipe.encoder, backbone=encoder))
    recipe = arm_recipe(base, name, folder, seed, study.control_mode)
    label = experience.label if experience else None
    yield _planned(recipe, runs, needed, name, point.target, point.backbone, label, seed)


def _planned(
    recipe: Recipe,
    runs: Path,
    needs: str | None,
    arm: str | None,
    target: str | None,
    backbone: str,
    experience: str | None,
    seed: int,
) -> PlannedRun:
    id_ = run_id(recipe, needs)
    parts: tuple[str | None, ...] = (target, backbone, arm, experience)
    if isinstance(recipe, PretrainRecipe):
        parts = ("experience", backbone, experience, recipe.pretext)
    name = re.sub(r"[^\w.+-]+", "-", "-".join([*(part for part in parts if part), f"seed{seed}"]))
    return PlannedRun(id_, name, runs / f"{name}-{id_[:8]}", recipe, needs, arm, target, backbone, experience, seed)


def run_id(recipe: Recipe, needs: str | None = None) -> str:
    """The hash of a resolved recipe: 16 hexadecimal digits.

    Args:
        recipe: every setting counts but those of `config.schema.EXECUTION_ONLY`.
        needs: hash of the stage-1 run that provides its encoder. It replaces that run's folder, so that runs are found
            again when their folder has moved.
    """
    content = identity(recipe)
    if needs is not None:
        content["encoder"]["experience"] = needs
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

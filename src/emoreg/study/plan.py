"""The runs that a study needs. A run is identified by a hash of its resolved recipe, so that none is ever done twice.

In the hash, checksums of the images stand for their paths, and the id of the stage-1 run for the encoder. An earlier
emoreg hashed the paths of the images; runs that it started are still found by that id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emoreg.config.contents import Contents
from emoreg.config.recipe import Recipe, TrainRecipe, identity, with_stems
from emoreg.config.schema import BackboneSettings
from emoreg.errors import UserError
from emoreg.models.weight_source import with_sources
from emoreg.runs.run import Run
from emoreg.study import first_edition
from emoreg.study.arms import ArmMode, Experience, PlannedArm, recipe_of
from emoreg.study.definition import GridPoint, StimuliRecipe, Study, Variant
from emoreg.study.kept_data import contents_in
from emoreg.study.machine import resolved

MAX_NAME = 190  # bytes; a folder's name may have 255, with the id's digits and what `runs.delete` adds
CLASSES = 10  # outputs of the head for which the width of `wide` is found


class Factors(NamedTuple):
    """All that distinguishes the runs of a study, except the seed; see `PlannedRun`."""

    mode: ArmMode | None
    experience: Experience | None
    variant: str | None
    stimuli: str | None
    target: str | None
    backbone: str

    @property
    def name_parts(self) -> tuple[str | None, ...]:
        """The parts of the run's name."""
        if self.mode is None:
            return "pretraining", self.backbone, self.stimuli, self.experience, self.variant
        if self.mode in ("none", "transfer"):
            return self.target, self.backbone, "backbone" if self.mode == "none" else self.mode, self.stimuli
        return self.target, self.backbone, self.mode, self.experience, self.variant, self.stimuli

    @property
    def old_name_parts(self) -> tuple[str | None, ...]:
        """The parts of the name that the run had in the first edition."""
        if self.mode is None:
            return "experience", self.backbone, self.stimuli, self.experience
        return self.target, self.backbone, first_edition.name_of(PlannedArm(self.mode, self.experience)), self.stimuli


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, done or to be done.

    Several arms may share one run, with one id and one folder: such as `fresh` of variants that differ only in how they
    take over the weights of stage 1, or `fresh` and the ensemble, if the regulated response has no loss.
    """

    id: str  # `content_id`, or `path_id` if an earlier emoreg started the run
    name: str  # for people: "cifar10-resnet20-learned-affect-oasis-seed0"
    folder: Path
    recipe: Recipe
    needs: str | None  # id of the stage-1 run that provides its encoder
    mode: ArmMode | None  # None in stage 1
    experience: Experience | None  # in stage 1 the pretext; None for networks without an encoder
    variant: str | None  # label; None for what variants share
    stimuli: str | None  # label; None for an arm without stage 1
    target: str | None  # label; None in stage 1, which may serve several
    backbone: str  # label; in stage 1 the encoder's
    seed: int
    content_id: str = ""  # hash of the recipe with the checksums of its images: the id of a run that is started now
    path_id: str = ""  # hash of the recipe with the paths of its images: the id in runs and tables of an earlier emoreg

    @property
    def row(self) -> tuple[str | None, ...]:
        """What tells its row in a table from others (`columns.ROW`). A run of stage 1 is listed once for all arms."""
        return (self.id,) if self.mode is None else (self.id, self.mode, self.experience, self.variant)

    @property
    def run(self) -> Run:
        """The run in its folder."""
        return Run(self.folder)

    @property
    def branches(self) -> int:
        """Number of networks that are trained: the approximate cost of a step."""
        return 2 if isinstance(self.recipe, TrainRecipe) and self.recipe.has_two_responses else 1


def plan_runs(study: Study, runs: Path) -> list[PlannedRun]:
    """Plan all runs of a study, in the order in which they are to be done.

    They go seed by seed, so that a stopped study has complete seeds to compare. Each encoder comes before the arms that
    use it, and only once, however many arms and targets share it.

    Args:
        study: with `data`, whose checksums of the images enter the ids instead of their paths.
        runs: folder of the run folders. Studies with the same one share their runs.

    Raises:
        UserError: two targets, or two stimulus sets, have the same images.
    """
    folders = Folders(runs)
    planned: dict[tuple[str | None, ...], PlannedRun] = {}
    by_id: dict[str, PlannedRun] = {}
    for seed in study.seed_numbers:
        for point in study.grid:
            for arm in study.arms:
                for run in _runs_of_arm(study, point, arm, seed, folders):
                    first = by_id.setdefault(run.id, run)
                    _refuse_same_images(first, run)
                    same = dataclasses.replace(run, name=first.name, folder=first.folder)
                    planned.setdefault(same.row, same)
    return list(planned.values())


def left_out(study: Study) -> list[str]:
    """Arms of the study that cannot be trained, a line each, with the reason."""
    lines = []
    for point in study.grid:
        where = f"{point.target}, {point.backbone}"
        if PlannedArm("wide") in study.arms and study.edition > 1 and wider_backbone(point.recipe) is None:
            lines.append(f"{where}: wide is left out: no width gives the backbone the cost of two within 5 %")
        if any(arm.experience == "neutral" for arm in study.arms):
            stimuli = [each for variant in point.regulated for each in variant.stimuli]
            lines += [
                f"{where}: neutral is left out for {label}: the emotion of procedural stimuli is their brightness and "
                "colourfulness"
                for label in dict.fromkeys(each.label for each in stimuli if _has_procedural(each))
            ]
    return lines


def with_ids_elsewhere(planned: Sequence[PlannedRun], ids: Set[str]) -> list[PlannedRun]:
    """Replace the id of planned runs that other machines know only by their `path_id`.

    Args:
        planned: from `plan_runs`.
        ids: of the runs that other machines have done, perhaps with an earlier emoreg.
    """
    others = ids - {run.id for run in planned}
    new = {run.id: run.path_id for run in planned if run.id not in ids and run.path_id in others}
    return [
        dataclasses.replace(run, id=new.get(run.id, run.id), needs=run.needs and new.get(run.needs, run.needs))
        for run in planned
    ]


def in_existing_folders(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Update the folders of planned runs and of their encoders to those that exist now.

    Another study with the same folder of runs may have started some since they were planned, under names with its own
    labels.
    """
    existing = {runs: Folders(runs).existing for runs in {run.folder.parent for run in planned}}
    return [_in_existing_folder(run, existing[run.folder.parent]) for run in planned]


def _in_existing_folder(run: PlannedRun, existing: Mapping[str, Path]) -> PlannedRun:
    recipe = run.recipe
    if isinstance(recipe, TrainRecipe) and run.needs is not None and run.needs[:8] in existing:
        encoder = dataclasses.replace(recipe.encoder, experience=str(existing[run.needs[:8]]))
        recipe = dataclasses.replace(recipe, encoder=encoder)
    return dataclasses.replace(run, folder=existing.get(run.id[:8], run.folder), recipe=recipe)


def _refuse_same_images(first: PlannedRun, run: PlannedRun) -> None:
    """Raise UserError if two runs with one id have different targets or stimuli: their images are the same."""
    for kind in ("target", "stimuli"):
        one, other = getattr(first, kind), getattr(run, kind)
        if one != other:
            raise UserError(f"the {kind} {one} and {other} are the same images with the same settings: leave one out")


class Folders:
    """The folders that runs have or will have. They are found by their id: another study may name them differently.

    Args:
        runs: folder of the run folders.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.encoders: dict[tuple[Recipe, Factors], PlannedRun] = {}  # planned runs of stage 1, which many arms need
        self.existing: dict[str, Path] = {}  # by the digits at the end of the name
        for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
            digits = folder.name.rpartition("-")[2]
            # Two studies that ran at once, with different labels, may each have a folder of the run.
            if digits not in self.existing or _progress(self.existing[digits]) < _progress(folder):
                self.existing[digits] = folder

    def exists(self, id_: str) -> bool:
        """Return whether a run has a folder."""
        return id_[:8] in self.existing

    def of(self, name: str, id_: str) -> Path:
        """Return the folder of a run, whatever its name, or else the one that it will have."""
        return self.existing.get(id_[:8], self.runs / f"{name}-{id_[:8]}")

    def has_path_id(self, path_id: str, contents: Mapping[str, Contents]) -> bool:
        """Return whether a run with this id exists that was not started with other images."""
        folder = self.existing.get(path_id[:8])
        if folder is None:
            return False
        try:
            recorded = Run(folder).inputs.data
        except UserError:  # resuming the run reports the damage
            return True
        return all(recorded[key].sha256 == contents[key].sha256 for key in recorded.keys() & contents.keys())


def _progress(folder: Path) -> tuple[bool, ...]:
    """Sort key of the folders of one run, by how far each has come."""
    run = Run(folder)
    return run.is_finished, run.has_ended, run.has_begun


def _runs_of_arm(study: Study, point: GridPoint, arm: PlannedArm, seed: int, folders: Folders) -> Iterator[PlannedRun]:
    base = Variant(None, point.recipe, point.stimuli)
    for variant in point.regulated if arm.has_variants else (base,):
        for stimuli in variant.stimuli if arm.pretext else (None,):
            if arm.experience == "neutral" and stimuli is not None and _has_procedural(stimuli):
                continue
            yield from _runs(study, point, arm, variant, stimuli, seed, folders)


def _runs(
    study: Study,
    point: GridPoint,
    arm: PlannedArm,
    variant: Variant,
    stimuli: StimuliRecipe | None,
    seed: int,
    folders: Folders,
) -> Iterator[PlannedRun]:
    """Plan a run of stage 2, preceded by the stage-1 run of its encoder if it has one."""
    # The target's images decide the stem in both stages, so that an encoder has the architecture of its fresh twin.
    base = with_stems(with_sources(variant.recipe))
    encoder = base.encoder_backbone
    needed: PlannedRun | None = None
    if arm.mode == "wide":
        wider = wider_backbone(base)
        if wider is None:
            return
        base = dataclasses.replace(base, backbone=wider)
    label = None if stimuli is None else stimuli.label
    if stimuli is not None and arm.pretext is not None:
        stage_1 = dataclasses.replace(stimuli.recipe, backbone=encoder, pretext=arm.pretext, seed=seed)
        shared = next((each.recipe for each in point.stimuli if each.label == label), None)
        # Variants that do not change stage 1 share its run.
        own_variant = None if stimuli.recipe == shared else variant.label
        encoding = Factors(None, arm.pretext, own_variant, label, None, encoder.name)
        needed = folders.encoders.get((stage_1, encoding))
        if needed is None:
            needed = folders.encoders[stage_1, encoding] = _planned(study, stage_1, folders, None, encoding, seed)
        yield needed
        encoder = encoder.untrained  # its weights come from stage 1
    base = dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, backbone=encoder))
    recipe = recipe_of(arm, base, None if needed is None else needed.folder, seed)
    factors = Factors(arm.mode, arm.experience, variant.label, label, point.target, point.backbone)
    yield _planned(study, recipe, folders, needed, factors, seed)


def _planned(
    study: Study, recipe: Recipe, folders: Folders, needed: PlannedRun | None, factors: Factors, seed: int
) -> PlannedRun:
    if study.edition > 1:
        recipe = resolved(recipe, study.machine)
    contents = contents_in(recipe, study.data) if study.edition > 1 else {}
    settings = identity(recipe)
    path_id = _hash(settings, None if needed is None else needed.path_id)
    content_settings = identity(recipe, contents) if contents else settings
    content_id = _hash(content_settings, None if needed is None else needed.content_id)
    parts = factors.old_name_parts if study.edition == 1 else factors.name_parts
    name = run_name("-".join(part for part in parts if part), seed)
    id_ = path_id if not folders.exists(content_id) and folders.has_path_id(path_id, contents) else content_id
    needs = None if needed is None else needed.id
    return PlannedRun(id_, name, folders.of(name, id_), recipe, needs, *factors, seed, content_id, path_id)


def run_name(label: str, seed: int) -> str:
    """The name of a run: its label in characters that any disk allows and cut to fit in a folder's name, and its seed.

    Args:
        label: text of any length.
        seed: of the run.
    """
    end = f"-seed{seed}"
    plain = re.sub(r"[^\w.+-]+", "-", label)
    return plain.encode()[: MAX_NAME - len(end)].decode(errors="ignore") + end


def wider_backbone(recipe: TrainRecipe) -> BackboneSettings | None:
    """Return the backbone at the width that costs as much as two networks; None if there is no such width."""
    from emoreg.models.backbones import matching_width

    # The head is a thousandth of a network: any number of classes gives the same width.
    size = recipe.target.image_size
    return matching_width(recipe.backbone.for_images(size), size, CLASSES)


def _has_procedural(stimuli: StimuliRecipe) -> bool:
    return any(each.name == "procedural" for each in stimuli.recipe.sets)


def run_id(recipe: Recipe) -> str:
    """Hash a resolved recipe to 16 hexadecimal digits.

    Every setting counts except those in `config.recipe.EXECUTION_ONLY`.
    """
    return _hash(identity(recipe), None)


def _hash(settings: Mapping[str, Any], needs: str | None) -> str:
    """Hash settings from `identity`; `needs`, the id of the encoder's stage-1 run, stands for its folder."""
    if needs is not None:
        settings = {**settings, "encoder": {**settings["encoder"], "experience": needs}}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

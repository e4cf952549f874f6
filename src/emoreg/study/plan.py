"""Which runs a study needs. A run is identified by the hash of its resolved recipe, so none is ever done twice.

No path is part of that: images count by their contents, and the encoder by the hash of its stage-1 run. In runs that
were begun before this was so, the paths of the images are; they are still found by their ids of then.
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
from emoreg.study.arms import Arm, ArmMode, Experience, recipe_of
from emoreg.study.definition import GridPoint, StimuliRecipe, Study, Variant
from emoreg.study.kept_data import contents_in
from emoreg.study.machine import resolved

CLASSES = 10  # outputs of the head for which the width of `wide` is found


class Factors(NamedTuple):
    """What a run is, but for its seed; see `PlannedRun`."""

    mode: ArmMode | None
    experience: Experience | None
    variant: str | None
    stimuli: str | None
    target: str | None
    backbone: str

    @property
    def name(self) -> tuple[str | None, ...]:
        """The parts of the run's name."""
        if self.mode is None:
            return "pretraining", self.backbone, self.stimuli, self.experience, self.variant
        if self.mode in ("none", "transfer"):
            return self.target, self.backbone, "backbone" if self.mode == "none" else self.mode, self.stimuli
        return self.target, self.backbone, self.mode, self.experience, self.variant, self.stimuli

    @property
    def old_name(self) -> tuple[str | None, ...]:
        """The parts of the name that the run had in the first edition."""
        if self.mode is None:
            return "experience", self.backbone, self.stimuli, self.experience
        return self.target, self.backbone, first_edition.name_of(Arm(self.mode, self.experience)), self.stimuli


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, done or to be done.

    Arms of several variants may be the same run, such as `fresh` where variants differ in what becomes of stage 1's
    weights: they have one id and one folder.
    """

    id: str  # hash of its resolved recipe; of a run that was begun while paths were part of it, that of then
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
    without_paths: str = ""  # the id that a run has which is begun now
    with_paths: str = ""  # the id that it had while paths were part of it; tables of then call it by that

    @property
    def run(self) -> Run:
        """Its folder as a run."""
        return Run(self.folder)

    @property
    def branches(self) -> int:
        """Number of networks that it trains: the approximate cost of a step."""
        return 2 if isinstance(self.recipe, TrainRecipe) and self.recipe.has_two_responses else 1


def plan_runs(study: Study, runs: Path) -> list[PlannedRun]:
    """All runs of a study, in the order in which they are to be done.

    Seed by seed, so that a stopped study has complete seeds to compare. Each encoder comes before the arms that use it,
    and only once, however many arms and targets share it.

    Args:
        study: arms, cells and seeds; `data` is what is known of its images, and enters the ids in place of their paths.
        runs: folder of the run folders. Studies with the same one share their runs.

    Raises:
        UserError: two targets, or two stimulus sets, are the same images.
    """
    folders = Folders(runs)
    planned: dict[tuple[str, str | None], PlannedRun] = {}
    by_id: dict[str, PlannedRun] = {}
    for seed in study.seed_numbers:
        for point in study.grid:
            for arm in study.arms:
                for run in _runs_of_arm(study, point, arm, seed, folders):
                    first = by_id.setdefault(run.id, run)
                    _refuse_twice(first, run)
                    same = dataclasses.replace(run, name=first.name, folder=first.folder)
                    # A run of stage 1 is the same thing whoever needs it; one of stage 2 stands for each variant.
                    planned.setdefault((run.id, None if run.mode is None else run.variant), same)
    return list(planned.values())


def left_out(study: Study) -> list[str]:
    """What the study asks for and cannot be done, with the reason, a line for each."""
    lines = []
    for point in study.grid:
        where = f"{point.target}, {point.backbone}"
        if Arm("wide") in study.arms and study.edition > 1 and wider_backbone(point.recipe) is None:
            lines.append(f"{where}: wide is left out: no width gives the backbone the cost of two within 5 %")
        if any(arm.experience == "neutral" for arm in study.arms):
            drawn = {each.label: None for variant in point.regulated for each in variant.stimuli if _is_drawn(each)}
            lines += [
                f"{where}: neutral is left out for {label}: the emotion of procedural stimuli is their brightness and "
                "colourfulness"
                for label in drawn
            ]
    return lines


def known_as(planned: Sequence[PlannedRun], ids: Set[str]) -> list[PlannedRun]:
    """The runs of a plan, called by the ids with paths where these are among those of finished runs elsewhere."""
    own = {run.id for run in planned}
    wanted = (run for run in planned if run.id not in ids and run.with_paths in ids - own)
    new = {run.id: run.with_paths for run in wanted}
    return [
        dataclasses.replace(run, id=new.get(run.id, run.id), needs=run.needs and new.get(run.needs, run.needs))
        for run in planned
    ]


def where_they_are(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs of a plan in the folders that they have now, with those of their encoders.

    Another study that shares them may have begun some since they were planned, under names with its own labels.
    """
    there = {runs: Folders(runs).there for runs in {run.folder.parent for run in planned}}
    return [_moved(run, there[run.folder.parent]) for run in planned]


def _moved(run: PlannedRun, there: Mapping[str, Path]) -> PlannedRun:
    recipe = run.recipe
    if isinstance(recipe, TrainRecipe) and run.needs is not None and run.needs[:8] in there:
        encoder = dataclasses.replace(recipe.encoder, experience=str(there[run.needs[:8]]))
        recipe = dataclasses.replace(recipe, encoder=encoder)
    return dataclasses.replace(run, folder=there.get(run.id[:8], run.folder), recipe=recipe)


def _refuse_twice(first: PlannedRun, run: PlannedRun) -> None:
    """UserError for a run that stands for another target or stimulus set too: their images are the same."""
    for kind in ("target", "stimuli"):
        one, other = getattr(first, kind), getattr(run, kind)
        if one != other:
            raise UserError(f"the {kind} {one} and {other} are the same images with the same settings: leave one out")


class Folders:
    """Where runs are, or will be. Names have the labels of one study; another may call the same run otherwise.

    Args:
        runs: folder of the run folders.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.encoders: dict[tuple[Recipe, Factors], PlannedRun] = {}  # runs of stage 1, which many arms need
        self.there: dict[str, Path] = {}  # by the digits at the end of the name
        for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
            digits = folder.name.rpartition("-")[2]
            # Two studies at once that label a run differently may each have done it.
            if digits not in self.there or _how_far(self.there[digits]) < _how_far(folder):
                self.there[digits] = folder

    def has(self, id_: str) -> bool:
        """Whether there is a folder of a run."""
        return id_[:8] in self.there

    def of(self, name: str, id_: str) -> Path:
        """The folder of a run, whatever name it was begun under; if there is none, the one that it will have."""
        return self.there.get(id_[:8], self.runs / f"{name}-{id_[:8]}")

    def has_begun(self, with_paths: str, contents: Mapping[str, Contents]) -> bool:
        """Whether there is a run with this id, which may be of these images: its id does not tell."""
        folder = self.there.get(with_paths[:8])
        if folder is None:
            return False
        try:
            begun = Run(folder).inputs.data
        except UserError:  # whoever goes on with it says that it is damaged
            return True
        return all(begun[key].sha256 == contents[key].sha256 for key in begun.keys() & contents.keys())


def _how_far(folder: Path) -> tuple[bool, ...]:
    """Orders folders of one run: the finished one before one that diverged, which is not trained again, and so on."""
    run = Run(folder)
    return run.is_finished, run.has_ended, run.has_begun


def _runs_of_arm(study: Study, point: GridPoint, arm: Arm, seed: int, folders: Folders) -> Iterator[PlannedRun]:
    base = Variant(None, point.recipe, point.stimuli)
    for variant in point.regulated if arm.has_variants else (base,):
        for stimuli in variant.stimuli if arm.pretext else (None,):
            if arm.experience == "neutral" and stimuli is not None and _is_drawn(stimuli):
                continue
            yield from _runs(study, point, arm, variant, stimuli, seed, folders)


def _runs(
    study: Study,
    point: GridPoint,
    arm: Arm,
    variant: Variant,
    stimuli: StimuliRecipe | None,
    seed: int,
    folders: Folders,
) -> Iterator[PlannedRun]:
    """A run of stage 2, preceded by the stage-1 run of its encoder if it has one."""
    # Stems by the target's images, in both stages: an encoder is built as its twin is.
    base = with_stems(with_sources(variant.recipe))
    encoder = base.encoder_backbone
    needed: PlannedRun | None = None
    folder: Path | None = None
    if arm.mode == "wide":
        wider = wider_backbone(base)
        if wider is None:
            return
        base = dataclasses.replace(base, backbone=wider)
    label = None if stimuli is None else stimuli.label
    if stimuli is not None and arm.pretext is not None:
        stage_1 = dataclasses.replace(stimuli.recipe, backbone=encoder, pretext=arm.pretext, seed=seed)
        shared = next((each.recipe for each in point.stimuli if each.label == label), None)
        own = None if stimuli.recipe == shared else variant.label
        encoding = Factors(None, arm.pretext, own, label, None, encoder.name)
        pretraining = folders.encoders.get((stage_1, encoding))
        if pretraining is None:
            pretraining = folders.encoders[stage_1, encoding] = _planned(study, stage_1, folders, None, encoding, seed)
        yield pretraining
        needed, folder = pretraining, pretraining.folder
        encoder = encoder.untrained  # its weights come from stage 1
    base = dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, backbone=encoder))
    recipe = recipe_of(arm, base, folder, seed)
    factors = Factors(arm.mode, arm.experience, variant.label, label, point.target, point.backbone)
    yield _planned(study, recipe, folders, needed, factors, seed)


def _planned(
    study: Study, recipe: Recipe, folders: Folders, needed: PlannedRun | None, factors: Factors, seed: int
) -> PlannedRun:
    if study.edition > 1:
        recipe = resolved(recipe, study.machine)
    contents = contents_in(recipe, study.data) if study.edition > 1 else {}
    settings = identity(recipe)
    with_paths = _hash(settings, None if needed is None else needed.with_paths)
    # What is the same is not written out twice: a study may have thousands of runs.
    with_contents = identity(recipe, contents) if contents else settings
    is_same = with_contents is settings and (needed is None or needed.with_paths == needed.without_paths)
    own = with_paths if is_same else _hash(with_contents, None if needed is None else needed.without_paths)
    parts = factors.old_name if study.edition == 1 else factors.name
    name = re.sub(r"[^\w.+-]+", "-", "-".join([*(part for part in parts if part), f"seed{seed}"]))
    id_ = with_paths if not folders.has(own) and folders.has_begun(with_paths, contents) else own
    needs = None if needed is None else needed.id
    return PlannedRun(id_, name, folders.of(name, id_), recipe, needs, *factors, seed, own, with_paths)


def wider_backbone(recipe: TrainRecipe) -> BackboneSettings | None:
    """The backbone with the width at which one network costs what two of them do; None if there is no such width."""
    from emoreg.models.backbones import matching_width

    # The head is a thousandth of a network: any number of classes gives the same width.
    size = recipe.target.image_size
    return matching_width(recipe.backbone.for_images(size), size, CLASSES)


def _is_drawn(stimuli: StimuliRecipe) -> bool:
    """Whether the sets of stage 1 are procedural, at least one of them."""
    return any(each.name == "procedural" for each in stimuli.recipe.sets)


def run_id(recipe: Recipe) -> str:
    """The hash of a resolved recipe: 16 hexadecimal digits.

    Every setting counts but those of `config.recipe.EXECUTION_ONLY`. Runs of a study have the hash of their stage-1 run
    in place of its folder, and of their images in place of their paths.
    """
    return _hash(identity(recipe), None)


def _hash(settings: Mapping[str, Any], needs: str | None) -> str:
    """As `run_id`, of settings from `identity`, with the hash of the stage-1 run that provides the encoder."""
    if needs is not None:
        settings = {**settings, "encoder": {**settings["encoder"], "experience": needs}}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

"""Load a finished classifier, its classes, and the head that reads emotion from its stage-1 encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import Fit
from emoreg.config.setting_types import path_of
from emoreg.config.target_words import PREDICTED, describe_target
from emoreg.data.stimuli import WITH_CLASSES
from emoreg.data.stimuli.emotion import EmotionSpace, Kind
from emoreg.errors import UserError, is_plain, shortened
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.inputs import weights_checksum
from emoreg.runs.run import WEIGHTS, Run, open_run
from emoreg.runtime.places import portable
from emoreg.stages.affective_heads import Head, heads_of
from emoreg.stages.classifier import load_classifier
from emoreg.stages.evaluate import total_classes
from emoreg.stages.given_model import describes_given_model, named_experiences
from emoreg.stages.pretrain import AffectiveModel, experience_run, load_encoder

COPY = "experience"  # folder inside a run for a copy of its stage-1 run, so that they can be moved together


@dataclass(frozen=True)
class EmotionReadout:
    """The stage-1 encoder, as it was before stage 2, with the linear head that reads emotion from its features.

    Args:
        model: encoder and head in evaluation mode; maps images to (B, ΣE).
        heads: names and ranges of the outputs, one head per stimulus set.
        image_size: input size of stage 1 in pixels, which may differ from that of stage 2.
        folder: the stage-1 run.
        fit: how stage 1 made images square.
    """

    model: AffectiveModel
    heads: tuple[Head, ...]
    image_size: int
    folder: Path
    fit: Fit = "crop"

    @torch.no_grad()
    def read(self, images: Tensor, encoder: nn.Module | None = None) -> Tensor:
        """Read emotion from images.

        Args:
            images: normalised, (B, 3, S, S), at the input size of the encoder that is used.
            encoder: used instead of the stage-1 encoder, for example the one that stage 2 trained further. The head
                was not trained with it and may no longer fit.

        Returns:
            (B, ΣE); the values of a head are at `head.outputs`. Probabilities of categories sum to 1 per head. Values
            of dimensions were trained within [-1, 1] and may lie slightly outside.
        """
        features = (encoder or self.model.encoder)(images)
        outputs = self.model.head(features).float()
        parts = []
        for head in self.heads:
            values = outputs[:, head.outputs]
            parts.append(values if head.space.kind == "dimensions" else values.softmax(dim=1))
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class LoadedRun:
    """A finished run of stage 2, in evaluation mode on the CPU.

    Args:
        folder: the run.
        model: the classifier.
        recipe: the recipe that it was trained with.
        classes: K names, in the order of the logits.
        image_size: S, side of the square input in pixels.
        readout: the stage-1 emotion readout; None if unavailable.
        no_readout_reason: why it is unavailable, as the end of a sentence; empty if it is available.
        whole_classes: number of classes of the whole target, of which `classes` may be a subset; None if unknown.
    """

    folder: Path
    model: RegulatedClassifier
    recipe: TrainRecipe
    classes: tuple[str, ...]
    image_size: int
    readout: EmotionReadout | None
    no_readout_reason: str = ""
    whole_classes: int | None = None

    @property
    def target(self) -> str:
        """Description of the target, see `describe_target`."""
        return describe_target(self.recipe.target, len(self.classes), self.whole_classes)

    @property
    def fit(self) -> Fit:
        """How images are made square."""
        return self.recipe.target.fit


def load_run(
    run: Run | Path | str, experience: Path | str | None = None, model: RegulatedClassifier | None = None
) -> LoadedRun:
    """Load a finished run of stage 2, with the emotion readout of its stage-1 run if that can be found.

    The stage-1 run is looked up in the run itself (a copy called "experience"), then at the path in the recipe,
    relative to the current folder and to every folder above the run. If both were moved together, the end of that path
    is enough. Only a run with the weights that this one started from is used.

    Args:
        run: the run or its folder.
        experience: folder of the stage-1 run, if it has been moved.
        model: for a run that trained your own model: one with the same architecture.

    Raises:
        UserError: the run is unfinished, the weights do not fit the architecture, or `experience` is not this run's.
    """
    run = open_run(run)
    classifier, classes = load_classifier(run, model)
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe)  # load_classifier refuses all others
    readout, reason = None, ""
    try:
        if not recipe.has_two_responses:
            raise _NoReadoutError("the classifier has no emotional branch")
        given = None if experience is None else path_of(experience, "experience")
        readout = _read_stage1(_find_stage1(run, recipe, given))
    except _NoReadoutError as error:
        if experience is not None:
            raise UserError(f"{experience} cannot read emotion for {run.folder}: {error}") from None
        reason = str(error)
    whole = None
    with contextlib.suppress(UserError):  # final.json is damaged, which nothing else here needs
        whole = total_classes(run.final)
    return LoadedRun(run.folder, classifier, recipe, classes, recipe.target.image_size, readout, reason, whole)


def require_classes(loaded: LoadedRun, what: str) -> None:
    """Raise UserError unless the classifier predicts one class per image. `what` names what needs that."""
    if (task := loaded.model.task) != "classification":
        raise UserError(
            f"{loaded.folder} predicts {PREDICTED[task]}; {what} needs a classifier that predicts one class per image"
        )


class _NoReadoutError(Exception):
    """No emotion can be read; the message says why, as the end of a sentence."""


def find_stage1(run: Run, recipe: TrainRecipe) -> PretrainRecipe | None:
    """The recipe of the stage-1 run, of any kind, whose encoder a run started from, looked up as in `load_run`.

    None if there is none, or if it cannot be found or read.
    """
    if not recipe.has_two_responses and recipe.regulation.mode != "transfer":
        return None
    try:
        found = Run(_find_stage1(run, recipe, None)).recipe
    except (_NoReadoutError, UserError):
        return None
    return found if isinstance(found, PretrainRecipe) else None


def _find_stage1(run: Run, recipe: TrainRecipe, experience: Path | None) -> Path:
    """The folder of the stage-1 run, at `experience` or where `_candidates` finds it. Raise _NoReadoutError."""
    recorded = _recorded_experience(run, recipe)
    checksum = run.inputs.experience
    candidates = _candidates(run.folder, recorded, checksum is not None) if experience is None else [experience]
    existing = [folder for folder in candidates if (folder / WEIGHTS).is_file()]
    if not existing:
        raise _NoReadoutError(f"its stage-1 run {portable(recorded, run.folder)} was not found")
    for folder in existing:
        if checksum is None or weights_checksum(folder / WEIGHTS) == checksum:
            return folder
    where = portable(existing[0], run.folder)
    raise _NoReadoutError(f"the weights in {where} differ from those that it was trained from")


def _recorded_experience(run: Run, recipe: TrainRecipe) -> str:
    """Path or name of the stage-1 run of a classifier's encoder, as recorded. _NoReadoutError if there is none."""
    if describes_given_model(recipe):
        names = named_experiences(run)
        if not names:
            raise _NoReadoutError("its emotional encoder was given in Python, and what it had learned is not recorded")
        if len(names) > 1:
            raise _NoReadoutError(
                f"its emotional encoder has several experiences ({', '.join(names)}), and a readout is of one"
            )
        return names[0]
    if recipe.encoder.experience is None:
        raise _NoReadoutError("its emotional encoder was never pre-trained on affective images")
    return recipe.encoder.experience


def _candidates(folder: Path, recorded: str, is_checked: bool) -> Iterator[Path]:
    """Folders where the stage-1 run of the run in `folder` may be; `recorded` is its path where it was trained.

    If its weights can be checked, the end of that path is enough to find a run that was moved.
    """
    yield folder / COPY
    yield Path(recorded)
    path = Path(recorded.replace("\\", "/"))
    parts = path.parts[1:] if path.is_absolute() else path.parts
    tails = [] if path.is_absolute() else [parts]
    if is_checked:
        tails = [parts[start:] for start in range(len(parts))]
    yield from (Path(parent, *tail) for parent in folder.resolve().parents for tail in tails)


def load_readout(experience: Path) -> EmotionReadout:
    """Load the emotion readout of a finished stage-1 run.

    Raises:
        UserError: the run is unfinished or damaged, or its encoder learned something other than emotion.
    """
    try:
        return _read_stage1(experience)
    except _NoReadoutError as error:
        raise UserError(f"{experience} reads no emotion: {error}") from None


def _read_stage1(folder: Path) -> EmotionReadout:
    run, recipe = experience_run(folder)
    if recipe.backbone.is_own:
        raise _NoReadoutError("its encoder is a network of your own, which emoreg cannot rebuild")
    path = folder / WEIGHTS
    weights, metadata = run.weights()
    if recipe.pretext != "affect":
        raise _NoReadoutError(f"it is a control, whose encoder learned {recipe.pretext} and not emotion")
    if has_class_stimuli(recipe):
        raise _NoReadoutError("it is a positive control, whose encoder learned classes and not emotion")
    try:
        heads = _heads(metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = shortened(str(error))
        raise UserError(f"{path} is damaged: its metadata does not describe its outputs ({reason})") from None
    model = AffectiveModel(load_encoder(folder), heads[-1].stop)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the architecture: {shortened(str(error), 300)}") from None
    return EmotionReadout(model.eval(), heads, recipe.stimuli.image_size, folder, recipe.stimuli.fit)


def has_class_stimuli(recipe: PretrainRecipe) -> bool:
    """Whether stage 1 learns classes of a target, which are not emotions: a positive control, if it is no twin."""
    return any(settings.name in WITH_CLASSES for settings in recipe.sets)


def _heads(metadata: dict[str, Any]) -> tuple[Head, ...]:
    """Parse the heads in the metadata of weights. Malformed metadata raises ValueError, KeyError and others."""
    if "heads" not in metadata:
        return heads_of([("emotion", _space(metadata["space"]))])
    records = metadata["heads"]
    heads = heads_of([(_name(record["name"]), _space(record["space"])) for record in records])
    outputs = [(record["start"], record["stop"]) for record in records]
    if not heads or outputs != [(head.start, head.stop) for head in heads]:
        raise ValueError("the outputs of its heads are not side by side")
    return heads


def _space(record: dict[str, Any]) -> EmotionSpace:
    kind, names = record["kind"], tuple(map(_name, record["names"]))
    if kind not in get_args(Kind) or not names:
        raise ValueError("not an emotion space")
    return EmotionSpace(kind, names)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not is_plain(value):
        raise ValueError("a name that is not plain text")
    return value

"""Loads a finished classifier, its classes, and the head that reads emotion from its stage-1 encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import Fit
from emoreg.config.setting_types import path_of
from emoreg.config.target_words import ANSWERED, describe_target
from emoreg.data.stimuli import WITH_CLASSES
from emoreg.data.stimuli.emotion import EmotionSpace, Kind
from emoreg.errors import UserError, is_plain, shortened
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.inputs import weights_checksum
from emoreg.runs.run import WEIGHTS, Run, open_run
from emoreg.runtime.places import portable
from emoreg.stages.affective_heads import Head, heads_of
from emoreg.stages.classifier import load_classifier
from emoreg.stages.evaluate import whole_of
from emoreg.stages.given_model import is_recorded, named_experiences
from emoreg.stages.pretrain import AffectiveModel, load_encoder

COPY = "experience"  # inside a run: a copy of its stage-1 run, so that both can be moved together


@dataclass(frozen=True)
class EmotionReadout:
    """The stage-1 encoder, as it was before stage 2, with the linear head that reads emotion from its features.

    Args:
        model: encoder and head in evaluation mode; maps images to (B, ΣE).
        heads: what the outputs mean: one head per stimulus set, mostly a single one.
        image_size: stage 1's input size in pixels, which may differ from stage 2's.
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
            encoder: replaces the stage-1 encoder, for example by the one that stage 2 trained further. The head was
                not trained with it and may no longer fit.

        Returns:
            (B, ΣE); a head's values are at `head.outputs`. Probabilities for categories, summing to 1 per head;
            values of dimensions were trained within [-1, 1] and may lie slightly outside.
        """
        features = (encoder or self.model.encoder)(images)
        outputs = self.model.head(features).float()
        parts = [
            values if head.space.kind == "dimensions" else values.softmax(dim=1)
            for head, values in ((head, outputs[:, head.outputs]) for head in self.heads)
        ]
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class LoadedRun:
    """A finished run of stage 2, in evaluation mode on the CPU.

    Args:
        folder: the run.
        model: the classifier.
        recipe: the recipe it was trained with.
        classes: K names, in the order of the logits.
        image_size: S, side of the square input in pixels.
        readout: the stage-1 emotion readout; None if unavailable.
        no_readout_reason: why it is unavailable, as the end of a sentence; empty if it is available.
        whole_classes: number of classes of the whole target, of which `classes` may be some; None where unknown.
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
        """The target in words, see `describe_target`."""
        return describe_target(self.recipe.target, len(self.classes), self.whole_classes)

    @property
    def fit(self) -> Fit:
        """How its images are made square."""
        return self.recipe.target.fit


def load_run(
    run: Run | Path | str, experience: Path | str | None = None, model: RegulatedClassifier | None = None
) -> LoadedRun:
    """Load a finished run of stage 2, with the emotion readout of its stage-1 run if that can be found.

    The stage-1 run is searched for at the recipe's path, relative to the current folder and to every folder above the
    run, and in the run itself ("experience", a copy); also where both were moved together. It is only used if its
    weights are those that the run started from.

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
    readout, reason = _find_readout(run, recipe, None if experience is None else path_of(experience, "experience"))
    if reason and experience is not None:
        raise UserError(f"{experience} cannot read emotion for {run.folder}: {reason}")
    whole = None
    with contextlib.suppress(UserError):  # of a damaged final.json, which nothing else here needs
        whole = whole_of(run.final)
    return LoadedRun(run.folder, classifier, recipe, classes, recipe.target.image_size, readout, reason, whole)


def require_classes(loaded: LoadedRun, what: str) -> None:
    """UserError for a classifier that does not answer one class; `what` is what it is wanted for."""
    if (task := loaded.model.task) != "classification":
        raise UserError(
            f"{loaded.folder} answers with {ANSWERED[task]}; {what} takes a classifier of one class an image"
        )


class _ReadoutOrReason(NamedTuple):
    """A readout; or None, and why there is none, as the end of a sentence."""

    readout: EmotionReadout | None
    reason: str = ""


def _find_readout(run: Run, recipe: TrainRecipe, experience: Path | None) -> _ReadoutOrReason:
    if not recipe.has_two_responses:
        return _ReadoutOrReason(None, "the classifier has no emotional branch")
    written = recipe.encoder.experience
    if is_recorded(recipe):
        names = named_experiences(run)
        if len(names) != 1:
            reason = "was given in Python, and nothing tells what it had learned"
            if names:
                reason = f"has several experiences ({', '.join(names)}), and a readout is of one"
            return _ReadoutOrReason(None, f"its emotional encoder {reason}")
        (written,) = names
    if written is None:
        return _ReadoutOrReason(None, "its emotional encoder was never pre-trained")
    expected = run.inputs.experience
    candidates = _candidates(run.folder, written, expected is not None) if experience is None else [experience]
    found = [folder for folder in candidates if (folder / WEIGHTS).is_file()]
    if not found:
        return _ReadoutOrReason(None, f"its stage-1 run {portable(written, run.folder)} was not found")
    for folder in found:
        if expected in (None, weights_checksum(folder / WEIGHTS)):
            return _read_stage1(folder)
    reason = f"the weights in {portable(found[0], run.folder)} are not those that it was trained from"
    return _ReadoutOrReason(None, reason)


def _candidates(folder: Path, written: str, is_known: bool) -> Iterator[Path]:
    """Where a run's stage-1 run may be: in it, at the path as it is written, and from every folder above the run.

    Args:
        folder: of the run.
        written: path of its stage-1 run, on the system where it was trained.
        is_known: whether its weights are known; then the end of the path is enough, as both may have been moved.
    """
    yield folder / COPY
    yield Path(written)
    path = Path(written.replace("\\", "/"))
    parts = path.parts[1:] if path.is_absolute() else path.parts
    whole = [] if path.is_absolute() else [parts]
    tails = [parts[start:] for start in range(len(parts))] if is_known else whole
    yield from (Path(parent, *tail) for parent in folder.resolve().parents for tail in tails)


def read_out_of(experience: Path) -> EmotionReadout:
    """The readout of a finished stage-1 run.

    Raises:
        UserError: it is unfinished or damaged, or its encoder learned something else than emotion.
    """
    readout, reason = _read_stage1(experience)
    if readout is None:
        raise UserError(f"{experience} reads no emotion: {reason}")
    return readout


def _read_stage1(folder: Path) -> _ReadoutOrReason:
    run = Run(folder)
    recipe = run.recipe
    if not isinstance(recipe, PretrainRecipe):
        raise UserError(f"{folder} is a run of stage 2, not of stage 1")
    if recipe.backbone.is_own:
        return _ReadoutOrReason(None, "its encoder is a network of its author's own")
    weights, metadata = run.weights()
    if recipe.pretext != "affect":
        return _ReadoutOrReason(None, f"it is a control, whose encoder learned {recipe.pretext} and not emotion")
    if any(settings.name in WITH_CLASSES for settings in recipe.sets):
        return _ReadoutOrReason(None, "it is a positive control, whose encoder learned classes and not emotion")
    try:
        heads = _heads(metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = shortened(str(error))
        raise UserError(f"{folder / WEIGHTS} is damaged: its metadata do not describe its outputs ({reason})") from None
    if "head.bias" not in weights or len(weights["head.bias"]) != heads[-1].stop:
        raise UserError(f"{folder / WEIGHTS} is damaged: the size of its head is not its {heads[-1].stop} outputs")
    model = AffectiveModel(load_encoder(folder), heads[-1].stop)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder / WEIGHTS} does not fit the architecture: {shortened(str(error), 300)}") from None
    readout = EmotionReadout(model.eval(), heads, recipe.stimuli.image_size, folder, recipe.stimuli.fit)
    return _ReadoutOrReason(readout)


def _heads(metadata: dict[str, Any]) -> tuple[Head, ...]:
    """The heads that the metadata of weights describe. Malformed metadata raise ValueError, KeyError and others."""
    if "heads" not in metadata:
        return heads_of([("emotion", _space(metadata["space"]))])
    heads = tuple(
        Head(_name(head["name"]), _space(head["space"]), head["start"], head["stop"]) for head in metadata["heads"]
    )
    starts = [0, *(head.stop for head in heads)]
    for start, head in zip(starts, heads, strict=False):
        if head.start != start or head.stop != start + len(head.space.names):
            raise ValueError(f"the outputs of {head.name} are out of place")
    if not heads:
        raise ValueError("there are no heads")
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

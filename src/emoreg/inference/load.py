"""A finished run, ready to be used: the classifier, its classes, and the head that its encoder learned to feel with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from emoreg.config.schema import PretrainRecipe, TrainRecipe
from emoreg.data.stimuli.emotion import EmotionSpace, Kind
from emoreg.errors import UserError, is_plain, shortened
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import WEIGHTS, Run
from emoreg.stages.affective_heads import Head, heads_of
from emoreg.stages.classify import load_classifier
from emoreg.stages.pretrain import AffectiveModel, load_encoder

COPY = "experience"  # below a run: a copy of its stage-1 run, for a run that is handed on


@dataclass(frozen=True)
class ReadOut:
    """What stage 1 learned to feel with: its encoder, as it was before stage 2, and the linear read-out of emotion.

    Args:
        model: the stage-1 encoder with its head, in evaluation; gives (B, ΣE).
        heads: what the outputs mean: one head a stimulus set, mostly one.
        image_size: of stage 1, in pixels, which may differ from stage 2's.
        folder: of the stage-1 run.
    """

    model: AffectiveModel
    heads: tuple[Head, ...]
    image_size: int
    folder: Path

    @property
    def space(self) -> EmotionSpace:
        """Of the first head."""
        return self.heads[0].space

    @torch.no_grad()
    def feel(self, images: Tensor, encoder: nn.Module | None = None) -> Tensor:
        """The emotion read out of normalised images (B, 3, S, S): (B, ΣE), those of a head at `head.outputs`.

        Probabilities of a head's categories, which add up to 1; or the values of its dimensions, which were learned
        within [-1, 1] and may come out a little beyond.

        Args:
            images: of `image_size`.
            encoder: in place of stage 1's, such as the one that stage 2 made of it, for which images have that
                stage's size. The head was not trained with it and need no longer fit.
        """
        features = (encoder or self.model.encoder)(images)
        outputs = self.model.head(features).float()
        parts = [
            values if head.space.kind == "dimensions" else values.softmax(dim=1)
            for head, values in ((head, outputs[:, head.outputs]) for head in self.heads)
        ]
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Loaded:
    """A finished run of stage 2, in evaluation and on the CPU.

    Args:
        folder: of the run.
        model: the classifier.
        recipe: what it was trained by.
        classes: K names, in the order of the logits.
        image_size: S, side of the square input in pixels.
        read_out: the stage-1 read-out of emotion; None where there is none.
        no_read_out: why there is none, as the end of a sentence; empty where there is one.
    """

    folder: Path
    model: RegulatedClassifier
    recipe: TrainRecipe
    classes: tuple[str, ...]
    image_size: int
    read_out: ReadOut | None
    no_read_out: str = ""


def load_run(
    run: Run | Path | str, experience: Path | str | None = None, model: RegulatedClassifier | None = None
) -> Loaded:
    """A finished run of stage 2 with the read-out of emotion that its encoder learned in stage 1.

    The stage-1 run is looked for where the recipe says, from here and from every folder above the run, and in the
    run itself ("experience", a copy). It counts only if its weights are those that the run was trained from.

    Args:
        run: the run or its folder.
        experience: folder of its stage-1 run, for one that has been moved.
        model: for a run that trained your own model, one built alike.

    Raises:
        UserError: unfinished run, weights of another architecture, or an `experience` that is not this run's.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    classifier, classes = load_classifier(run, model)
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe)  # load_classifier has refused all others
    read_out: ReadOut | None = None
    try:
        read_out, reason = _find_read_out(run, recipe, None if experience is None else Path(experience)), ""
    except _NoReadOut as error:
        if experience is not None:
            raise UserError(f"{experience} cannot read emotion out for {run.folder}: {error}") from None
        reason = str(error)
    return Loaded(run.folder, classifier, recipe, classes, recipe.target.image_size, read_out, reason)


class _NoReadOut(Exception):
    """Why emotion cannot be read out."""


def _find_read_out(run: Run, recipe: TrainRecipe, experience: Path | None) -> ReadOut:
    """UserError, or _NoReadOut with the reason."""
    asked = recipe.encoder.experience
    if recipe.regulation.mode == "none":
        raise _NoReadOut("the classifier has no emotional branch")
    if asked is None:
        raise _NoReadOut("its emotional encoder was never pre-trained")
    expected = _recorded_checksum(run)
    places = [experience] if experience is not None else list(_places(run.folder, Path(asked)))
    found = [place for place in places if (place / WEIGHTS).is_file()]
    if not found:
        raise _NoReadOut(f"its stage-1 run {asked} is not there")
    fitting = [place for place in found if expected in (None, _checksum(place))]
    if not fitting:
        raise _NoReadOut(f"the weights in {found[0]} are not those that it was trained from")
    return _read_stage1(fitting[0])


def _places(folder: Path, asked: Path) -> Iterator[Path]:
    yield folder / COPY
    yield asked
    if not asked.is_absolute():
        yield from (parent / asked for parent in folder.resolve().parents)


def _read_stage1(folder: Path) -> ReadOut:
    """The read-out of a finished stage-1 run. _NoReadOut for one that learned nothing of emotion."""
    run = Run(folder)
    recipe = run.recipe
    if not isinstance(recipe, PretrainRecipe):
        raise UserError(f"{folder} is a run of stage 2, not of stage 1")
    weights, metadata = run.weights()
    if recipe.pretext != "affect":
        raise _NoReadOut(f"it is a control, whose encoder learned {recipe.pretext} and not emotion")
    try:
        heads = _heads(metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = shortened(str(error))
        raise UserError(f"{folder / WEIGHTS} does not say what its outputs mean ({reason}): it is damaged") from None
    if "head.bias" not in weights or len(weights["head.bias"]) != heads[-1].stop:
        raise UserError(f"{folder / WEIGHTS} holds a head of another size than its {heads[-1].stop} outputs")
    model = AffectiveModel(load_encoder(folder), heads[-1].stop)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder / WEIGHTS} is of another architecture: {shortened(str(error), 300)}") from None
    return ReadOut(model.eval(), heads, recipe.stimuli.image_size, folder)


def _heads(metadata: dict[str, Any]) -> tuple[Head, ...]:
    """What the outputs mean. ValueError and others for metadata that do not say it."""
    if "heads" not in metadata:
        return heads_of([("emotion", _space(metadata["space"]))])
    heads = tuple(
        Head(_name(head["name"]), _space(head["space"]), head["start"], head["stop"]) for head in metadata["heads"]
    )
    starts = [0, *(head.stop for head in heads)]
    for start, head in zip(starts, heads, strict=False):
        if head.start != start or head.stop != start + len(head.space.names):
            raise ValueError(f"the outputs of {head.name} do not lie where they should")
    if not heads:
        raise ValueError("there are no heads")
    return heads


def _space(written: dict[str, Any]) -> EmotionSpace:
    kind, names = written["kind"], tuple(map(_name, written["names"]))
    if kind not in get_args(Kind) or not names:
        raise ValueError("a space of emotions that is none")
    return EmotionSpace(kind, names)


def _name(written: Any) -> str:
    if not isinstance(written, str) or not is_plain(written):
        raise ValueError("a name that is no text")
    return written


def _recorded_checksum(run: Run) -> str | None:
    """Of the weights that the run took its encoder from; None for a run that did not write it down."""
    sessions = run.environment
    recorded = sessions[-1].get("experience") if sessions else None
    checksum = recorded.get("sha256") if isinstance(recorded, dict) else None
    return checksum if isinstance(checksum, str) else None


def _checksum(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()

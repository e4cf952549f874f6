"""Whose weights the networks have that a caller brings: those of which stage-1 run, and of which run that trained them.

Either is a plain attribute of a module, which its copies have too and no state dict has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from emoreg.config.recipe import Recipe, TrainRecipe
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.inputs import SHOWN, weights_checksum
from emoreg.runs.run import WEIGHTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.given_model import named_experiences

EXPERIENCE, TRAINED = "emoreg_experience", "emoreg_trained_by"


class Experience(NamedTuple):
    """A stage-1 run whose weights a network was given."""

    folder: str  # a whole path; or its name, where nothing else is known of it
    sha256: str  # of the weights

    @property
    def is_placed(self) -> bool:
        """Whether it is known where its folder is, or was."""
        return Path(self.folder).is_absolute()

    @property
    def is_there(self) -> bool:
        """Whether its folder still holds these weights."""
        return self.is_placed and weights_checksum(Path(self.folder) / WEIGHTS) == self.sha256


def mark_experience(encoder: nn.Module, run: Run) -> None:
    """Note in an encoder that it was given the weights of a stage-1 run, whatever has trained it before."""
    vars(encoder).pop(TRAINED, None)
    if (checksum := weights_checksum(run.folder / WEIGHTS)) is not None:
        setattr(encoder, EXPERIENCE, (str(run.folder.absolute()), checksum))


def experiences_of(model: nn.Module) -> tuple[Experience, ...]:
    """Those of all networks within a model, in their order; none if their weights were loaded in another way."""
    marks = (vars(module).get(EXPERIENCE) for module in model.modules())
    return tuple(dict.fromkeys(Experience(*mark) for mark in marks if mark is not None))


def checksum_of(experiences: Sequence[Experience]) -> str | None:
    """That of the weights of one experience, or of several together; None without any."""
    if len(experiences) < 2:
        return experiences[0].sha256 if experiences else None
    return hashlib.sha256("".join(each.sha256 for each in experiences).encode()).hexdigest()


def fingerprint(experiences: Sequence[Experience]) -> dict[str, str | list[str]] | None:
    """Which experience a run's encoder has had: the folder's name, or a list of several, and `checksum_of`."""
    if (checksum := checksum_of(experiences)) is None:
        return None
    names = [Path(each.folder).name for each in experiences]
    return {"folder": names[0] if len(names) == 1 else names, "sha256": checksum}


def describe(experiences: Sequence[Experience]) -> str:
    """Whose stage-1 weights a model has, after these words."""
    if not experiences:
        return "none from emoreg.load_encoder"
    checksum = str(checksum_of(experiences))[:SHOWN]
    return f"{checksum} ({', '.join(each.folder for each in experiences)})"


def mark_trained(model: nn.Module, run: Run, has_ended: bool = False) -> None:
    """Note in the networks of a model that a run trains them; or has ended, and left them what they have."""
    networks = [model]
    if isinstance(model, RegulatedClassifier):  # a classifier of another head may be built around the same networks
        networks = [model.backbone]
        if model.encoder is not None and not model.freeze_encoder:
            networks.append(model.encoder)
    for network in networks:
        setattr(network, TRAINED, (str(run.folder.absolute()), _digest(network) if has_ended else None))


def _trained_by(network: nn.Module) -> str | None:
    """The run that left a network its weights; None if there is none, or the weights are others by now."""
    folder, digest = vars(network).get(TRAINED, (None, None))
    return folder if digest is None or digest == _digest(network) else None


def _digest(network: nn.Module) -> str:
    """SHA-256 of the first and the last parameter: whoever loads other weights changes these too."""
    parameters = [*network.parameters()]
    ends = (part.detach().cpu().flatten().view(torch.uint8).numpy() for part in (*parameters[:1], *parameters[-1:]))
    return hashlib.sha256(b"".join(part.tobytes() for part in ends)).hexdigest()


def mark_loaded(model: RegulatedClassifier, run: Run) -> None:
    """Note in a classifier that it was given the weights of a run of stage 2: that one's, and its experience."""
    inputs = run.inputs
    if inputs.tells_experience and checksum_of(experiences_of(model)) != inputs.experience:
        for module in model.modules():
            vars(module).pop(EXPERIENCE, None)
        if inputs.experience is not None and (names := named_experiences(run)):
            encoder = model.backbone if model.encoder is None else model.encoder
            setattr(encoder, EXPERIENCE, (_place_of_experience(run.recipe) or ", ".join(names), inputs.experience))
    mark_trained(model, run, has_ended=True)


def _place_of_experience(recipe: Recipe) -> str | None:
    written = recipe.encoder.experience if isinstance(recipe, TrainRecipe) else None
    return None if written is None else str(Path(written).absolute())


def tell_if_trained(run: Run, name: str, model: nn.Module, progress: Progress) -> None:
    """Tell in a line that a new run begins with what another has trained, but for stage 2 with what stage 1 has.

    Args:
        run: new, or resumed, of which nothing is told.
        name: what the model was given as.
        model: the caller's.
        progress: for the line.
    """
    if run.has_begun:
        return
    marks = [_trained_by(module) for module in model.modules()]
    if run.stage == 1:
        marks += [experience.folder for experience in experiences_of(model)]
    if before := ", ".join(dict.fromkeys(filter(None, marks))):
        progress.say(
            f"{run.folder.name} begins with the weights that {before} left in {name}: build a new one for each run"
        )

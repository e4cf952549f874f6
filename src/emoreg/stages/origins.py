"""Provenance of user-supplied networks: the stage-1 run that their weights came from, and the run that trained them.

Both marks are plain attributes of a module: copies keep them, state dicts do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from emoreg.config.recipe import TrainRecipe
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.inputs import CHECKSUM_DIGITS, weights_checksum
from emoreg.runs.run import WEIGHTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.given_model import named_experiences

EXPERIENCE, TRAINED = "emoreg_experience", "emoreg_trained_by"
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes per element


class LoadedExperience(NamedTuple):
    """A stage-1 run whose weights a network was given."""

    folder: str  # an absolute path; only the name if that is unknown
    sha256: str  # of the weights

    @property
    def is_located(self) -> bool:
        """Whether the path of the folder is known, though it may be gone."""
        return Path(self.folder).is_absolute()

    @property
    def is_available(self) -> bool:
        """Whether the folder still holds these weights."""
        return self.is_located and weights_checksum(Path(self.folder) / WEIGHTS) == self.sha256


def mark_experience(encoder: nn.Module, run: Run) -> None:
    """Mark an encoder as holding the weights of a stage-1 run; drop any mark of later training."""
    vars(encoder).pop(TRAINED, None)
    checksum = weights_checksum(run.folder / WEIGHTS)
    if checksum is not None:
        setattr(encoder, EXPERIENCE, (str(run.folder.absolute()), checksum))


def experiences_of(model: nn.Module) -> tuple[LoadedExperience, ...]:
    """The distinct experiences of all networks within a model; empty if their weights were not loaded by emoreg."""
    marks = [vars(module).get(EXPERIENCE) for module in model.modules()]
    return tuple(dict.fromkeys(LoadedExperience(*mark) for mark in marks if mark is not None))


def checksum_of(experiences: Sequence[LoadedExperience]) -> str | None:
    """The checksum of one experience's weights, or a joint checksum of several; None if there are none."""
    if not experiences:
        return None
    if len(experiences) == 1:
        return experiences[0].sha256
    return hashlib.sha256("".join(each.sha256 for each in experiences).encode()).hexdigest()


def experience_record(experiences: Sequence[LoadedExperience]) -> dict[str, str | list[str]] | None:
    """An entry for environment.json: the folder's name, or a list if there are several, and `checksum_of`."""
    checksum = checksum_of(experiences)
    if checksum is None:
        return None
    names = [Path(each.folder).name for each in experiences]
    return {"folder": names[0] if len(names) == 1 else names, "sha256": checksum}


def describe_experiences(experiences: Sequence[LoadedExperience]) -> str:
    """Describe a model's experiences in a few words, to follow "stage-1 weights"."""
    if not experiences:
        return "none from emoreg.load_encoder"
    checksum = str(checksum_of(experiences))[:CHECKSUM_DIGITS]
    return f"{checksum} ({', '.join(each.folder for each in experiences)})"


def mark_trained(model: nn.Module, run: Run, is_finished: bool = False) -> None:
    """Mark the networks within a model as trained by a run; the mark of a finished run lapses if weights change."""
    networks = [model]
    if isinstance(model, RegulatedClassifier):  # mark the trunks, around which another classifier may be built
        networks = [model.backbone]
        if model.encoder is not None and not model.freeze_encoder:
            networks.append(model.encoder)
    for network in networks:
        setattr(network, TRAINED, (str(run.folder.absolute()), _checksums(network) if is_finished else None))


def _trained_by(network: nn.Module) -> str | None:
    """The folder of the run that trained a network; None if there is none, or the weights have changed since."""
    folder, checksums = vars(network).get(TRAINED, (None, None))
    return folder if checksums is None or checksums == _checksums(network) else None


def _checksums(network: nn.Module) -> tuple[int, ...]:
    """Sums of the bits of all parameters, as integers, which are the same on every device.

    A hash would need a copy on the CPU and several times as long. Values that only change places are not noticed.
    """
    parameters = (parameter.detach() for parameter in network.parameters())
    return tuple(int(each.view(INTEGERS[each.itemsize]).sum(dtype=torch.int64)) for each in parameters)


def mark_loaded(model: RegulatedClassifier, run: Run) -> None:
    """Mark a classifier as trained by a finished run of stage 2, and its encoder with the run's experience."""
    inputs, recipe = run.inputs, run.recipe
    if inputs.knows_experience and checksum_of(experiences_of(model)) != inputs.experience:
        for module in model.modules():
            vars(module).pop(EXPERIENCE, None)
        names = named_experiences(run)
        if inputs.experience is not None and names:
            folder = ", ".join(names)
            if isinstance(recipe, TrainRecipe) and recipe.encoder.experience is not None:
                folder = str(Path(recipe.encoder.experience).absolute())
            encoder = model.backbone if model.encoder is None else model.encoder
            setattr(encoder, EXPERIENCE, (folder, inputs.experience))
    mark_trained(model, run, is_finished=True)


def warn_if_trained(run: Run, name: str, model: nn.Module, progress: Progress) -> None:
    """Print a line if a new run starts from weights that another run has trained, except stage 2 from stage 1's.

    Args:
        run: of this training; nothing is printed if it is resumed.
        name: the argument that the model was passed as.
        model: the caller's.
        progress: prints the line.
    """
    if run.has_begun:
        return
    folders = [_trained_by(module) for module in model.modules()]
    if run.stage == 1:
        folders += [experience.folder for experience in experiences_of(model)]
    distinct = [folder for folder in dict.fromkeys(folders) if folder is not None]
    if distinct:
        progress.say(
            f"{run.folder.name} starts from the weights that {', '.join(distinct)} left in {name}: build a new one for "
            "each run"
        )

"""Whose weights the networks have that a caller brings: those of which stage-1 run, and of which run that trained them.

Either is a plain attribute of a module, which its copies have too and no state dict has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from emoreg.runs.inputs import SHOWN, weights_checksum
from emoreg.runs.run import WEIGHTS, Run

EXPERIENCE = "emoreg_experience"


class Experience(NamedTuple):
    """A stage-1 run whose weights a network was given."""

    folder: str
    sha256: str  # of the weights

    @property
    def is_there(self) -> bool:
        """Whether its folder still holds these weights."""
        return weights_checksum(Path(self.folder) / WEIGHTS) == self.sha256


def mark_experience(encoder: nn.Module, run: Run) -> None:
    """Note in an encoder that it was given the weights of a stage-1 run."""
    if (checksum := weights_checksum(run.folder / WEIGHTS)) is not None:
        setattr(encoder, EXPERIENCE, (str(run.folder), checksum))


def experiences_of(model: nn.Module) -> tuple[Experience, ...]:
    """Those of all networks within a model, in their order; none if their weights were loaded in another way."""
    marks = (vars(module).get(EXPERIENCE) for module in model.modules())
    return tuple(dict.fromkeys(Experience(*mark) for mark in marks if mark is not None))


def checksum_of(experiences: Sequence[Experience]) -> str | None:
    """That of the weights of one experience, or of several together; None without any."""
    if len(experiences) < 2:
        return experiences[0].sha256 if experiences else None
    return hashlib.sha256("".join(each.sha256 for each in experiences).encode()).hexdigest()


def fingerprint(experiences: Sequence[Experience]) -> dict[str, str] | None:
    """Which experience a run's encoder has had: the folder's name, and the checksum of its weights."""
    if (checksum := checksum_of(experiences)) is None:
        return None
    return {"folder": ", ".join(Path(each.folder).name for each in experiences), "sha256": checksum}


def describe(experiences: Sequence[Experience]) -> str:
    """Whose stage-1 weights a model has, after these words."""
    if not experiences:
        return "none from emoreg.load_encoder"
    checksum = str(checksum_of(experiences))[:SHOWN]
    return f"{checksum} ({', '.join(each.folder for each in experiences)})"

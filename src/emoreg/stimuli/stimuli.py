"""What the reader of every stimulus set gives, and the label that is chosen from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.emotion import EKMAN_6, POLARITY, EmotionSpace, ekman, majority, polarity
from emoreg.errors import UserError
from emoreg.images.table import Images, Table, take_images
from emoreg.settings import LabelChoice

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Labels:
    """One label an image, in one space.

    Args:
        space: of the labels.
        values: int64 (N,) or float32 (N, E), as the space says.
    """

    space: EmotionSpace
    values: NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Stimuli:
    """A stimulus set as published.

    Args:
        name: of the set.
        images: N of them, not yet decoded.
        labels: what the set has, the one that is used by default first.
        splits: of each image, where the set is published with splits.
    """

    name: str
    images: Images
    labels: tuple[Labels, ...]
    splits: Sequence[Split] | None = None


def choose_labels(stimuli: Stimuli, choice: LabelChoice) -> tuple[Table, EmotionSpace, NDArray[np.int64]]:
    """The table with the labels that were chosen, their space, and which rows of `stimuli` are in it.

    Images that have no such label are left out: ties of a majority, surprise for polarity, and so on.

    Args:
        stimuli: as read.
        choice: published (the set's own), distribution (of votes), majority (the most-voted category, ties
            left out), polarity (negative or positive), ekman (one of six), dimensions (valence, arousal, ...).

    Raises:
        UserError: the set has nothing from which the choice follows.
    """
    kinds = {labels.space.kind: labels for labels in reversed(stimuli.labels)}
    first = stimuli.labels[0]
    if choice == "published":
        space, values = first.space, first.values
    elif choice == "distribution" and "votes" in kinds:
        space, values = kinds["votes"].space, kinds["votes"].values
    elif choice == "dimensions" and "dimensions" in kinds:
        space, values = kinds["dimensions"].space, kinds["dimensions"].values
    elif choice == "majority" and "votes" in kinds:
        space = EmotionSpace("category", kinds["votes"].space.names)
        values = majority(kinds["votes"].values.astype(np.float32))
    elif choice == "majority" and "category" in kinds:
        space, values = kinds["category"].space, kinds["category"].values
    elif choice == "polarity":
        space, values = EmotionSpace("category", POLARITY), polarity(first.values, first.space)
    elif choice == "ekman" and first.space.kind != "dimensions":
        space, values = EmotionSpace("category", EKMAN_6), ekman(first.values, first.space)
    else:
        raise UserError(f"stimuli.labels: {stimuli.name} has {' and '.join(kinds)}, from which no {choice} follows")
    rows = np.flatnonzero(values >= 0) if space.kind == "category" else np.arange(len(values))
    return Table(stimuli.name, take_images(stimuli.images, rows), values[rows]), space, rows

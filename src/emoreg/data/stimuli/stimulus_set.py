"""A stimulus set as its reader returns it, and the choice of one label per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import LabelChoice
from emoreg.data.images.names import Split
from emoreg.data.images.table import Images, Table, take_images
from emoreg.data.stimuli.emotion import (
    EKMAN_6,
    EKMAN_OF,
    POLARITY,
    POLARITY_OF,
    VALENCE_AROUSAL_DOMINANCE,
    EmotionSpace,
    dimensions,
    ekman,
    majority,
    polarity,
)
from emoreg.errors import SettingError


@dataclass(frozen=True)
class Labels:
    """One label per image, in one space.

    Args:
        space: the emotion space of the labels.
        values: int64 (N,) or float32 (N, E), as the space says.
    """

    space: EmotionSpace
    values: NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Stimuli:
    """A stimulus set as published.

    Args:
        name: name of the set.
        images: N images, not yet decoded.
        labels: all labels of the set, the default first.
        splits: split of each image (N,), if the set is published with splits.
        missing: places of the rows that were skipped because their image is missing.
        neutral: a published label that is no emotion (categories), for the pretext `neutral`; None without one.
        notes: lines that say what was taken for what: columns, splits, emotions.
        left_out: lines that say which images below the root are not used, and why.
    """

    name: str
    images: Images
    labels: tuple[Labels, ...]
    splits: Sequence[Split] | None = None
    missing: Sequence[str] = ()
    neutral: Labels | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def choose_labels(stimuli: Stimuli, choice: LabelChoice) -> tuple[Table, EmotionSpace, NDArray[np.int64]]:
    """The table with the chosen labels, their space, and the rows of `stimuli` that it contains.

    Images without such a label are skipped: ties of a majority, surprise for polarity, and so on. If a choice follows
    from several kinds of labels, the first of them is used.

    Args:
        stimuli: the whole set.
        choice: published (the set's own), distribution (of votes), majority (the most-voted category, ties
            left out), polarity (negative or positive), ekman (one of six), dimensions (valence, arousal, ...;
            those of the words where the set has none, see `emotion.dimensions`).

    Raises:
        UserError: the set has nothing from which the choice follows, or it leaves no image.
    """
    chosen = next((follows for labels in _in_order(stimuli, choice) if (follows := _follow(labels, choice))), None)
    kinds = " and ".join(f"{labels.space.kind} ({', '.join(labels.space.names)})" for labels in stimuli.labels)
    if chosen is None:
        raise SettingError("stimuli.labels", f"{stimuli.name} has {kinds}, from which no {choice} follows")
    values = chosen.values
    rows = np.flatnonzero(values >= 0) if chosen.space.kind == "category" else np.arange(len(values))
    if len(rows) == 0:
        raise SettingError(
            "stimuli.labels",
            f"{choice} leaves none of the {len(values)} images of {stimuli.name}: they tie, or it has no category for "
            "their emotions",
        )
    return Table(stimuli.name, take_images(stimuli.images, rows), values[rows]), chosen.space, rows


def _in_order(stimuli: Stimuli, choice: LabelChoice) -> Sequence[Labels]:
    """The set's labels; those that need no mapping for this choice come first."""
    if choice != "dimensions":
        return stimuli.labels
    return sorted(stimuli.labels, key=lambda labels: labels.space.kind != "dimensions")


def _follow(labels: Labels, choice: LabelChoice) -> Labels | None:
    """The chosen labels, -1 for images without one; None if they do not follow from `labels`."""
    space, values = labels.space, labels.values
    if choice == "published" or (choice, space.kind) in (
        ("distribution", "votes"),
        ("majority", "category"),
        ("dimensions", "dimensions"),
    ):
        return labels
    if choice == "majority" and space.kind == "votes":
        return Labels(EmotionSpace("category", space.names), majority(values.astype(np.float32)))
    if choice == "polarity" and ("valence" in space.names or set(space.names) & set(POLARITY_OF)):
        return Labels(EmotionSpace("category", POLARITY), polarity(values, space))
    if choice == "ekman" and space.kind != "dimensions" and set(space.names) & set(EKMAN_OF):
        return Labels(EmotionSpace("category", EKMAN_6), ekman(values, space))
    if choice == "dimensions" and (mapped := dimensions(values, space)) is not None:
        return Labels(VALENCE_AROUSAL_DOMINANCE, mapped)
    return None

"""A stimulus set as its reader returns it, the selection of one label per image, and a check of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import LabelChoice, TargetLabels
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
    has_any_of,
    majority,
    most_voted,
    polarity,
    standard,
)
from emoreg.errors import SettingError, UserError


@dataclass(frozen=True)
class Labels:
    """One label per image, in one space.

    Args:
        space: the emotion space of the labels.
        values: int64 (N,) or float32 (N, E), depending on the kind of the space.
    """

    space: EmotionSpace
    values: NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Stimuli:
    """A stimulus set as published.

    Args:
        name: name of the set.
        images: N images, not yet decoded.
        labels: all emotion labels of the set, the default first.
        splits: split of each image (N,); None if the set has no splits.
        missing: places of the rows that were skipped because their image is missing.
        neutral: published categories that are not emotions, for the pretext `neutral`; None if there are none.
        notes: lines that say how columns, splits and emotions were interpreted.
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

    def describe_labels(self) -> str:
        """The kinds of labels and their names, such as "category (cat, ship) and dimensions (valence)"."""
        return " and ".join(f"{labels.space.kind} ({', '.join(labels.space.names)})" for labels in self.labels)


def choose_labels(stimuli: Stimuli, choice: LabelChoice) -> tuple[Table, EmotionSpace, NDArray[np.int64]]:
    """Return the images with the chosen labels, the space of these, and the rows of `stimuli` that are kept.

    Images without such a label are skipped: ties for a majority, surprise for polarity, and so on. If a choice follows
    from several kinds of labels, the first of them is used.

    Args:
        stimuli: the whole set.
        choice: published (the set's own), distribution (of votes), majority (the most-voted category, ties
            left out), polarity (negative or positive), ekman (one of six; for both, votes for emotions without a
            counterpart do not count), dimensions (valence, arousal, ...; if the set has none, ratings of the emotions'
            words, see `emotion.dimensions`).

    Raises:
        UserError: the set has no labels from which the choice follows, or it leaves no images.
    """
    found = _first_convertible(stimuli, choice)
    if found is None:
        raise SettingError(
            "stimuli.labels", f"{stimuli.name} has {stimuli.describe_labels()}, from which no {choice} follows"
        )
    _, chosen = found
    values = chosen.values
    rows = np.flatnonzero(values >= 0) if chosen.space.kind == "category" else np.arange(len(values))
    if len(rows) == 0:
        raise SettingError(
            "stimuli.labels",
            f"{choice} leaves none of the {len(values)} images of {stimuli.name}: their votes tie, or it has no "
            "category for their emotions",
        )
    return Table(stimuli.name, take_images(stimuli.images, rows), values[rows]), chosen.space, rows


def describe_outvoted(stimuli: Stimuli, choice: LabelChoice | TargetLabels) -> tuple[str, ...]:
    """A line with the number of images that `choose_labels` labels by other votes than most; empty if there are none.

    The most-voted emotion of such an image, such as neutral, has no polarity, or is none of Ekman's six; or all of
    several that tie.
    """
    if choice == "polarity":
        mapping, lacks = POLARITY_OF, "has no polarity"
    elif choice == "ekman":
        mapping, lacks = EKMAN_OF, "is none of the six"
    else:
        return ()
    found = _first_convertible(stimuli, choice)
    if found is None or found[0].space.kind != "votes":
        return ()
    (own, chosen), names = found, np.array(found[0].space.names)
    is_mapped = np.array([standard(name) in mapping for name in names])
    is_most = most_voted(own.values.astype(np.float32))
    outvoted = ~is_most[:, is_mapped].any(axis=1) & (chosen.values >= 0)
    if not outvoted.any():
        return ()
    emotions = ", ".join(names[is_most[outvoted].any(axis=0)])
    return (
        f"{stimuli.name}: {outvoted.sum():,} of {len(outvoted):,} images are labelled by other votes than most, "
        f"because their most-voted emotion ({emotions}) {lacks}",
    )


def _first_convertible(stimuli: Stimuli, choice: LabelChoice) -> tuple[Labels, Labels] | None:
    """The first labels of the set from which the choice follows, and these converted; None if there are none."""
    available = stimuli.labels
    if choice == "dimensions":  # ratings of the images come before ratings of the words
        available = tuple(sorted(available, key=lambda labels: labels.space.kind != "dimensions"))
    converted = ((labels, _convert(labels, choice)) for labels in available)
    return next(((labels, chosen) for labels, chosen in converted if chosen is not None), None)


def _convert(labels: Labels, choice: LabelChoice) -> Labels | None:
    """Convert labels to the chosen kind, with -1 for images without one; None if the choice does not follow."""
    space, values = labels.space, labels.values
    if choice == "published" or (choice, space.kind) in (
        ("distribution", "votes"),
        ("majority", "category"),
        ("dimensions", "dimensions"),
    ):
        return labels
    if choice == "majority" and space.kind == "votes":
        return Labels(EmotionSpace("category", space.names), majority(values.astype(np.float32)))
    if choice == "polarity" and ("valence" in space.names or has_any_of(space, POLARITY_OF)):
        return Labels(EmotionSpace("category", POLARITY), polarity(values, space))
    if choice == "ekman" and space.kind != "dimensions" and has_any_of(space, EKMAN_OF):
        return Labels(EmotionSpace("category", EKMAN_6), ekman(values, space))
    if choice == "dimensions" and (mapped := dimensions(values, space)) is not None:
        return Labels(VALENCE_AROUSAL_DOMINANCE, mapped)
    return None


def check_labels(table: Table, space: EmotionSpace) -> None:
    """Raise UserError for labels outside the space; names the set and the row."""
    labels: NDArray[Any] = table.labels
    count, width = len(table), len(space.names)
    dtype, shape = ("int64", (count,)) if space.kind == "category" else ("float32", (count, width))
    if (str(labels.dtype), labels.shape) != (dtype, shape):
        raise UserError(
            f"{table.name}: labels of {labels.dtype} {labels.shape}; "
            f"of kind '{space.kind}' with {width} names they must be {dtype} {shape}"
        )
    if space.kind == "category":
        wrong = (labels < 0) | (labels >= width)
        allowed = f"0 to {width - 1}"
    elif space.kind == "votes":
        wrong = ~np.all(np.isfinite(labels) & (labels >= 0), axis=1) | ~np.any(labels, axis=1)
        allowed = "not negative, and not all zero"
    else:
        wrong = ~np.all(np.abs(labels) <= 1, axis=1)
        allowed = "-1 to 1"
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        where = f" ({table.images[row]})" if isinstance(table.images, list) else ""
        raise UserError(
            f"{table.name}: label out of range in row {row}{where}: {labels[row].tolist()}; "
            f"a label of kind '{space.kind}' must be {allowed}"
        )

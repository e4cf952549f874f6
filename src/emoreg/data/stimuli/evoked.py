"""A part of a stimulus set by what its images evoke: pleasant or unpleasant ones, calm or arousing ones (ours).

Ratings of the image come first; where a set has none, its category tells. The threshold is the middle of the scale that
people rated on, 0 here: images at the middle, and categories that are neither, are in no part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import Arousal, Valence
from emoreg.data.stimuli.emotion import POLARITY_OF, VALENCE_AROUSAL_DOMINANCE, dimensions, polarity
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import SettingError

Signs = NDArray[np.int64]  # 1 above the middle, -1 below, 0 neither


def evoking(stimuli: Stimuli, valence: Valence = "all", arousal: Arousal = "all") -> NDArray[np.bool_]:
    """Which images (N,) of a set evoke this.

    Args:
        stimuli: the whole set.
        valence: pleasant, above 0, or unpleasant, below 0; by ratings of valence, or by the polarity of the category
            (of votes: the one with most).
        arousal: arousing, above 0, or calm, below 0; by ratings of arousal, or by those of the categories' words, see
            `emotion.dimensions`.

    Raises:
        SettingError: nothing in the set tells it, or no image evokes it.
    """
    kept = np.ones(len(stimuli.images), bool)
    if valence != "all":
        kept &= _signs(stimuli, "valence", _by_polarity) == (1 if valence == "pleasant" else -1)
    if arousal != "all":
        kept &= _signs(stimuli, "arousal", _by_words) == (1 if arousal == "arousing" else -1)
    if not kept.any():
        key = "stimuli.valence" if valence != "all" else "stimuli.arousal"
        what = describe_evoking(valence, arousal)
        raise SettingError(key, f"none of the {len(kept):,} images of {stimuli.name} is {what}; choose all")
    return kept


def describe_evoking(valence: Valence, arousal: Arousal) -> str:
    """The part in words: "pleasant (valence above 0) and calm (arousal below 0)"; empty for all."""
    limits = {"pleasant": "valence above 0", "unpleasant": "valence below 0"}
    limits |= {"calm": "arousal below 0", "arousing": "arousal above 0"}
    return " and ".join(f"{word} ({limits[word]})" for word in (valence, arousal) if word != "all")


def _signs(stimuli: Stimuli, dimension: str, of_categories: Callable[[Labels], Signs | None]) -> Signs:
    """On which side of the middle of a dimension each image is. SettingError if nothing in the set tells it."""
    for labels in stimuli.labels:
        if labels.space.kind == "dimensions" and dimension in labels.space.names:
            return np.sign(labels.values[:, labels.space.names.index(dimension)]).astype(np.int64)
    for labels in stimuli.labels:
        if labels.space.kind != "dimensions" and (signs := of_categories(labels)) is not None:
            return signs
    has = " and ".join(f"{labels.space.kind} ({', '.join(labels.space.names)})" for labels in stimuli.labels)
    raise SettingError(f"stimuli.{dimension}", f"must be all: {stimuli.name} has {has}, which tell no {dimension}")


def _by_polarity(labels: Labels) -> Signs | None:
    if not set(labels.space.names) & set(POLARITY_OF):
        return None
    side: Signs = polarity(labels.values, labels.space)  # 0 negative, 1 positive, -1 neither
    return np.where(side < 0, 0, 2 * side - 1)


def _by_words(labels: Labels) -> Signs | None:
    rated = dimensions(labels.values, labels.space)
    if rated is None:
        return None
    return np.sign(rated[:, VALENCE_AROUSAL_DOMINANCE.names.index("arousal")]).astype(np.int64)

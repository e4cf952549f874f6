"""Select the images of a stimulus set that are pleasant or unpleasant, calm or arousing (ours).

Ratings of the image decide, or its category if the set has no ratings. The threshold is the middle of the rating scale,
0 here: images at the middle, and categories that are neither, are in neither part.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import Arousal, Valence
from emoreg.data.stimuli.emotion import POLARITY_OF, VALENCE_AROUSAL_DOMINANCE, dimensions, has_any_of, polarity
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import SettingError

Signs = NDArray[np.int64]  # 1 above the middle, -1 below, 0 neither


def evoking(stimuli: Stimuli, valence: Valence = "all", arousal: Arousal = "all") -> NDArray[np.bool_]:
    """A mask (N,) of the images that evoke the given valence and arousal.

    Args:
        stimuli: the whole set.
        valence: pleasant (above 0) or unpleasant (below 0), by ratings of valence or else by the polarity of the
            category; for votes, the polarity with most of them, where those for emotions without one do not count.
        arousal: arousing (above 0) or calm (below 0), by ratings of arousal or else of the category's word, see
            `emotion.dimensions`.

    Raises:
        SettingError: the set has no labels from which this follows, or no image evokes it.
    """
    kept = np.ones(len(stimuli.images), bool)
    if valence != "all":
        kept &= _signs(stimuli, "valence") == (1 if valence == "pleasant" else -1)
    if arousal != "all":
        kept &= _signs(stimuli, "arousal") == (1 if arousal == "arousing" else -1)
    if not kept.any():
        key = "stimuli.valence" if valence != "all" else "stimuli.arousal"
        part = describe_evoking(valence, arousal)
        raise SettingError(key, f"none of the {len(kept):,} images of {stimuli.name} is {part}; choose all")
    return kept


def describe_evoking(valence: Valence, arousal: Arousal) -> str:
    """Describe the selection: "pleasant (valence above 0) and calm (arousal below 0)"; empty for all."""
    limits = {"pleasant": "valence above 0", "unpleasant": "valence below 0"}
    limits |= {"calm": "arousal below 0", "arousing": "arousal above 0"}
    return " and ".join(f"{word} ({limits[word]})" for word in (valence, arousal) if word != "all")


def _signs(stimuli: Stimuli, dimension: Literal["valence", "arousal"]) -> Signs:
    """The side of the middle of a dimension on which each image is. SettingError if no labels of the set say so."""
    for labels in sorted(stimuli.labels, key=lambda labels: labels.space.kind != "dimensions"):  # ratings first
        values = _along(labels, dimension)
        if values is not None:
            return np.sign(values).astype(np.int64)
    raise SettingError(
        f"stimuli.{dimension}",
        f"must be all: {stimuli.name} has {stimuli.describe_labels()}, from which no {dimension} follows",
    )


def _along(labels: Labels, dimension: Literal["valence", "arousal"]) -> NDArray[Any] | None:
    """Values (N,) whose signs are the sides of the middle of a dimension; None if the labels say nothing about it."""
    space, values = labels.space, labels.values
    if space.kind == "dimensions":
        return values[:, space.names.index(dimension)] if dimension in space.names else None
    if dimension == "arousal":
        ratings = dimensions(values, space)
        return None if ratings is None else ratings[:, VALENCE_AROUSAL_DOMINANCE.names.index("arousal")]
    sides = polarity(values, space)  # 0 negative, 1 positive, -1 neither
    return np.where(sides < 0, 0, 2 * sides - 1) if has_any_of(space, POLARITY_OF) else None

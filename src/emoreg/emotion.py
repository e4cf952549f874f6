"""Emotion spaces: what the labels of affective images are, and how one kind of label follows from another.

Sources: Mikels et al. 2005, "Emotional category data on images from the International Affective Picture System"
(eight categories); Ekman 1992, "An argument for basic emotions" (six); Russell 1980, "A circumplex model of
affect", and Russell & Mehrabian 1977, "Evidence for a three-factor theory of emotions" (valence, arousal,
dominance). Each mapping names its own source; what is ours says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.errors import UserError, nearest

Kind = Literal["category", "votes", "dimensions"]


@dataclass(frozen=True)
class EmotionSpace:
    """How emotions are labelled.

    Args:
        kind: "category" (labels: int64 (N,), indices into names), "votes" (float32 (N, E), counts or
            probabilities) or "dimensions" (float32 (N, E), in [-1, 1]).
        names: of the E categories or dimensions.
    """

    kind: Kind
    names: tuple[str, ...]


MIKELS_8 = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
EKMAN_6 = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
EKMAN_6_NEUTRAL = (*EKMAN_6, "neutral")
POLARITY = ("negative", "positive")
VALENCE_AROUSAL = EmotionSpace("dimensions", ("valence", "arousal"))  # scales are mapped linearly to [-1, 1]
VALENCE_AROUSAL_DOMINANCE = EmotionSpace("dimensions", ("valence", "arousal", "dominance"))

# How the published sets and people write the same emotions.
SPELLINGS: Mapping[str, str] = {
    "amused": "amusement",
    "angry": "anger",
    "content": "contentment",
    "disgusted": "disgust",
    "excited": "excitement",
    "fearful": "fear",
    "happiness": "joy",
    "happy": "joy",
    "sad": "sadness",
    "surprised": "surprise",
}

# Mikels et al. 2005 found four pleasant and four unpleasant categories. Of Ekman's six, surprise is neither, and
# neutral is none (ours: both are left out of polarity).
POLARITY_OF: Mapping[str, str] = {
    **dict.fromkeys(("amusement", "awe", "contentment", "excitement", "joy", "positive"), "positive"),
    **dict.fromkeys(("anger", "disgust", "fear", "sadness", "negative"), "negative"),
}

# Four names are the same in both. Ekman 1999 ("Basic emotions", in Handbook of Cognition and Emotion) counts
# amusement, contentment and excitement among the enjoyable emotions, which his six call joy; awe has no place
# among the six, and is left out (ours).
EKMAN_OF: Mapping[str, str] = {
    **{name: name for name in EKMAN_6},
    **dict.fromkeys(("amusement", "contentment", "excitement"), "joy"),
}


def emotion_index(word: str, names: Sequence[str], place: str) -> int:
    """The index of an emotion in `names`, however it is spelt.

    Raises:
        UserError: it is not among them; says at which `place`, and names the nearest.
    """
    name = word.strip().lower()
    name = name if name in names else SPELLINGS.get(name, name)
    if name not in names:
        raise UserError(f"{place}: no emotion '{word}'{nearest(name, names)}")
    return names.index(name)


def majority(votes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most-voted category (N,) of votes (N, E); -1 where several share the most (Machajdik & Hanbury 2010
    leave such images out)."""
    most = votes.max(axis=1, keepdims=True)
    return np.where((votes == most).sum(axis=1) == 1, votes.argmax(axis=1), -1).astype(np.int64)


def mapped(
    labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace, of: Mapping[str, str], names: tuple[str, ...]
) -> NDArray[np.int64]:
    """Categories in `names` (N,) of labels in `space`, by the mapping `of`; -1 where there is none, or a tie.

    Votes are added up within the new categories before the most-voted is taken.
    """
    if space.kind == "category":
        table = np.array([names.index(of[name]) if name in of else -1 for name in space.names], np.int64)
        return table[labels.astype(np.int64)]
    sums = np.zeros((len(labels), len(names)), np.float32)
    for column, name in enumerate(space.names):
        if name in of:
            sums[:, names.index(of[name])] += labels[:, column]
    return np.where(sums.sum(axis=1) > 0, majority(sums), -1)


def polarity(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.int64]:
    """Negative (0) or positive (1) of labels in any space (N,); -1 where they are neither.

    Dimensions: the sign of valence, whose zero is the middle of the scale that people rated on.
    """
    if space.kind == "dimensions":
        valence = labels[:, space.names.index("valence")]
        return np.where(valence == 0, -1, valence > 0).astype(np.int64)
    return mapped(labels, space, POLARITY_OF, POLARITY)


def ekman(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.int64]:
    """One of EKMAN_6 (N,) of categories or votes; -1 where none of them corresponds."""
    return mapped(labels, space, EKMAN_OF, EKMAN_6)

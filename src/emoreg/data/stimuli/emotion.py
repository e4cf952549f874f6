"""Emotion spaces: what the labels of affective images are, and how one kind of label follows from another.

Sources: Mikels et al. 2005, "Emotional category data on images from the International Affective Picture System"
(eight categories); Ekman 1992, "An argument for basic emotions" (six); Russell 1980, "A circumplex model of
affect", and Russell & Mehrabian 1977, "Evidence for a three-factor theory of emotions" (valence, arousal,
dominance). Each mapping names its own source; what is ours says so.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.config.setting_types import settle
from emoreg.data.images.names import composed
from emoreg.errors import SettingError, UserError, is_plain, nearest

Kind = Literal["category", "votes", "dimensions"]


@dataclass(frozen=True)
class EmotionSpace:
    """How emotions are labelled.

    Args:
        kind: "category" (labels: int64 (N,), indices into names), "votes" (float32 (N, E), counts or
            probabilities) or "dimensions" (float32 (N, E), in [-1, 1]).
        names: of the E categories or dimensions.

    Raises:
        SettingError: another kind (the nearest is named); no names, or the same one twice.
    """

    kind: Kind
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        settle(self)
        if not self.names:
            raise SettingError("names", "must name at least one category or dimension, not none")
        for name, times in Counter(self.names).items():
            if times > 1:
                raise SettingError("names", f"must not name '{name}' more than once")


MIKELS_8 = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
EKMAN_6 = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
EKMAN_6_NEUTRAL = (*EKMAN_6, "neutral")
POLARITY = ("negative", "positive")
SPACES = (MIKELS_8, EKMAN_6, EKMAN_6_NEUTRAL, POLARITY)  # the first that has all of a set's words is taken
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
    "joyful": "joy",
    "neg": "negative",
    "pos": "positive",
    "sad": "sadness",
    "surprised": "surprise",
}

_KNOWN = frozenset((*MIKELS_8, *EKMAN_6_NEUTRAL, *POLARITY, *SPELLINGS))

# Mikels et al. 2005 found four pleasant and four unpleasant categories. Of Ekman's six, surprise is neither, and
# neutral is none (ours: both are left out of polarity).
POLARITY_OF: Mapping[str, str] = {
    **dict.fromkeys(("amusement", "awe", "contentment", "excitement", "joy", "positive"), "positive"),
    **dict.fromkeys(("anger", "disgust", "fear", "sadness", "negative"), "negative"),
}

# From Mikels' eight to Ekman's six; there is no way back (joy is several of the eight, surprise none of them).
# Four names are the same in both. Ekman 1999 ("Basic emotions", in Handbook of Cognition and Emotion) counts
# amusement, contentment and excitement among the enjoyable emotions, which his six call joy; awe has no place
# among the six, and is left out (ours).
EKMAN_OF: Mapping[str, str] = {
    **{name: name for name in EKMAN_6},
    **dict.fromkeys(("amusement", "contentment", "excitement"), "joy"),
}


# Russell & Mehrabian 1977, table of 151 terms: people's mean ratings of angry, disgusted, fearful, joyful, sad and
# surprised (taken from two later listings of it that agree). Their scales end at -1 and 1, with neutral (ours) at 0.
# Of Mikels' other categories the table has excited only, hence none of them here.
DIMENSIONS_OF: Mapping[str, tuple[float, float, float]] = {
    "anger": (-0.51, 0.59, 0.25),
    "disgust": (-0.60, 0.35, 0.11),
    "fear": (-0.64, 0.60, -0.43),
    "joy": (0.76, 0.48, 0.35),
    "sadness": (-0.63, -0.27, -0.33),
    "surprise": (0.40, 0.67, -0.13),
    "neutral": (0.0, 0.0, 0.0),
}


def is_known(word: str) -> bool:
    """Whether a word is an emotion of a known space, however it is spelt."""
    return standard(word) in _KNOWN


def standard(word: str) -> str:
    """An emotion's usual spelling here: without outer blanks or capitals, in NFC, and as in SPELLINGS."""
    name = composed(word.strip()).lower()
    return SPELLINGS.get(name, name)


def emotion_index(word: str, names: Sequence[str], place: str) -> int:
    """The index of an emotion in `names`, however it is spelt.

    Raises:
        UserError: it is not among them; says at which `place`, and names the nearest.
    """
    tidy = composed(word.strip())
    for name in (word, tidy, tidy.lower(), standard(word)):
        if name in names:
            return names.index(name)
    raise UserError(f"{place}: no emotion {word!r}{nearest(standard(word), names)}")


def emotion_names(words: Mapping[str, str]) -> tuple[str, ...]:
    """The categories that a set's own words for emotions belong to.

    Args:
        words: as the set spells them, each with the place where it stands first.

    Returns:
        MIKELS_8, EKMAN_6, EKMAN_6_NEUTRAL or POLARITY, the first that has them all; or else the words in NFC, sorted.

    Raises:
        UserError: a word is nearly that of a known emotion, as "amusment" is, or has control characters in it; or two
            differ in nothing but capitals.
    """
    spelt = {word: standard(word) for word in words}
    for word, place in words.items():
        if not is_plain(word):
            raise UserError(f"{place}: an emotion is called {word!r}; rename it, without control characters")
    space = _space_of(spelt.values())
    if space is not None:
        return space
    refuse_nearly_known(words)
    names_of: dict[str, str] = {}
    for word, place in words.items():
        tidy = composed(word.strip())
        first = names_of.setdefault(tidy.lower(), tidy)
        if first != tidy:
            raise UserError(f"{place}: {word!r} is {first!r} elsewhere; write the emotion in one way")
    return tuple(sorted(names_of.values()))


def known_space(words: Mapping[str, str]) -> tuple[str, ...]:
    """The first of SPACES that has all of a set's words for emotions, given with the place where each stands.

    Raises:
        UserError: a word is no known emotion (the nearest is named), or no one space has them all.
    """
    for word, place in words.items():
        if not is_known(word):
            raise UserError(f"{place}: {word!r} is no known emotion{nearest(standard(word), _KNOWN)}")
    space = _space_of(map(standard, words))
    if space is None:
        spaces = "; ".join(", ".join(names) for names in SPACES)
        raise UserError(f"{next(iter(words.values()))}: no one space has all of {', '.join(words)} ({spaces})")
    return space


def _space_of(emotions: Iterable[str]) -> tuple[str, ...] | None:
    wanted = set(emotions)
    return next((names for names in SPACES if wanted <= set(names)), None)


def refuse_nearly_known(words: Mapping[str, str]) -> None:
    """UserError for a word, given with its place, that is nearly that of a known emotion, as "amusment" is."""
    for word, place in words.items():
        close = difflib.get_close_matches(standard(word), _KNOWN, n=1, cutoff=0.85)
        if not is_known(word) and close:
            raise UserError(f"{place}: {word!r} is not a known emotion; did you mean '{close[0]}'?")


def majority(votes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most-voted category (N,) of votes (N, E); -1 where several share the most (Machajdik & Hanbury 2010
    leave such images out). Probabilities printed with six digits still tie after they were added up."""
    most = votes.max(axis=1, keepdims=True)
    ties = (votes >= most * (1 - 1e-5)).sum(axis=1)
    return np.where((ties == 1) & (most[:, 0] > 0), votes.argmax(axis=1), -1).astype(np.int64)


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
    return majority(sums)


def polarity(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.int64]:
    """Negative (0) or positive (1) of labels in any space (N,); -1 where they are neither.

    Dimensions: the sign of valence, whose zero is the middle of the scale that people rated on; without valence
    they are neither.
    """
    if space.kind == "dimensions":
        if "valence" not in space.names:
            return np.full(len(labels), -1, np.int64)
        valence = labels[:, space.names.index("valence")]
        return np.where(valence > 0, 1, np.where(valence < 0, 0, -1)).astype(np.int64)
    return mapped(labels, space, POLARITY_OF, POLARITY)


def ekman(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.int64]:
    """One of EKMAN_6 (N,) of categories or votes; -1 where none of them corresponds."""
    return mapped(labels, space, EKMAN_OF, EKMAN_6)


def dimensions(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.float32] | None:
    """Valence, arousal and dominance (N, 3) of categories or votes, if all of the space are in DIMENSIONS_OF.

    They are those of the emotion's word, alike for all images with that emotion (of votes: the mean, by votes).
    """
    if space.kind == "dimensions" or not set(space.names) <= set(DIMENSIONS_OF):
        return None
    table = np.array([DIMENSIONS_OF[name] for name in space.names], np.float32)
    if space.kind == "category":
        return table[labels.astype(np.int64)]
    return (labels / labels.sum(axis=1, keepdims=True)).astype(np.float32) @ table

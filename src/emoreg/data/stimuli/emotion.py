"""Emotion spaces: the kinds of labels that affective images have, and the mappings between them.

Sources: Mikels et al. 2005, "Emotional category data on images from the International Affective Picture System"
(eight categories); Ekman 1992, "An argument for basic emotions" (six); Russell 1980, "A circumplex model of
affect", and Russell & Mehrabian 1977, "Evidence for a three-factor theory of emotions" (valence, arousal,
dominance). Each mapping names its own source; "(ours)" marks choices of this library.
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
        names: the E categories or dimensions.

    Raises:
        SettingError: an unknown kind (names the closest match), no names, or duplicate names.
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
SPACES = (MIKELS_8, EKMAN_6, EKMAN_6_NEUTRAL, POLARITY)  # the first that contains all words of a set is used
VALENCE_AROUSAL = EmotionSpace("dimensions", ("valence", "arousal"))  # scales are mapped linearly to [-1, 1]
VALENCE_AROUSAL_DOMINANCE = EmotionSpace("dimensions", ("valence", "arousal", "dominance"))

# Other words for the known emotions, in published sets and elsewhere.
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

# Mikels et al. 2005 found four pleasant and four unpleasant categories. Ekman's surprise is neither, and neutral is not
# an emotion, so both have no polarity (ours).
POLARITY_OF: Mapping[str, str] = {
    **dict.fromkeys(("amusement", "awe", "contentment", "excitement", "joy", "positive"), "positive"),
    **dict.fromkeys(("anger", "disgust", "fear", "sadness", "negative"), "negative"),
}

# From Mikels' eight to Ekman's six. The reverse is not possible: joy is several of the eight, surprise none of them.
# Four names are the same in both. Ekman 1999 ("Basic emotions", in Handbook of Cognition and Emotion) counts
# amusement, contentment and excitement among the enjoyable emotions, which are joy among the six. Awe has no
# counterpart and is left out (ours).
EKMAN_OF: Mapping[str, str] = {
    **{name: name for name in EKMAN_6},
    **dict.fromkeys(("amusement", "contentment", "excitement"), "joy"),
}


# Russell & Mehrabian 1977, table of 151 terms: people's mean ratings of angry, disgusted, fearful, joyful, sad and
# surprised (from two later listings of the table that agree), on scales from -1 to 1; neutral is 0 (ours). Of Mikels'
# other categories the table has only excited, so none of them is here.
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
    """Whether a word, in any known spelling, is an emotion of a known space."""
    return standard(word) in _KNOWN


def standard(word: str) -> str:
    """The standard spelling of an emotion: stripped, lower case, NFC, with synonyms resolved by SPELLINGS."""
    name = composed(word.strip()).lower()
    return SPELLINGS.get(name, name)


def emotion_index(word: str, names: Sequence[str], place: str) -> int:
    """The index in `names` of an emotion in any known spelling.

    Raises:
        UserError: the emotion is not in `names`; begins with `place` and names the closest match.
    """
    for name in (composed(word.strip()), standard(word)):
        if name in names:
            return names.index(name)
    raise UserError(f"{place}: no emotion {word!r}{nearest(standard(word), names)}")


def emotion_names(words: Mapping[str, str]) -> tuple[str, ...]:
    """The categories for a set's own words for emotions.

    Args:
        words: the words as the set spells them, each with the place of its first use, for messages.

    Returns:
        The first of MIKELS_8, EKMAN_6, EKMAN_6_NEUTRAL and POLARITY that contains all words; if none does, the words
        themselves in NFC, sorted.

    Raises:
        UserError: a word looks like a misspelt known emotion, such as "amusment", or has control characters; or two
            words differ only in upper and lower case.
    """
    for word, place in words.items():
        if not is_plain(word):
            raise UserError(f"{place}: an emotion is called {word!r}; rename it, without control characters")
    space = _space_of(words)
    if space is not None:
        return space
    refuse_misspelt(words)
    names: dict[str, str] = {}
    for word, place in words.items():
        name = composed(word.strip())
        first = names.setdefault(name.lower(), name)
        if first != name:
            raise UserError(f"{place}: {word!r} is {first!r} elsewhere; spell the emotion in one way")
    return tuple(sorted(names.values()))


def known_space(words: Mapping[str, str]) -> tuple[str, ...]:
    """The first of SPACES that contains all of a set's words for emotions.

    Args:
        words: see `emotion_names`.

    Raises:
        UserError: a word is not a known emotion (names the closest match), or no space contains all of them.
    """
    for word, place in words.items():
        if not is_known(word):
            raise UserError(f"{place}: {word!r} is not a known emotion{nearest(standard(word), _KNOWN)}")
    space = _space_of(words)
    if space is None:
        spaces = "; ".join(", ".join(names) for names in SPACES)
        raise UserError(f"{next(iter(words.values()))}: no single space has all of {', '.join(words)} ({spaces})")
    return space


def _space_of(words: Iterable[str]) -> tuple[str, ...] | None:
    emotions = {standard(word) for word in words}
    return next((names for names in SPACES if emotions <= set(names)), None)


def refuse_misspelt(words: Mapping[str, str]) -> None:
    """Raise UserError for a word that looks like a misspelt known emotion. `words` as in `emotion_names`."""
    for word, place in words.items():
        close = difflib.get_close_matches(standard(word), _KNOWN, n=1, cutoff=0.85)
        if not is_known(word) and close:
            raise UserError(f"{place}: {word!r} is not a known emotion; did you mean '{close[0]}'?")


def has_any_of(space: EmotionSpace, mapping: Mapping[str, object]) -> bool:
    """Whether a mapping of standard spellings has one of the names of a space, in any known spelling."""
    return any(standard(name) in mapping for name in space.names)


def majority(votes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most-voted category (N,) of votes (N, E); -1 for ties, which Machajdik & Hanbury 2010 leave out.

    Votes that differ by a relative 1e-5 count as ties: sums of probabilities printed with six digits are inexact.
    """
    alone = (most_voted(votes).sum(axis=1) == 1) & (votes.max(axis=1) > 0)
    return np.where(alone, votes.argmax(axis=1), -1).astype(np.int64)


def most_voted(votes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a category has the most votes of an image, alone or tied with others, for votes (N, E)."""
    return votes >= votes.max(axis=1, keepdims=True) * (1 - 1e-5)


def _map_categories(
    labels: NDArray[np.int64] | NDArray[np.float32],
    space: EmotionSpace,
    mapping: Mapping[str, str],
    names: tuple[str, ...],
) -> NDArray[np.int64]:
    """Map categories or votes in `space` to indices into `names` (N,); -1 for ties and for names not in `mapping`.

    Votes are summed within the new categories before the most-voted one is chosen. Votes for names not in `mapping` do
    not count (ours).
    """
    words = [standard(name) for name in space.names]  # those of a set whose words are in no single space are as spelt
    if space.kind == "category":
        table = np.array([names.index(mapping[name]) if name in mapping else -1 for name in words], np.int64)
        return table[labels.astype(np.int64)]
    sums = np.zeros((len(labels), len(names)), np.float32)
    for column, name in enumerate(words):
        if name in mapping:
            sums[:, names.index(mapping[name])] += labels[:, column]
    return majority(sums)


def polarity(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.int64]:
    """Polarity (N,) of labels in any space: 0 negative, 1 positive, -1 neither.

    Of votes, only those for emotions with a polarity count, however few they are. For dimensions it is the sign of
    valence, whose zero is the middle of the rating scale; -1 without valence.
    """
    if space.kind == "dimensions":
        if "valence" not in space.names:
            return np.full(len(labels), -1, np.int64)
        valence = labels[:, space.names.index("valence")]
        return np.where(valence > 0, 1, np.where(valence < 0, 0, -1)).astype(np.int64)
    return _map_categories(labels, space, POLARITY_OF, POLARITY)


def ekman(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.int64]:
    """Index into EKMAN_6 (N,) for categories or votes; -1 if none corresponds, or several tie.

    Of votes, only those for emotions with a counterpart count, however few they are.
    """
    return _map_categories(labels, space, EKMAN_OF, EKMAN_6)


def dimensions(labels: NDArray[np.int64] | NDArray[np.float32], space: EmotionSpace) -> NDArray[np.float32] | None:
    """Valence, arousal and dominance (N, 3) for categories or votes; None unless DIMENSIONS_OF has the whole space.

    These are ratings of the words, so all images of a category get the same. Votes get the mean, weighted by votes.
    """
    words = [standard(name) for name in space.names]
    if space.kind == "dimensions" or not set(words) <= set(DIMENSIONS_OF):
        return None
    table = np.array([DIMENSIONS_OF[name] for name in words], np.float32)
    if space.kind == "category":
        return table[labels.astype(np.int64)]
    return (labels / labels.sum(axis=1, keepdims=True)).astype(np.float32) @ table

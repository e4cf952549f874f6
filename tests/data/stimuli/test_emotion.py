from __future__ import annotations

import numpy as np
import pytest

from emoreg.data.stimuli.emotion import (
    DIMENSIONS_OF,
    EKMAN_6,
    EKMAN_6_NEUTRAL,
    EKMAN_OF,
    MIKELS_8,
    POLARITY,
    POLARITY_OF,
    SPELLINGS,
    VALENCE_AROUSAL,
    EmotionSpace,
    dimensions,
    ekman,
    emotion_index,
    emotion_names,
    majority,
    polarity,
)
from emoreg.errors import UserError
from narrow import present

MIKELS_VOTES = EmotionSpace("votes", MIKELS_8)


def test_each_spelling_and_mapping_leads_to_a_known_emotion() -> None:
    known = {*MIKELS_8, *EKMAN_6_NEUTRAL, *POLARITY}
    assert set(SPELLINGS.values()) <= known and not set(SPELLINGS) & known
    assert set(POLARITY_OF) <= known and set(POLARITY_OF.values()) == set(POLARITY)
    assert set(EKMAN_OF) <= known and set(EKMAN_OF.values()) == set(EKMAN_6)


def test_mikels_has_four_pleasant_and_four_unpleasant() -> None:
    kinds = [POLARITY_OF[name] for name in MIKELS_8]
    assert kinds.count("positive") == kinds.count("negative") == 4


def test_an_emotion_is_found_in_any_known_spelling() -> None:
    assert [emotion_index(word, MIKELS_8, "x") for word in ("Sad", " sadness ", "CONTENT", "contentment")] == [
        7,
        7,
        3,
        3,
    ]
    assert emotion_index("Sad", ("Calm", "Sad"), "x") == 1
    with pytest.raises(UserError, match=r"t\.csv, row 2: no emotion 'sadnes' \(did you mean 'sadness'\?\)"):
        emotion_index("sadnes", MIKELS_8, "t.csv, row 2")


def test_misspelt_known_emotions_are_refused_and_other_words_kept() -> None:
    assert emotion_names(dict.fromkeys(["contempt", "anger", "nostalgia"], "x")) == ("anger", "contempt", "nostalgia")
    for word in ("amusment", "excitment", "suprise", "digust", "saddness"):
        with pytest.raises(UserError, match=f"x: '{word}' is not a known emotion; did you mean"):
            emotion_names(dict.fromkeys(["anger", word, "love"], "x"))


def test_a_majority_needs_a_single_most_voted_category() -> None:
    votes = np.array([[1, 2, 0], [2, 2, 1], [0, 0, 0], [0, 0, 1]], np.float32)
    assert majority(votes).tolist() == [1, -1, -1, 2]


def test_probabilities_that_were_rounded_still_tie() -> None:
    third = np.array([[0.333333, 0.333334, 0.333333]], np.float32)
    assert majority(third).tolist() == [-1]
    added = np.array([[0.1, 0, 0, 0.2, 0.5, 0.2, 0, 0]], np.float32)
    assert polarity(added, MIKELS_VOTES).tolist() == [-1]
    assert majority(np.array([[1000, 1001]], np.float32)).tolist() == [1]


def test_votes_are_added_up_before_the_polarity_is_taken() -> None:
    votes = np.array([[2, 0, 1, 1, 0, 0, 3, 0], [0, 0, 2, 0, 0, 0, 2, 0]], np.float32)
    assert polarity(votes, MIKELS_VOTES).tolist() == [1, -1]


def test_surprise_and_neutral_have_no_polarity() -> None:
    space = EmotionSpace("category", EKMAN_6_NEUTRAL)
    assert polarity(np.arange(7), space).tolist() == [0, 0, 0, 1, 0, -1, -1]
    only = np.array([[0, 0, 0, 0, 0, 1, 2]], np.float32)
    assert polarity(only, EmotionSpace("votes", EKMAN_6_NEUTRAL)).tolist() == [-1]


def test_the_polarity_of_dimensions_is_the_sign_of_valence() -> None:
    ratings = np.array([[0.2, -1], [0, 1], [-0.1, 1], [np.nan, 1]], np.float32)
    assert polarity(ratings, VALENCE_AROUSAL).tolist() == [1, -1, 0, -1]
    assert polarity(ratings[:, 1:], EmotionSpace("dimensions", ("arousal",))).tolist() == [-1] * 4


def test_mikels_maps_to_ekman_except_awe() -> None:
    names = [
        EKMAN_6[index] if index >= 0 else None for index in ekman(np.arange(8), EmotionSpace("category", MIKELS_8))
    ]
    assert names == ["joy", "anger", None, "joy", "disgust", "joy", "fear", "sadness"]


def test_the_dimensions_of_words_are_averaged_by_votes() -> None:
    space = EmotionSpace("votes", EKMAN_6_NEUTRAL)
    votes = np.array([[0, 0, 0, 2, 0, 0, 2], [3, 0, 0, 0, 0, 0, 0]], np.float32)
    expected = np.array([[0.38, 0.24, 0.175], DIMENSIONS_OF["anger"]])
    np.testing.assert_allclose(present(dimensions(votes, space)), expected, rtol=1e-6)
    categories = present(dimensions(np.array([0, 6]), EmotionSpace("category", EKMAN_6_NEUTRAL)))
    np.testing.assert_allclose(categories, np.array([DIMENSIONS_OF["anger"], (0, 0, 0)]), rtol=1e-6)

    own_words = present(dimensions(np.array([0, 1]), EmotionSpace("category", ("Happy", "sad"))))
    np.testing.assert_allclose(own_words, np.array([DIMENSIONS_OF["joy"], DIMENSIONS_OF["sadness"]]), rtol=1e-6)


def test_words_without_known_dimensions_give_none() -> None:
    assert dimensions(np.arange(8), EmotionSpace("category", MIKELS_8)) is None
    assert dimensions(np.zeros((2, 2), np.float32), VALENCE_AROUSAL) is None

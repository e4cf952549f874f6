"""The labels that are chosen from all labels of a set, and those that are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emoreg.config.schema import LabelChoice, StimuliSettings
from emoreg.data.images.files import File
from emoreg.data.images.table import Table
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.emotion import (
    EKMAN_6,
    MIKELS_8,
    VALENCE_AROUSAL,
    VALENCE_AROUSAL_DOMINANCE,
    EmotionSpace,
    emotion_names,
)
from emoreg.data.stimuli.evoked import evoking
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli, check_labels, choose_labels
from emoreg.errors import UserError
from refusing import refusal

VOTES = Labels(
    EmotionSpace("votes", MIKELS_8),
    np.array([[3, 0, 0, 1, 0, 0, 0, 0], [0, 2, 2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 4]], np.float32),
)
CATEGORY = Labels(EmotionSpace("category", MIKELS_8), np.array([2, 1, 7]))
RATINGS = Labels(VALENCE_AROUSAL, np.array([[-0.5, 0.1], [0, 0.2], [0.5, 0.3]], np.float32))


def stimuli(*labels: Labels) -> Stimuli:
    return Stimuli("some", np.zeros((len(labels[0].values), 2, 2, 3), np.uint8), labels)


def chosen(choice: LabelChoice, *labels: Labels) -> tuple[list[int], list[float]]:
    """The rows and the labels."""
    table, _, rows = choose_labels(stimuli(*labels), choice)
    assert len(table) == len(rows)
    return rows.tolist(), table.labels.tolist()


def test_published_is_the_first_kind_and_leaves_no_image_out() -> None:
    assert chosen("published", CATEGORY, VOTES) == ([0, 1, 2], [2, 1, 7])
    assert chosen("published", VOTES, CATEGORY) == ([0, 1, 2], VOTES.values.tolist())


def test_majority_leaves_out_ties_and_keeps_categories() -> None:
    assert chosen("majority", VOTES, CATEGORY) == ([0, 2], [0, 7])
    assert chosen("majority", CATEGORY) == ([0, 1, 2], [2, 1, 7])


def test_polarity_follows_from_the_first_kind_that_has_one() -> None:
    assert chosen("polarity", VOTES, RATINGS) == ([0, 2], [1, 0])
    assert chosen("polarity", RATINGS, VOTES) == ([0, 2], [0, 1])
    moods = Labels(EmotionSpace("category", ("calm", "tense")), np.array([0, 1, 0]))
    assert chosen("polarity", moods, RATINGS) == ([0, 2], [0, 1])


def test_ekman_leaves_out_emotions_without_a_counterpart_among_the_six() -> None:
    assert chosen("ekman", CATEGORY) == ([1, 2], [0, 4])  # awe
    assert chosen("ekman", RATINGS, VOTES) == ([0, 1, 2], [3, 0, 4])  # in the second only anger counts


def test_emotions_beside_words_of_no_known_space_keep_their_counterparts() -> None:
    words = emotion_names(dict.fromkeys(["happy", "Sad", "angry", "contempt"], "x"))
    assert words == ("Sad", "angry", "contempt", "happy")
    own = Labels(EmotionSpace("category", words), np.arange(4))
    assert chosen("polarity", own) == ([0, 1, 3], [0, 0, 1])
    assert chosen("ekman", own) == ([0, 1, 3], [EKMAN_6.index(name) for name in ("sadness", "anger", "joy")])
    voted = Labels(EmotionSpace("votes", words), np.eye(4, dtype=np.float32))
    assert chosen("polarity", voted) == ([0, 1, 3], [0, 0, 1])
    assert evoking(stimuli(own), "pleasant").tolist() == [False, False, False, True]


def test_dimensions_are_ratings_of_the_images_or_else_of_the_words() -> None:
    six = Labels(EmotionSpace("category", EKMAN_6), np.array([0, 3, 4]))
    np.testing.assert_array_equal(chosen("dimensions", six, RATINGS)[1], RATINGS.values)
    table, space, _ = choose_labels(stimuli(six), "dimensions")
    assert space == VALENCE_AROUSAL_DOMINANCE and table.labels.dtype == np.float32
    np.testing.assert_allclose(table.labels[1], [0.76, 0.48, 0.35])


@pytest.mark.parametrize(
    ("choice", "labels"),
    [
        ("distribution", CATEGORY),
        ("majority", RATINGS),
        ("ekman", RATINGS),
        ("dimensions", VOTES),
        ("polarity", Labels(EmotionSpace("dimensions", ("arousal",)), RATINGS.values[:, 1:])),
        ("polarity", Labels(EmotionSpace("category", ("calm", "tense")), np.array([0, 1]))),
        ("ekman", Labels(EmotionSpace("category", ("calm", "tense")), np.array([0, 1]))),
    ],
)
def test_a_choice_that_does_not_follow_is_refused(choice: LabelChoice, labels: Labels) -> None:
    with pytest.raises(UserError, match=rf"stimuli\.labels: some has {labels.space.kind} .* no {choice} follows"):
        chosen(choice, labels)


@pytest.mark.parametrize(
    ("choice", "labels"),
    [
        ("majority", Labels(VOTES.space, VOTES.values[1:2])),
        ("polarity", Labels(VOTES.space, VOTES.values[1:2])),
        ("polarity", Labels(VALENCE_AROUSAL, RATINGS.values[1:2])),
        ("ekman", Labels(CATEGORY.space, CATEGORY.values[:1])),
    ],
)
def test_a_choice_that_leaves_no_image_is_refused(choice: LabelChoice, labels: Labels) -> None:
    with pytest.raises(UserError, match=rf"stimuli\.labels: {choice} leaves none of the 1 images of some"):
        chosen(choice, labels)


def test_an_unknown_set_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"stimuli\.name: no set 'emosett' \(did you mean 'emoset'\?\)"):
        read_stimuli(StimuliSettings(name="emosett"), seed=0)


THREE = EmotionSpace("category", ("awe", "fear", "joy"))
THREE_VOTES = EmotionSpace("votes", ("awe", "fear", "joy"))


def images_with(labels: NDArray[Any]) -> Table:
    return Table("mine", np.zeros((len(labels), 2, 2, 3), np.uint8), labels)


@pytest.mark.parametrize(
    ("space", "row"),
    [
        (THREE, -1),
        (THREE, 3),
        (THREE_VOTES, [0.0, 0.0, 0.0]),
        (THREE_VOTES, [2.0, -1.0, 3.0]),
        (THREE_VOTES, [1.0, math.nan, 1.0]),
        (THREE_VOTES, [1.0, math.inf, 1.0]),
        (VALENCE_AROUSAL, [0.0, 1.01]),
        (VALENCE_AROUSAL, [-1.5, 0.0]),
        (VALENCE_AROUSAL, [math.nan, 0.0]),
        (VALENCE_AROUSAL, [0.0, -math.inf]),
    ],
)
def test_an_invalid_label_is_reported_with_its_set_and_row(space: EmotionSpace, row: Any) -> None:
    good: dict[str, Any] = {"category": 2, "votes": [0.0, 1.0, 0.0], "dimensions": [-1.0, 1.0]}
    kind = np.int64 if space.kind == "category" else np.float32
    check_labels(images_with(np.array([good[space.kind]] * 4, kind)), space)
    labels: NDArray[Any] = np.array([good[space.kind]] * 2 + [row] + [good[space.kind]], kind)
    message = refusal(lambda: check_labels(images_with(labels), space))
    assert message.startswith("mine: label out of range in row 2:") and space.kind in message
    files = [File(f"{number}.jpg", Path("photos")) for number in range(4)]
    assert "row 2 (photos/2.jpg)" in refusal(lambda: check_labels(Table("mine", files, labels), space))


@pytest.mark.parametrize(
    ("space", "labels"),
    [
        (THREE, np.zeros((4, 3), np.int64)),
        (THREE, np.full(4, np.nan, np.float32)),
        (THREE, np.zeros(4, np.int32)),
        (THREE_VOTES, np.ones((4, 2), np.float32)),
        (THREE_VOTES, np.ones(4, np.float32)),
        (VALENCE_AROUSAL, np.zeros((4, 3), np.float32)),
        (VALENCE_AROUSAL, np.zeros((4, 2), np.float64)),
    ],
)
def test_labels_of_another_form_are_refused_in_one_line(space: EmotionSpace, labels: NDArray[Any]) -> None:
    message = refusal(lambda: check_labels(images_with(labels), space))
    assert message.startswith("mine: labels ") and str(labels.dtype) in message

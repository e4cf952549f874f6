"""The labels that are chosen from all labels of a set."""

from __future__ import annotations

import numpy as np
import pytest

from emoreg.config.schema import LabelChoice, StimuliSettings
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.emotion import EKMAN_6, MIKELS_8, VALENCE_AROUSAL, VALENCE_AROUSAL_DOMINANCE, EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli, choose_labels
from emoreg.errors import UserError

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

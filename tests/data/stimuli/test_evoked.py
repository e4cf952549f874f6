from __future__ import annotations

import numpy as np
import pytest

from emoreg.config.schema import Arousal, Valence
from emoreg.data.stimuli.emotion import EKMAN_6_NEUTRAL, MIKELS_8, VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.evoked import describe_evoking, evoking
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import SettingError

WORDS = EmotionSpace("category", EKMAN_6_NEUTRAL)
RATINGS = Labels(VALENCE_AROUSAL, np.array([[0.5, 0.2], [-0.5, 0.2], [0.0, -0.2], [0.5, -0.2]], np.float32))


def stimuli(*labels: Labels) -> Stimuli:
    return Stimuli("photos", np.zeros((len(labels[0].values), 1, 1, 3), np.uint8), labels)


def named(*emotions: str) -> Labels:
    return Labels(WORDS, np.array([EKMAN_6_NEUTRAL.index(name) for name in emotions]))


@pytest.mark.parametrize(
    ("valence", "arousal", "kept"),
    [
        ("all", "all", [0, 1, 2, 3]),
        ("pleasant", "all", [0, 3]),
        ("unpleasant", "all", [1]),  # an image at the middle is neither
        ("all", "calm", [2, 3]),
        ("pleasant", "arousing", [0]),
    ],
)
def test_ratings_are_split_at_the_middle_of_their_scale(valence: Valence, arousal: Arousal, kept: list[int]) -> None:
    assert np.flatnonzero(evoking(stimuli(RATINGS), valence, arousal)).tolist() == kept


def test_ratings_take_precedence_over_categories() -> None:
    both = stimuli(named("joy", "joy", "joy", "fear"), RATINGS)
    assert np.flatnonzero(evoking(both, "pleasant")).tolist() == [0, 3]


def test_categories_are_split_by_polarity_and_by_ratings_of_their_words() -> None:
    by_name = stimuli(named("joy", "sadness", "surprise", "neutral", "anger"))
    assert evoking(by_name, "pleasant").tolist() == [True, False, False, False, False]
    assert evoking(by_name, "unpleasant").tolist() == [False, True, False, False, True]
    assert evoking(by_name, arousal="calm").tolist() == [False, True, False, False, False]
    votes = np.zeros((2, 8), np.float32)
    votes[0, MIKELS_8.index("awe")], votes[1, MIKELS_8.index("fear")] = 3, 3
    assert evoking(stimuli(Labels(EmotionSpace("votes", MIKELS_8), votes)), "unpleasant").tolist() == [False, True]


def test_a_part_that_does_not_follow_from_the_labels_or_has_no_images_is_refused() -> None:
    things = stimuli(Labels(EmotionSpace("category", ("cat", "ship")), np.array([0, 1])))
    with pytest.raises(
        SettingError, match=r"stimuli\.valence: must be all: photos has category \(cat, ship\), from which no valence"
    ):
        evoking(things, "pleasant")
    mikels = stimuli(Labels(EmotionSpace("category", MIKELS_8), np.array([0, 1])))
    with pytest.raises(SettingError, match=r"stimuli\.arousal: must be all: .* no arousal follows"):
        evoking(mikels, arousal="calm")
    with pytest.raises(SettingError, match=r"none of the 1 images of photos is pleasant \(valence above 0\)"):
        evoking(stimuli(named("fear")), "pleasant")


def test_a_part_is_described_with_its_limits() -> None:
    assert describe_evoking("all", "all") == ""
    assert describe_evoking("unpleasant", "calm") == "unpleasant (valence below 0) and calm (arousal below 0)"

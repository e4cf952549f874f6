from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from emoreg.data.stimuli.emotion import EKMAN_6, MIKELS_8, VALENCE_AROUSAL, VALENCE_AROUSAL_DOMINANCE, EmotionSpace
from emoreg.inference.answer import Answer
from emoreg.inference.pictures import WHEEL, draw_answers, draw_prediction, thumbnail, write_picture
from emoreg.inference.predict import FeltEmotion, Prediction, predict
from emoreg.stages.affective_heads import heads_of

SPACES = (
    VALENCE_AROUSAL,
    VALENCE_AROUSAL_DOMINANCE,
    EmotionSpace("dimensions", ("dominance",)),
    EmotionSpace("category", MIKELS_8),
    EmotionSpace("votes", EKMAN_6),
)


def made_up(space: EmotionSpace, classes: int = 3) -> Prediction:
    draw = np.random.default_rng(0)
    names = tuple(f"class $x_{number}$ with a name that is long" for number in range(classes))

    def answer() -> Answer:
        return Answer(draw.dirichlet(np.ones(classes)).astype(np.float32), names)

    (head,) = heads_of([("made-up", space)])
    values = draw.dirichlet(np.ones(len(space.names))).astype(np.float32)
    pixels = draw.integers(0, 256, (12, 20, 3)).astype(np.uint8)
    return Prediction(
        "../some/where/a $b$.png", pixels, answer(), answer(), answer(), 0.4, (FeltEmotion(head, values),)
    )


@pytest.mark.parametrize("space", SPACES, ids=lambda space: "-".join(space.names))
def test_every_emotion_space_is_drawn(space: EmotionSpace) -> None:
    with Image.open(io.BytesIO(draw_prediction(made_up(space)))) as picture:
        assert picture.width > 2 * picture.height > 200


def test_the_wheel_has_all_eight_of_mikels_categories() -> None:
    assert sorted(WHEEL) == sorted(MIKELS_8)


def test_pictures_stay_in_their_folder_and_never_replace_each_other(tmp_path: Path) -> None:
    paths = [write_picture(tmp_path, made_up(VALENCE_AROUSAL)) for _ in range(2)]
    assert [path.name for path in paths] == ["some_where_a_b.png", "some_where_a_b-2.png"]
    assert all(path.parent == tmp_path and path.exists() for path in paths)


def test_predictions_of_a_plain_classifier_are_drawn(runs: Path, photos: Path, tmp_path: Path) -> None:
    for prediction in predict(runs / "plain", photos / "b.jpg", device="cpu"):
        assert write_picture(tmp_path, prediction).stat().st_size > 5000


def test_the_title_of_a_picture_has_the_temperature() -> None:
    prediction = made_up(VALENCE_AROUSAL)
    axes = Figure().subplots()
    draw_answers(axes, prediction)
    assert axes.get_title().endswith(", λ = 0.40")
    draw_answers(axes, dataclasses.replace(prediction, temperature=1.54321))
    assert axes.get_title().endswith(", λ = 0.40, T = 1.54")


def test_a_thumbnail_is_the_middle_square_and_never_enlarged() -> None:
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[:, 10:50] = 255
    small = thumbnail(wide, "crop")
    assert small.size == (40, 40) and np.asarray(small).min() == 255
    assert thumbnail(np.zeros((900, 700, 3), np.uint8), "crop").size == (320, 320)


def test_a_thumbnail_of_a_padding_classifier_is_the_whole_image() -> None:
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[:, :5] = 255  # outside the middle square
    small = np.asarray(thumbnail(wide, "pad"))
    assert small.shape == (60, 60, 3) and (small[10:50, :5] == 255).all()
    assert thumbnail(np.zeros((900, 700, 3), np.uint8), "pad").size == (320, 320)

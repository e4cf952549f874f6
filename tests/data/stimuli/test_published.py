from __future__ import annotations

import pytest

from emoreg.data.stimuli import PUBLISHED, SETS
from emoreg.data.stimuli.published import UNTIED, Published, compare

SET = Published(
    100,
    "some paper",
    {"train": 80, "test": 20},
    {"awe": 50, "fear": 40},
    {UNTIED: (91, "a misprint"), "awe": (51, "it")},
)


def test_what_is_listed_is_what_is_published() -> None:
    for name, published in PUBLISHED.items():
        assert SETS[name][0].size == f"{published.images:,}", name
        assert sum(published.splits.values()) in (0, published.images), name
        # votes may tie: 228 of Abstract's 280 have one emotion with most of them
        assert sum(published.emotions.values()) in (0, published.images, 228), name
    assert set(SETS) - set(PUBLISHED) == {"diffused_emod", "emotion_folder", "manifest"}  # as many as a user has


def test_a_complete_set_is_compared_to_each_emotion() -> None:
    told = compare(SET, 100, {"train": 80, "test": 20}, {"awe": 51, "fear": 40})
    assert [(row.what, row.found, row.published, row.verdict, row.why) for row in told] == [
        ("images", 100, 100, "as published", ""),
        ("train", 80, 80, "as published", ""),
        ("test", 20, 20, "as published", ""),
        (UNTIED, 91, 90, "expected", "a misprint"),
        ("awe", 51, 50, "expected", "it"),
        ("fear", 40, 40, "as published", ""),
    ]


@pytest.mark.parametrize(("images", "verdict"), [(7, "a part"), (101, "more")])
def test_of_another_number_of_images_the_emotions_say_nothing(images: int, verdict: str) -> None:
    told = compare(SET, images, {"train": images}, {"awe": 3, "fear": 4})
    assert [(row.what, row.verdict) for row in told][:3] == [
        ("images", verdict),
        ("train", told[1].verdict),
        ("test", "a part"),
    ]
    assert len(told) == 3 and all(row.why for row in told)

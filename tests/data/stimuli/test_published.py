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


def test_listed_sizes_are_the_published_numbers() -> None:
    for name, published in PUBLISHED.items():
        assert SETS[name][0].size == f"{published.images:,}", name
        assert sum(published.splits.values()) in (0, published.images), name
        # votes may tie: 228 of Abstract's 280 have a single most-voted emotion
        assert sum(published.emotions.values()) in (0, published.images, 228), name
    assert set(SETS) - set(PUBLISHED) == {"diffused_emod", "emotion_folder", "manifest"}  # made by the user


def test_a_complete_set_is_compared_to_each_emotion() -> None:
    rows = compare(SET, 100, {"train": 80, "test": 20}, {"awe": 51, "fear": 40})
    assert [(row.what, row.found, row.published, row.verdict, row.why) for row in rows] == [
        ("images", 100, 100, "as published", ""),
        ("train", 80, 80, "as published", ""),
        ("test", 20, 20, "as published", ""),
        (UNTIED, 91, 90, "expected", "a misprint"),
        ("awe", 51, 50, "expected", "it"),
        ("fear", 40, 40, "as published", ""),
    ]


@pytest.mark.parametrize(("images", "verdict"), [(7, "a part"), (101, "more")])
def test_emotions_are_not_compared_unless_the_number_of_images_agrees(images: int, verdict: str) -> None:
    rows = compare(SET, images, {"train": images}, {"awe": 3, "fear": 4})
    assert [row.what for row in rows] == ["images", "train", "test"] and all(row.why for row in rows)
    assert (rows[0].verdict, rows[2].verdict) == (verdict, "a part")

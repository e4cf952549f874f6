from __future__ import annotations

import pytest

from emoreg.config.schema import TargetSettings
from emoreg.config.target_words import describe_target, name_of, part_of

FIVE = ("apple", "bear", "crab", "cup", "fox")


@pytest.mark.parametrize(
    ("settings", "classes", "whole", "part", "described"),
    [
        (TargetSettings("cifar100"), 100, 100, "", "cifar100, 100 classes, 32 pixels"),
        (
            TargetSettings("cifar100", "/home/ann/cifar-small", FIVE, per_class=200),
            5,
            None,
            "5 of 100 classes, 200 images per class",
            "cifar100, 5 of 100 classes, 200 images per class, 32 pixels, read from cifar-small",
        ),
        (
            TargetSettings("folder", "C:\\ann\\photos\\", FIVE[:2], image_size=224, limit=1000),
            2,
            3,
            "2 of 3 classes, at most 1,000 training images",
            "folder photos, 2 of 3 classes, at most 1,000 training images, 224 pixels",
        ),
        (
            TargetSettings("emotion6", labels="ekman", classes=("joy", "fear")),
            2,
            6,
            "by Ekman's six emotions, 2 of 6 classes",
            "emotion6, by Ekman's six emotions, 2 of 6 classes, 32 pixels",
        ),
        (
            TargetSettings("folder", "data/photos-32px", labels="multilabel"),  # not emotions
            3,
            None,
            "several labels per image",
            "folder photos-32px, 3 labels, several labels per image, 32 pixels",
        ),
        (TargetSettings("stl10", classes=FIVE), 5, None, "5 of its classes", "stl10, 5 of its classes, 32 pixels"),
        (TargetSettings("digits", classes=tuple("0123456789")), 10, None, "", "digits, 10 classes, 32 pixels"),
        (
            TargetSettings("cifar10", share=0.05, imbalance=10, label_noise="symmetric", noise_share=0.4),
            10,
            10,
            "5 % of its training images, a long tail of factor 10, symmetric label noise of 40 %",
            "cifar10, 10 classes, 5 % of its training images, a long tail of factor 10, symmetric label noise of 40 %, "
            "32 pixels",
        ),
        (
            TargetSettings("cifar10", label_noise="worse"),
            10,
            10,
            "worse labels of people",
            "cifar10, 10 classes, worse labels of people, 32 pixels",
        ),
        (
            TargetSettings("digits", per_class=1),
            None,
            None,
            "1 image per class",
            "digits, 1 image per class, 32 pixels",
        ),
    ],
)
def test_the_part_of_a_target_is_described(
    settings: TargetSettings, classes: int | None, whole: int | None, part: str, described: str
) -> None:
    assert part_of(settings, whole) == part
    assert describe_target(settings, classes, whole) == described
    assert described.startswith(name_of(settings))

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target
from emoreg.data.targets.target import Target
from emoreg.data.targets.training_part import training_part
from emoreg.errors import SettingError, UserError
from listening import Listening
from narrow import pixels, present

DIGITS = TargetSettings(name="digits", validation=0.2)
WHOLE = read_target(DIGITS)


def asked(**settings: Any) -> TargetSettings:
    return dataclasses.replace(DIGITS, **settings)


def contents(table: Table) -> set[bytes]:
    return {image.tobytes() for image in pixels(table.images)}


def part(seed: int = 0, **settings: Any) -> Table:
    return training_part(WHOLE, asked(**settings), seed)[0]


def of_sizes(*sizes: int) -> Target:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    table = Table("pets", np.arange(len(labels) * 3, dtype=np.uint8).reshape(-1, 1, 1, 3), labels)
    return Target(table, table, tuple("abcdefghij"[: len(sizes)]))


def test_per_class_keeps_a_number_of_images_and_does_not_change_validation() -> None:
    whole_train, whole_validation = training_part(WHOLE, DIGITS, seed=3)
    few, validation = training_part(WHOLE, asked(per_class=5), seed=3)
    assert np.bincount(few.labels).tolist() == [5] * 10
    assert np.array_equal(pixels(present(validation).images), pixels(present(whole_validation).images))
    assert contents(few) <= contents(whole_train)
    assert not contents(few) & contents(present(validation))


def test_per_class_depends_only_on_the_seed_and_is_nested() -> None:
    found = {(count, seed): contents(part(seed, per_class=count)) for count, seed in ((3, 0), (8, 0), (3, 1))}
    assert found[3, 0] == contents(part(per_class=3))
    assert found[3, 0] < found[8, 0]
    assert found[3, 0] != found[3, 1]


def test_a_class_with_too_few_images_is_named() -> None:
    pets = of_sizes(20, 10)
    with pytest.raises(
        UserError, match=r"pets: class 'b' has 8 training images after validation; target\.per_class is 9"
    ):
        training_part(pets, asked(per_class=9), 0)
    assert len(training_part(pets, asked(per_class=8), 0)[0]) == 16


def test_a_limit_applies_after_per_class_and_limits_validation_as_without() -> None:
    few, validation = training_part(WHOLE, asked(limit=100, per_class=20), 0)
    assert len(few) == 100 and np.bincount(few.labels).tolist() == [10] * 10
    without = training_part(WHOLE, asked(limit=100), 0)[1]
    assert np.array_equal(pixels(present(validation).images), pixels(present(without).images))
    assert len(part(limit=300, per_class=20)) == 200


def test_shares_are_stratified_and_nested() -> None:
    sizes = np.bincount(part().labels)
    shares = (0.01, 0.1, 0.5, 1.0)
    found = [part(share=share) for share in shares]
    for share, table in zip(shares, found, strict=True):
        assert np.bincount(table.labels).tolist() == [max(1, round(share * size)) for size in sizes]
    one, ten, half, everything = map(contents, found)
    assert one < ten < half < everything == contents(part())
    assert one == contents(part(per_class=1)) and one != contents(part(1, share=0.01))


def test_a_long_tail_decreases_in_the_order_of_the_labels() -> None:
    table = part(imbalance=10)
    largest = int(np.bincount(part().labels).min())
    expected = [int(largest * 10 ** (-k / 9) + 1e-9) for k in range(10)]
    assert np.bincount(table.labels).tolist() == expected and expected[0] == largest and expected[9] == largest // 10
    assert contents(table) < contents(part())
    tail, validation = training_part(of_sizes(1250, 1250), asked(imbalance=10, label_noise="none"), 0)
    assert (
        np.bincount(tail.labels).tolist() == [1000, 100]
        and np.bincount(present(validation).labels).tolist() == [250] * 2
    )
    assert np.bincount(part(imbalance=5, per_class=10).labels).tolist() == [10, 8, 6, 5, 4, 4, 3, 2, 2, 2]


def test_a_tail_without_images_is_refused_with_the_class() -> None:
    with pytest.raises(SettingError, match=r"target\.imbalance: 100 leaves class 'b' of pets .* smallest class has 8"):
        training_part(of_sizes(10, 20, 30), asked(imbalance=100), 0)


def test_noise_changes_only_training_labels_and_reports_how_many() -> None:
    heard = Listening()
    clean, clean_validation = training_part(WHOLE, DIGITS, 0)
    noisy, validation = training_part(WHOLE, asked(label_noise="symmetric", noise_share=0.2), 0, progress=heard)
    assert np.array_equal(pixels(noisy.images), pixels(clean.images))
    wrong = int((noisy.labels != clean.labels).sum())
    assert wrong == sum(round(0.2 * size) for size in np.bincount(clean.labels))
    assert np.array_equal(present(validation).labels, present(clean_validation).labels)
    assert heard.lines == [f"digits: symmetric label noise: {wrong} of {len(clean):,} training labels are wrong"]


def test_only_a_share_can_be_drawn_without_classes() -> None:
    values = Table("ratings", pixels(WHOLE.train.images), np.zeros((len(WHOLE.train), 2), np.float32))
    rated = dataclasses.replace(WHOLE, train=values)
    assert len(training_part(rated, asked(share=0.1, validation=0), 0)[0]) == round(0.1 * len(values))
    refused: tuple[dict[str, Any], ...] = (
        {"per_class": 5},
        {"imbalance": 10},
        {"label_noise": "symmetric", "noise_share": 0.2},
    )
    for settings in refused:
        with pytest.raises(SettingError, match=rf"target\.{next(iter(settings))}: must be .* ratings has no classes"):
            training_part(rated, asked(**settings), 0)

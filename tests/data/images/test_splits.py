from __future__ import annotations

import numpy as np
import pytest

from emoreg.data.images.splits import cut_validation, split_rows
from emoreg.data.images.table import Table
from emoreg.errors import UserError
from narrow import pixels

LABELS = np.repeat(np.arange(5), 20).astype(np.int64)


def table(labels: np.ndarray = LABELS) -> Table:
    return Table("set", np.arange(len(labels) * 3, dtype=np.uint8).reshape(-1, 1, 1, 3), labels)


def test_parts_are_disjoint_whole_and_stratified() -> None:
    larger, smaller = split_rows(LABELS, 0.25, seed=1)
    assert sorted([*larger, *smaller]) == list(range(100))
    assert np.bincount(LABELS[smaller]).tolist() == [5] * 5


def test_the_cut_depends_on_the_seed_alone() -> None:
    one, again, other = (split_rows(LABELS, 0.2, seed)[1].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_regression_labels_and_single_members_are_split_without_strata() -> None:
    ratings = np.random.default_rng(0).random((30, 2)).astype(np.float32)
    assert len(split_rows(ratings, 0.2, 0)[1]) == 6
    assert len(split_rows(np.arange(10), 0.2, 0)[1]) == 2


def test_validation_never_meets_training_even_with_a_limit() -> None:
    train, validation = cut_validation(table(), 0.2, limit=40, seed=0)
    assert validation is not None and len(train) == 40 and len(validation) == 10
    assert not {image.tobytes() for image in pixels(train.images)} & {
        image.tobytes() for image in pixels(validation.images)
    }
    assert np.bincount(train.labels).tolist() == [8] * 5


def test_no_share_gives_no_validation_and_too_large_a_share_is_said() -> None:
    assert cut_validation(table(), 0.0, None, 0)[1] is None
    with pytest.raises(UserError, match="leaves none"):
        cut_validation(table(LABELS[:1]), 0.9, None, 0)


def test_a_table_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        table(LABELS[:0])

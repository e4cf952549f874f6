from __future__ import annotations

import numpy as np
import pytest

from emoreg.data.images.splits import Rows, at_most, cut_validation, first_of_each, keep_rows, split_rows
from emoreg.data.images.table import Table
from emoreg.errors import UserError
from listening import Listening

LABELS = np.repeat(np.arange(5), 20).astype(np.int64)


def table(labels: np.ndarray = LABELS) -> Table:
    return Table("set", np.arange(len(labels) * 3, dtype=np.uint8).reshape(-1, 1, 1, 3), labels)


def test_parts_are_disjoint_complete_and_stratified() -> None:
    larger, smaller = split_rows(LABELS, 0.25, seed=1)
    assert sorted([*larger, *smaller]) == list(range(100))
    assert np.bincount(LABELS[smaller]).tolist() == [5] * 5


def test_the_split_depends_only_on_the_seed() -> None:
    one, again, other = (split_rows(LABELS, 0.2, seed)[1].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_regression_labels_are_not_stratified() -> None:
    ratings = np.random.default_rng(0).random((30, 2)).astype(np.float32)
    assert len(split_rows(ratings, 0.2, 0)[1]) == 6


@pytest.mark.parametrize(
    ("sizes", "held_out"),
    [
        ([40, 40, 1], [8, 8, 0]),  # ants, bees, and one picture of a wasp
        ([4] * 6, [1] * 6),  # fewer than classes by the share: one of each
        ([100, 2], [19, 1]),  # scikit-learn may give the small class nothing
        ([1, 1, 1, 10], [0, 0, 0, 3]),
        ([1] * 10, [0] * 10),
        ([500, 300, 5, 3, 2, 1], [99, 60, 1, 1, 1, 0]),
    ],
)
def test_each_class_of_at_least_two_images_is_in_both_parts_in_proportion(
    sizes: list[int], held_out: list[int]
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(5):
        larger, smaller = split_rows(labels, 0.2, seed)
        assert np.bincount(labels[smaller], minlength=len(sizes)).tolist() == held_out
        assert sorted([*larger, *smaller]) == list(range(len(labels)))


@pytest.mark.parametrize(
    ("sizes", "digest"),
    [([20] * 5, 954), ([40, 40, 1], 680), ([4] * 6, 77), ([100, 2], 1075)],
)
def test_the_first_edition_splits_as_it_did(sizes: list[int], digest: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert int(split_rows(labels, 0.2, 0, edition=1)[1].sum()) == digest
    assert int(keep_rows(labels, 0.2, 0, edition=1).sum()) == digest


def test_the_split_is_that_of_the_first_edition_if_that_kept_every_class_in_both_parts() -> None:
    for seed in range(20):
        assert np.array_equal(split_rows(LABELS, 0.2, seed)[1], split_rows(LABELS, 0.2, seed, edition=1)[1])


def test_a_limit_keeps_every_class_if_there_is_room_and_otherwise_reports_missing_ones() -> None:
    labels = np.repeat(np.arange(4), [50, 30, 2, 1])
    heard = Listening()
    for seed in range(5):
        train, _ = cut_validation(table(labels), 0, 10, seed, progress=heard)
        assert np.bincount(labels[train]).tolist() == [5, 3, 1, 1]
    assert heard.lines == []
    train, _ = cut_validation(table(labels), 0, 2, 0, classes="abcd", progress=heard)
    assert len(train) == 2 and "a limit of 2 leaves" in heard.lines[0] and "without training images" in heard.lines[0]


def test_classes_missing_from_the_validation_part_are_reported() -> None:
    heard = Listening()
    labels = np.repeat(np.arange(4), [4, 4, 4, 1])
    train, validation = cut_validation(
        table(labels), 0.1, None, 0, classes=("ant", "bee", "cat", "dog"), progress=heard
    )
    assert len(train) == 10 and labels[validation].tolist() == [0, 1, 2]
    assert heard.lines == [
        "set: a validation share of 0.1 leaves 1 of its classes without validation images: dog",
        "set: 3 of 13 images are for validation, more than the share of 0.1, so that each class has one",
    ]


def test_a_published_validation_split_is_used_instead_of_holding_out_images() -> None:
    published = Table("set", np.zeros((10, 1, 1, 3), np.uint8), np.repeat(np.arange(5), 2))
    train, validation = cut_validation(table(), 0.5, None, 0, published=published)
    assert len(train) == 100 and validation.tolist() == list(range(10))
    train, validation = cut_validation(table(), 0.5, 50, 0, published=published)
    assert len(train) == 50 and published.labels[validation].tolist() == [0, 1, 2, 3, 4]


def test_validation_and_training_are_disjoint_even_with_a_limit() -> None:
    train, validation = cut_validation(table(), 0.2, limit=40, seed=0)
    assert len(train) == 40 and len(validation) == 10 and not set(train) & set(validation)
    assert np.bincount(LABELS[train]).tolist() == [8] * 5


def test_share_zero_gives_no_validation_and_too_large_a_share_is_refused() -> None:
    assert len(cut_validation(table(), 0.0, None, 0)[1]) == 0
    with pytest.raises(UserError, match="leaves none"):
        cut_validation(table(LABELS[:1]), 0.9, None, 0)


def test_a_table_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        table(LABELS[:0])


def test_a_few_test_images_are_of_all_classes_and_the_same_for_a_seed() -> None:
    labels = np.arange(100) % 10
    rows = np.arange(10, 90)
    kept = at_most(rows, labels, 20, seed=0)
    assert set(kept) <= set(rows) and np.bincount(labels[kept]).tolist() == [2] * 10
    assert np.array_equal(kept, at_most(rows, labels, 20, seed=0))
    assert not np.array_equal(kept, at_most(rows, labels, 20, seed=1))
    assert at_most(rows, labels, 80, seed=0) is rows


def test_the_first_of_each_class_are_nested_subsets_of_the_rows() -> None:
    rows = np.flatnonzero(np.arange(len(LABELS)) % 2)
    one, more = (first_of_each(LABELS, rows, np.array(kept), seed=0) for kept in ([1, 0, 2, 3, 9], [2, 5, 2, 3, 10]))
    assert np.bincount(LABELS[one]).tolist() == [1, 0, 2, 3, 9] and set(one) < set(more) <= set(rows)
    assert one.tolist() == sorted(one) and not np.array_equal(
        one, first_of_each(LABELS, rows, np.array([1, 0, 2, 3, 9]), 1)
    )


def test_a_limit_keeps_validation_images_in_proportion_to_all_training_images() -> None:
    def thin(rows: Rows) -> Rows:
        return rows[:30]

    train, held_out = cut_validation(table(), 0.2, limit=40, seed=0)
    assert (len(train), len(held_out)) == (40, 10)  # of 80 and 20
    fewer, same = cut_validation(table(), 0.2, limit=40, seed=0, thin=thin)
    assert len(fewer) == 30 and same.tolist() == held_out.tolist()

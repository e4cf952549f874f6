from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emoreg.data.images.augment import normalise
from emoreg.data.images.files import File
from emoreg.data.images.table import Table
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError, UserError

PIXELS = np.zeros((4, 8, 8, 3), np.uint8)
INDICES = np.array([0, 1, 0, 1])
VALUES = np.zeros((4, 2), np.float32)
AnyTable: Any = Table  # as users call it who do not check types


def test_tables_and_targets_are_compared_and_hashed_by_identity() -> None:
    tables = [Table("mine", PIXELS, INDICES) for _ in range(2)]
    targets = [Target(table, table, ("a", "b")) for table in tables]
    for one, other in (tables, targets):
        assert one != other and len({one, other}) == 2


def test_pixels_with_indices_or_values_are_a_table() -> None:
    assert len(Table("mine", PIXELS, INDICES)) == len(Table("mine", PIXELS, VALUES)) == 4


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (
            PIXELS.astype(np.float32),
            r"not float32 \(4, 8, 8, 3\); values must be 0 to 255; if they are in \[0, 1\], give \(images \* 255\)",
        ),
        (PIXELS.astype(np.int64), r"not int64 .*values must be 0 to 255; if they are, give images.astype\(numpy.uint8"),
        (
            PIXELS.astype(np.uint16),
            r"not uint16 .*; if they are 0 to 65,535, give \(images >> 8\).astype\(numpy.uint8\)",
        ),
        (PIXELS.astype(bool), r"not bool .*; for masks give images.astype\(numpy.uint8\) \* 255"),
        (np.zeros((4, 3, 8, 8), np.uint8), r"give images.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 8), np.uint8), r"numpy.repeat\(images\[..., None\], 3, axis=-1\)"),
        (np.zeros((4, 8, 8, 1), np.uint8), r"numpy.repeat\(images, 3, axis=-1\)"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"drop the fourth channel, .* images\[..., :3\]"),
        (np.zeros((4, 192), np.uint8), "with three channels last"),
        (torch.zeros(4, 3, 8, 8), r"not a Tensor.*; give a NumPy array with channels last and values 0 to 255"),
        (["a.jpg"] * 4, "not a list of str; list_files"),
        (list(PIXELS), r"not a list of ndarray; give numpy.stack\(images\)"),
        ("images.zip", "not a str"),
        (None, "not a NoneType"),
    ],
)
def test_images_of_another_type_or_shape_are_refused_with_advice(images: Any, advice: str) -> None:
    with pytest.raises(UserError, match=rf"mine: images must be uint8 \(N, H, W, 3\), .*{advice}"):
        AnyTable("mine", images, INDICES)


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        ([0, 1, 0, 1], r"not a list; give numpy.array\(labels\)"),
        (torch.tensor(INDICES), r"not a Tensor; give labels.numpy\(\)"),
        (INDICES.astype(np.int32), r"give labels.astype\(numpy.int64\)"),
        (INDICES == 0, r"give labels.astype\(numpy.int64\)"),
        (np.eye(4, dtype=np.int64), r"give labels.argmax\(1\); else labels.astype\(numpy.float32\)"),
        (np.eye(4, dtype=bool), r"give labels.argmax\(1\); else labels.astype\(numpy.float32\)"),
        (VALUES.astype(np.float64), r"give labels.astype\(numpy.float32\)"),
        (VALUES[:, 0], r"give labels\[:, None\].astype\(numpy.float32\)"),
        (np.array(["a", "b", "a", "b"]), r"numpy.unique\(labels, return_inverse=True\)"),
        (np.zeros((4, 2, 2), np.float32), "one row for each image"),
        (INDICES.astype(np.complex64), "one row for each image"),
    ],
)
def test_labels_of_another_type_or_shape_are_refused_with_advice(labels: Any, advice: str) -> None:
    with pytest.raises(UserError, match=f"mine: labels must be class indices, .*{advice}"):
        AnyTable("mine", PIXELS, labels)


def test_a_table_has_a_name_and_as_many_labels_as_images() -> None:
    with pytest.raises(UserError, match="4 images but 3 labels"):
        Table("mine", PIXELS, INDICES[:3])
    with pytest.raises(UserError, match="takes a string as name, not a ndarray"):
        AnyTable(PIXELS, INDICES, "mine")


def test_rows_are_taken_by_number_and_by_mask() -> None:
    files = [File(f"{number}.png", Path("photos")) for number in range(4)]
    for images in (np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1), files):
        table = Table("mine", images, np.arange(4))
        for rows, expected in (
            (np.array([False, True, False, True]), [1, 3]),
            (np.ones(4, bool), [0, 1, 2, 3]),
            (np.array([3, 1, 3]), [3, 1, 3]),
            ([2, -1], [2, 3]),
        ):
            taken = AnyTable.take(table, rows)
            assert taken.labels.tolist() == expected
            assert list(map(str, taken.images)) == [str(images[row]) for row in expected]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([0, 99]), "there is no row 99: its 4 images are rows 0 to 3"),
        (np.array([-5]), "there is no row -5"),
        (np.ones(3, bool), r"take takes row numbers, or a mask of 4 booleans, not bool \(3,\)"),
        (np.array([0.0]), "take takes row numbers, .*not float64"),
        (2, "take takes row numbers"),
        ([], "holds no images"),
    ],
)
def test_rows_that_do_not_exist_are_refused(rows: Any, message: str) -> None:
    for images in (PIXELS, [File(f"{number}.png", Path("photos")) for number in range(4)]):
        with pytest.raises(UserError, match=f"mine:? {message}"):
            Table("mine", images, INDICES).take(rows)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"not float32 \(1, 3, 8, 8\); if values are in \[0, 1\], give \(images \* 255\)"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), r"give images.permute\(0, 3, 1, 2\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"not uint8 \(3, 8, 8\)"),
        (PIXELS, r"not a ndarray; give torch.from_numpy\(images\)"),
    ],
)
def test_only_pixels_are_normalised(images: Any, message: str) -> None:
    with pytest.raises(SettingError, match=f"images: must be pixels, uint8 .*{message}"):
        normalise(images)

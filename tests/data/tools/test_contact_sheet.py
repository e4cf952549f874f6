from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoreg.data.images.packed import PackedLabels
from emoreg.data.tools.catalogue import Collection, read_set
from emoreg.data.tools.contact_sheet import caption, choose, draw_sheet

PLANE = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)


def of_classes(counts: list[int], names: tuple[str, ...] | None = None) -> PackedLabels:
    names = names or tuple(f"class {number}" for number in range(len(counts)))
    return PackedLabels("class", names, np.repeat(np.arange(len(counts)), counts))


def test_rare_classes_are_shown_as_often_as_others() -> None:
    labels = of_classes([1000, 5, 1000, 2])
    rows = choose(labels, 16, seed=0)
    counts = np.bincount(labels.values[rows])
    assert counts[3] == 2 and all(4 <= count <= 5 for count in counts[:3])  # the last class has two images
    assert len(set(rows.tolist())) == 16 and (np.diff(labels.values[rows]) >= 0).all()


def test_all_images_are_shown_if_there_are_fewer_than_requested() -> None:
    assert sorted(choose(of_classes([3, 2]), 32, seed=0).tolist()) == [0, 1, 2, 3, 4]
    assert len(choose(PackedLabels("dimensions", ("valence", "arousal"), PLANE[:5]), 32, seed=0)) == 5


def test_the_choice_depends_on_the_seed_alone() -> None:
    for labels in (of_classes([50, 50]), PackedLabels("dimensions", ("valence", "arousal"), PLANE)):
        assert choose(labels, 16, seed=1).tolist() == choose(labels, 16, seed=1).tolist()
        assert choose(labels, 16, seed=1).tolist() != choose(labels, 16, seed=2).tolist()


def test_valence_increases_to_the_right_and_arousal_upwards() -> None:
    rows = choose(PackedLabels("dimensions", ("valence", "arousal"), PLANE), 32, seed=0)
    shown = PLANE[rows].reshape(4, 8, 2)
    assert (np.diff(shown[..., 0], axis=1) > -1e-6).mean() > 0.9 and (np.diff(shown[..., 1], axis=0) <= 0).all()
    assert shown[:, 0, 0].max() < -0.6 and shown[:, -1, 0].min() > 0.6


def test_captions_show_the_label() -> None:
    assert caption(of_classes([1, 1], ("cat", "dog")), 1) == "dog"
    votes = PackedLabels("votes", ("awe", "fear", "anger"), np.array([[1, 3, 0], [2, 0, 0]], np.float32))
    assert caption(votes, 0) == "fear 75%\nawe 25%" and caption(votes, 1) == "awe 100%"
    assert caption(PackedLabels("dimensions", ("valence", "arousal"), np.array([[0.5, -1]])), 0) == "V +0.50  A -1.00"


def drawn(collection: Collection, count: int = 16) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of text that does not fit, and of missing glyphs
        return Image.open(io.BytesIO(draw_sheet(collection, count, 0))).convert("RGB")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "labels",
    [
        of_classes([20, 20]),
        of_classes([2] * 100),
        of_classes([20, 20], ("$x_1^", "猫 und ein sehr langer Name, der nirgends hineinpasst, niemals")),
        PackedLabels("votes", ("awe", "fear"), np.ones((40, 2), np.float32)),
        PackedLabels("dimensions", ("valence", "arousal", "dominance"), np.zeros((40, 3), np.float32)),
        PackedLabels("dimensions", ("valence",), PLANE[:40, :1]),
    ],
    ids=["two", "hundred", "odd names", "votes", "dimensions", "valence alone"],
)
def test_every_kind_of_label_is_drawn(labels: PackedLabels) -> None:
    total = len(labels.values)
    sheet = drawn(Collection("set", "stimuli", "set", None, images(total), (labels,), None))
    assert min(sheet.size) > 400 and len(sheet.getcolors(10**7) or []) > 500


def test_a_single_image_is_drawn() -> None:
    assert drawn(Collection("set", "target", "set", None, images(1), (of_classes([1, 0]),), None)).width > 400


def test_an_unreadable_image_leaves_its_place_empty(image_folder: Path) -> None:
    whole = drawn(read_set("folder", str(image_folder)), 32)
    for path in image_folder.glob("train/*/*.png"):
        path.write_bytes(b"broken")
    holes = drawn(read_set("folder", str(image_folder)), 32)
    assert holes.size == whole.size
    colours = {colour: count for count, colour in holes.getcolors(10**7) or []}
    assert colours[238, 238, 238] > 24 * 5000

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.images import image_set
from emoreg.data.images.files import File
from emoreg.data.images.image_set import load_images
from emoreg.data.images.packed import PackedImages, is_pack, open_pack
from emoreg.data.images.table import Table
from emoreg.data.stimuli import read_stimuli
from emoreg.data.targets import read_for_scoring, read_target
from emoreg.data.tools.pack import pack
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

SIZE = 8


@pytest.fixture
def packed(image_folder: Path, tmp_path: Path, quiet: Progress) -> Path:
    return pack("folder", str(image_folder), SIZE, tmp_path / "pack", False, quiet).folder


def test_a_pack_equals_the_folder_that_it_was_made_from(packed: Path, image_folder: Path, quiet: Progress) -> None:
    folder = read_target(TargetSettings("folder", str(image_folder), image_size=SIZE))
    opened = read_target(TargetSettings("folder", str(packed), image_size=SIZE))
    assert opened.classes == folder.classes and opened.train.name == folder.train.name
    for one, other in ((folder.train, opened.train), (folder.test, opened.test)):
        decoded, read = (load_images(table, SIZE, False, 1.0, quiet) for table in (one, other))
        assert decoded.pixels is not None and read.pixels is not None
        assert torch.equal(decoded.pixels, read.pixels) and torch.equal(decoded.labels, read.labels)
        assert read.pixels.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(opened.train.images, PackedImages)
    fourth = folder.train.images[3]
    assert isinstance(fourth, File) and opened.train.images.name(3) == fourth.name


def test_classes_can_be_chosen_from_a_pack(packed: Path) -> None:
    some = TargetSettings("folder", str(packed), classes=("red", "blue"), image_size=SIZE)
    assert read_target(some).train.labels.tolist() == [1] * 12 + [0] * 12


def test_a_trained_classifier_is_scored_on_a_pack(packed: Path) -> None:
    own = TargetSettings("digits", image_size=SIZE)
    table = read_for_scoring(own, str(packed), ("blue", "red"))
    assert len(table) == 8 and isinstance(table.images, PackedImages)
    with pytest.raises(UserError, match="classes"):
        read_for_scoring(own, str(packed), ("green", "red"))


def test_taking_rows_copies_no_pixels(packed: Path) -> None:
    table = read_target(TargetSettings("folder", str(packed), image_size=SIZE)).train
    images = table.images
    part = table.take(np.array([5, 3, 3])).take(np.array([2, 0]))
    assert isinstance(images, PackedImages) and isinstance(part.images, PackedImages)
    assert np.shares_memory(part.images.pixels, images.pixels)
    assert isinstance(part.images.pixels, np.memmap)
    assert part.images.rows.tolist() == [images.rows[3], images.rows[5]]
    np.testing.assert_array_equal(part.images[1], images[5])
    assert part.images[:1].name(0) == images.name(3)


def test_a_pack_over_the_memory_limit_is_read_batch_by_batch_in_this_process(
    packed: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_target(TargetSettings("folder", str(packed), image_size=SIZE)).train
    held = load_images(table, SIZE, False, 1.0, quiet)
    monkeypatch.setattr(image_set, "DataLoader", None)
    monkeypatch.setattr(image_set, "decode", None)
    left = load_images(table, SIZE, False, 0.0, quiet)
    assert held.pixels is not None and left.pixels is None
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        pairs = list(zip(held.batches(order, 10), left.batches(order, 10), strict=True))
        assert [len(one[1]) for one, _ in pairs] == [10, 10, 4]
        assert all(torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) for one, other in pairs)


def test_a_pack_of_another_size_is_resized_when_loaded_as_a_table(packed: Path, quiet: Progress) -> None:
    images = open_pack(packed, "target").images
    loaded = load_images(Table("set", images, np.zeros(len(images), np.int64)), 4, False, 1.0, quiet)
    assert loaded.pixels is not None and loaded.pixels.shape == (32, 3, 4, 4)


def test_opening_reads_no_pixels(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = np.load

    def watched(path: Path, mmap_mode: str | None = None, allow_pickle: bool = True) -> object:
        assert mmap_mode == "r" and not allow_pickle
        opened.append(path.name)
        return load(path, mmap_mode="r", allow_pickle=False)

    monkeypatch.setattr(np, "load", watched)
    open_pack(packed, "target", "folder", SIZE)
    assert sorted(opened) == ["labels-class.npy", "names.npy", "pixels.npy", "splits.npy"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            TargetSettings("folder", image_size=32),
            r"target\.image_size: is 32, but .*pack is a pack of 8 pixels; set it to 8",
        ),
        (
            TargetSettings("cifar10", image_size=8),
            r"target\.name: is cifar10, but .*pack is a pack of folder; set it to",
        ),
        (StimuliSettings("oasis", image_size=8), r"stimuli\.root: .*pack is a pack of folder, which is for stage 2"),
    ],
)
def test_a_pack_that_does_not_match_the_recipe_is_refused(
    packed: Path, settings: TargetSettings | StimuliSettings, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        if isinstance(settings, TargetSettings):
            read_target(TargetSettings(settings.name, str(packed), image_size=settings.image_size))
        else:
            read_stimuli(StimuliSettings(settings.name, str(packed), image_size=settings.image_size), 0)
    assert "\n" not in str(caught.value)


def test_a_damaged_pack_is_refused_in_one_line(packed: Path, tmp_path: Path) -> None:
    def damaged(name: str, content: bytes | None) -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(packed, tmp_path / "copy")
        if content is None:
            (tmp_path / "copy" / name).unlink()
        else:
            (tmp_path / "copy" / name).write_bytes(content)
        return tmp_path / "copy"

    about = json.loads((packed / "pack.json").read_text())
    labels = tmp_path / "labels.npy"
    np.save(labels, np.full(32, 7))
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}] * 32), allow_pickle=True)
    for name, content in (
        ("pixels.npy", (packed / "pixels.npy").read_bytes()[:-100]),
        ("pixels.npy", None),
        ("names.npy", b""),
        ("names.npy", objects.read_bytes()),
        ("labels-class.npy", labels.read_bytes()),
        ("labels-class.npy", np.zeros(3).tobytes()),
        ("splits.npy", None),
        ("pack.json", b"{"),
        ("pack.json", json.dumps(about | {"images": 31}).encode()),
        ("pack.json", json.dumps({"format": 1}).encode()),
        ("pack.json", json.dumps(about | {"format": 99}).encode()),
    ):
        folder = damaged(name, content)
        assert is_pack(folder)
        with pytest.raises(UserError, match=r"copy.*pack") as caught:
            open_pack(folder, "target", "folder", SIZE)
        assert "\n" not in str(caught.value), name


def test_a_folder_of_images_is_not_a_pack(image_folder: Path) -> None:
    assert not is_pack(image_folder) and not is_pack(image_folder / "nowhere") and not is_pack(None)

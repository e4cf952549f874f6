from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoreg.errors import UserError
from emoreg.images import decode as decoding
from emoreg.images.decode import decode, load_images
from emoreg.images.files import File, list_files
from emoreg.images.table import Table
from emoreg.progress import Progress


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> File:
    image.save(tmp_path / name, **options)
    return File(name, tmp_path)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.jpg"), ("L", "a.png"), ("RGBA", "b.png"), ("P", "c.png"), ("CMYK", "d.jpg"), ("1", "e.png")],
)
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    square = decode(saved(tmp_path, Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode), name), 4)
    assert square.shape == (4, 4, 3) and square.dtype == np.uint8
    assert square.min() > 240


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # white above, black below
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    upright = decode(saved(tmp_path, Image.fromarray(pixels), "turned.png", exif=exif), 8)
    assert upright[:4].max() == 0 and upright[4:].min() == 255


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    assert decode(saved(tmp_path, Image.fromarray(pixels), "wide.png"), 8).min() == 255


def test_pixels_of_the_right_size_come_back_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (decode(saved(tmp_path, Image.fromarray(pixels), "a.png"), 8) == pixels).all()
    assert (decode(pixels, 8) == pixels).all()


def test_what_cannot_be_decoded_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    whole = saved(tmp_path, Image.effect_noise((64, 64), 50).convert("RGB"), "whole.jpg").read()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.jpg", "cut.jpg", "empty.png"):
        with pytest.raises(UserError, match=name) as caught:
            decode(File(name, tmp_path), 8)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match=r"whole\.jpg has 64x64 pixels; the limit"):
        decode(File("whole.jpg", tmp_path), 8)


def table_of(folder: Path) -> Table:
    images = list_files(folder)
    return Table("set", images, np.arange(len(images), dtype=np.int64))


def test_unreadable_images_stop_unless_asked_to_be_left_out(
    image_folder: Path, quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "train" / "red" / "0003.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"red/0003\.png.*skip_unreadable"):
        load_images(table_of(image_folder), 8, False, 1.0, quiet)
    images = load_images(table_of(image_folder), 8, True, 1.0, Progress())
    assert len(images) == 31 and images.pixels is not None and len(images.pixels) == 31
    assert not any(str(file).endswith("train/red/0003.png") for file in images.table.images)
    assert set(images.labels.tolist()) == set(range(32)) - {
        list(map(str, list_files(image_folder))).index(f"{image_folder}/train/red/0003.png")
    }
    assert "left out 1 unreadable of 32" in capsys.readouterr().err


def test_a_set_over_the_memory_limit_gives_the_same_batches(image_folder: Path, quiet: Progress) -> None:
    table = table_of(image_folder)
    held, on_demand = (load_images(table, 8, False, limit, quiet) for limit in (1.0, 0.0))
    assert held.pixels is not None and on_demand.pixels is None
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))[:30]
    one, other = (list(images.batches(order, 8)) for images in (held, on_demand))
    assert [len(labels) for _, labels in one] == [8, 8, 8, 6]
    for (pixels, labels), (other_pixels, other_labels) in zip(one, other, strict=True):
        assert torch.equal(pixels, other_pixels) and torch.equal(labels, other_labels)
        assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (3, 8, 8)


def test_a_set_over_the_memory_limit_is_checked_before_training(image_folder: Path, quiet: Progress) -> None:
    (image_folder / "train" / "red" / "0003.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"0003\.png"):
        load_images(table_of(image_folder), 8, False, 0.0, quiet)
    assert len(load_images(table_of(image_folder), 8, True, 0.0, quiet)) == 31

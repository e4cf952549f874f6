from __future__ import annotations

import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

from emoreg.data.images import decode as decoding
from emoreg.data.images.decode import ImageError, decode, upright
from emoreg.data.images.files import File
from emoreg.errors import UserError
from refusing import refusal


def saved(tmp_path: Path, image: Image.Image, name: str, **options: Any) -> File:
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


@pytest.mark.parametrize("size", [(24, 8), (8, 24)])
def test_padding_keeps_all_of_a_photograph_between_grey_bars(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 10, 10))
    for given in (saved(tmp_path, image, "long.png"), np.asarray(image)):
        square = decode(given, 12, "pad")
        square = square if size[0] > size[1] else square.transpose(1, 0, 2)
        assert (square[4:8] == (200, 10, 10)).all()  # 12 x 4, in the middle
        assert (square[:4] == decoding.GREY).all() and (square[8:] == decoding.GREY).all()
    assert decoding.GREY == (124, 116, 104)
    assert (decode(np.asarray(Image.new("RGB", (9, 9), "red")), 6, "pad") == (255, 0, 0)).all()  # a square has no bars


def test_pixels_of_the_right_size_come_back_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (decode(saved(tmp_path, Image.fromarray(pixels), "a.png"), 8) == pixels).all()
    assert (decode(pixels, 8) == pixels).all()


def test_an_image_that_cannot_be_decoded_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    whole = saved(tmp_path, Image.effect_noise((64, 64), 50).convert("RGB"), "whole.jpg").read()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.jpg", "cut.jpg", "empty.png"):
        with pytest.raises(ImageError, match=name) as caught:
            decode(File(name, tmp_path), 8)
        again = pickle.loads(pickle.dumps(caught.value))  # as it crosses processes
        assert "\n" not in str(caught.value) and str(again) == str(caught.value)
        assert again.reason == caught.value.reason and name not in again.reason
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match=r"whole\.jpg: it has 64x64 pixels; the limit"):
        decode(File("whole.jpg", tmp_path), 8)


GRADIENT = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)


@pytest.mark.parametrize("name", ["grey16.png", "grey16.tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    square = decode(saved(tmp_path, Image.fromarray(GRADIENT), name), 8)
    np.testing.assert_array_equal(square, np.repeat((GRADIENT >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_big_endian_16_bit_grey_is_read(tmp_path: Path) -> None:
    square = decode(saved(tmp_path, Image.fromarray(GRADIENT.astype(">u2")), "big.tif"), 8)
    np.testing.assert_array_equal(square[..., 0], GRADIENT >> 8)


def png16(pixels: NDArray[np.uint16]) -> bytes:
    """A PNG of 16-bit RGB, which Pillow reads but does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(pixels: NDArray[np.uint16]) -> bytes:
    """A TIFF of 16-bit RGB, which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    begin = 8 + 2 + 9 * 12 + 4
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, begin),  # offset of the bits per sample, which follow the tags
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, begin + 6),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    start = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return start + directory + bytes(4) + struct.pack("<HHH", 16, 16, 16) + pixels.astype("<u2").tobytes()


@pytest.mark.parametrize(("name", "write"), [("rgb16.png", png16), ("rgb16.tif", tiff16)])
def test_16_bit_rgb_is_scaled_like_16_bit_grey(
    tmp_path: Path, name: str, write: Callable[[NDArray[np.uint16]], bytes]
) -> None:
    pixels = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT.T], axis=2)
    (tmp_path / name).write_bytes(write(pixels))
    np.testing.assert_array_equal(decode(File(name, tmp_path), 8), pixels >> 8)


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, kind: str) -> None:
    file = saved(tmp_path, Image.fromarray(GRADIENT.astype(kind)), "numbers.tif")
    with pytest.raises(UserError, match=r"numbers\.tif: its pixels are 32-bit numbers.*save it with 8 or 16 bits"):
        decode(file, 8)


CMYK = (0, 255, 255, 0)  # red


def without_adobe_marker(content: bytes) -> bytes:
    start = content.index(b"\xff\xee")  # APP14
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]


def test_cmyk_is_converted_with_and_without_adobes_inverted_values(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), CMYK)
    adobe = saved(tmp_path, image, "adobe.jpg", quality=95)
    assert b"Adobe" in adobe.read()
    plain = saved(tmp_path, ImageChops.invert(image), "plain.jpg", quality=95)  # Pillow inverts what it writes
    (tmp_path / "plain.jpg").write_bytes(without_adobe_marker(plain.read()))
    for file in (adobe, plain, saved(tmp_path, image, "cmyk.tif")):
        np.testing.assert_allclose(decode(file, 8)[4, 4].astype(int), (255, 0, 0), atol=4, err_msg=str(file))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))  # the hidden colour is black
    image.paste((10, 10, 10, 255), (0, 0, 8, 4))
    if mode == "P":
        palette = Image.new("P", (8, 8), 1)
        palette.putpalette([10, 10, 10, 0, 0, 0])
        palette.paste(0, (0, 0, 8, 4))
        file = saved(tmp_path, palette, "a.png", transparency=1)
    else:
        file = saved(tmp_path, image.convert(mode), "a.png")
    square = decode(file, 8)
    assert (square[:4] == 10).all() and (square[4:] == 255).all()


def test_half_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    square = decode(saved(tmp_path, Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "a.webp", lossless=True), 8)
    np.testing.assert_allclose(square, 127, atol=1)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    file = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=100)
    np.testing.assert_allclose(decode(file, 8).astype(int), np.broadcast_to((255, 0, 0), (8, 8, 3)), atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_all_eight_orientations_are_turned_upright(tmp_path: Path, orientation: int, name: str) -> None:
    upright = Image.new("RGB", (32, 32), "white")
    upright.paste("black", (0, 0, 16, 8))  # no two of its eight positions look the same
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],  # it has to be turned back by 270 degrees
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    image = upright
    for change in stored:
        image = image.transpose(change)
    exif = Image.Exif()
    exif[0x0112] = orientation
    square = decode(saved(tmp_path, image, name, exif=exif, **({"quality": 95} if name != "a.png" else {})), 32)
    assert np.abs(square.astype(int) - np.asarray(upright).astype(int)).mean() < 3


@pytest.mark.filterwarnings("error")
def test_broken_exif_neither_makes_an_image_unreadable_nor_warns(tmp_path: Path) -> None:
    tag = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0"
    for number, exif in enumerate((b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", tag)):
        file = saved(tmp_path, Image.new("RGB", (8, 8), "white"), f"{number}.jpg", exif=exif)
        assert decode(file, 8).min() > 250


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    file = saved(tmp_path, image, "a.png", transparency=b"\xff\x00")
    assert decode(file, 8).min() == 255  # white shows through


@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_refused_without_pillows_warning(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.new("1", (9500, 9500)), "large.png")
    assert "9500x9500 pixels" in refusal(lambda: decode(file, 8))


@pytest.mark.filterwarnings("error")
def test_decoding_in_several_threads_does_not_warn(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.new("RGB", (8, 8)), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: decode(file, 8), range(64)))) == 64


def test_a_png_named_jpg_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", format="PNG")
    assert (decode(File("a.jpg", tmp_path), 8) == (255, 0, 0)).all()


def test_large_photographs_are_decoded_at_a_fraction_and_look_the_same(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photograph = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
    file = saved(tmp_path, photograph, "large.jpg", quality=92)
    whole = upright(file)
    assert whole.size == (1600, 1200)
    for wanted, decoded_at in ((32, (200, 150)), (150, (400, 300)), (300, (800, 600)), (301, (1600, 1200))):
        part = upright(file, at_least=wanted)
        assert part.size == decoded_at and min(part.size) >= min(2 * wanted, 150)
        full = np.asarray(ImageOps.fit(whole, (wanted, wanted), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(decode(file, wanted).astype(int) - full).mean() < 1.0
        assert np.abs(decode(file, wanted).astype(int) - full).max() < 24


def test_a_draft_is_never_smaller_than_required(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.new("RGB", (4000, 70)), "banner.jpg")
    assert upright(file, at_least=35).size == (4000, 70)
    assert upright(file, at_least=17).size == (2000, 35)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.png: it is empty \(0 bytes\)"):
        decode(File("a.png", tmp_path), 8)


def test_any_error_of_pillow_becomes_one_line(tmp_path: Path) -> None:
    whole = {
        suffix: saved(tmp_path, Image.effect_noise((24, 24), 50).convert("RGB"), f"whole{suffix}").read()
        for suffix in (".jpg", ".png", ".gif", ".webp", ".bmp", ".tif")
    }
    draw = np.random.default_rng(0)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suffix, content in whole.items():
            for number in range(40):
                broken = bytearray(content[: draw.integers(1, len(content) + 1)])
                for position in draw.integers(0, min(len(broken), 120), 3):
                    broken[position] = draw.integers(256)
                (tmp_path / f"{number}{suffix}").write_bytes(broken)
                try:
                    decode(File(f"{number}{suffix}", tmp_path), 8)
                except UserError as error:
                    refused += 1
                    assert f"{number}{suffix}" in str(error) and "\n" not in str(error)
    assert refused > 100


@pytest.mark.parametrize(("width", "height", "size"), [(90, 90, 32), (160, 90, 64), (40, 61, 48)])
def test_resizing_the_middle_square_matches_pillow(width: int, height: int, size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    middle = Image.fromarray(pixels[top : top + side, left : left + side])
    expected = np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(decoding.square(Image.fromarray(pixels), size).astype(int) - expected).max() <= 2  # rounding

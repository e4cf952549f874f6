"""Common image formats are decoded; formats that start another program are not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from emoreg.data.images.decode import decode
from emoreg.data.images.files import IMAGE_FORMATS, File, image_suffixes, is_image
from emoreg.data.images.hugging_face import _fetch
from emoreg.errors import UserError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n8 8 scale\n%%EOF\n"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record of the programs that Pillow would have started: Ghostscript is replaced."""
    programs: list[str] = []

    def ghostscript(*_: object, **__: object) -> object:
        programs.append("gs")
        return Image.new("RGB", (8, 8)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    return programs


@pytest.mark.parametrize("suffix", image_suffixes())
def test_images_with_every_listed_suffix_are_decoded(suffix: str, tmp_path: Path) -> None:
    Image.new("1" if suffix == ".pbm" else "L", (8, 8)).save(tmp_path / f"x{suffix}")
    assert is_image(f"X{suffix.upper()}") and decode(File(f"x{suffix}", tmp_path), 8).shape == (8, 8, 3)


def test_suffixes_of_other_formats_are_not_listed() -> None:
    assert not any(map(is_image, ("a.eps", "a.pdf", "a.pfm", "a.heic", "a.svg", "a.dng", "a.txt", "png", "a")))


def test_pillow_starts_ghostscript_unless_formats_are_restricted(started: list[str]) -> None:
    Image.open(io.BytesIO(EPS)).load()
    assert started == ["gs"]


def test_postscript_in_an_image_file_starts_no_other_program(tmp_path: Path, started: list[str]) -> None:
    (tmp_path / "photo.png").write_bytes(EPS)
    with pytest.raises(UserError, match="not an image in a known format"):
        decode(File("photo.png", tmp_path), 8)
    assert started == []


def test_postscript_in_a_set_of_hugging_face_starts_no_other_program(started: list[str]) -> None:
    with pytest.raises(OSError, match="cannot identify image file"):
        _fetch([{"image": {"bytes": EPS, "path": None}}], "image", 0)
    assert started == []


def test_a_phone_s_file_of_two_pictures_is_read_as_its_first() -> None:
    buffer, two = io.BytesIO(), [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    two[0].save(buffer, "MPO", save_all=True, append_images=two[1:])
    with Image.open(buffer, formats=IMAGE_FORMATS) as opened:
        assert opened.format == "MPO" and opened.convert("RGB").getpixel((4, 4)) == (254, 0, 0)

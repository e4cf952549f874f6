"""Images as users have them: rotated, transparent, grey, 16-bit, CMYK, animated, with a palette or broken EXIF data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops


def write_odd_images(folder: Path) -> Iterator[Path]:
    """Write the images below `folder`, all from the same coarse noise of 48x32 pixels, and yield their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    noise = coarse.resize((48, 32), Image.Resampling.NEAREST)
    alpha = np.zeros((32, 48), np.uint8)
    alpha[:, 16:32], alpha[8:16] = 255, 100

    def save(image: Image.Image, name: str, **options: Any) -> Path:
        image.save(folder / name, **options)
        return folder / name

    def turned(orientation: int) -> Image.Exif:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return exif

    yield save(noise, "plain.png")
    for orientation in range(2, 9):
        yield save(noise, f"turned-{orientation}.jpg", exif=turned(orientation), quality=95)
    for name in ("turned.png", "turned.webp", "turned.tif"):
        yield save(noise, name, exif=turned(6))
    large = coarse.resize((480, 320), Image.Resampling.BICUBIC)
    yield save(large, "large.jpg", exif=turned(8), quality=95)
    yield save(noise, "broken-exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")

    transparent = noise.copy()
    transparent.putalpha(Image.fromarray(alpha))
    yield save(transparent, "transparent.png")
    yield save(transparent, "transparent.webp", lossless=True)
    yield save(transparent.convert("LA"), "grey-transparent.png")
    yield save(noise.convert("P"), "palette.png")
    yield save(noise.convert("P"), "palette-transparent.png", transparency=noise.convert("P").getpixel((24, 16)))
    yield save(noise.convert("L"), "grey.png")
    yield save(noise.convert("1"), "black-and-white.png")

    grey16 = Image.fromarray(np.asarray(noise.convert("L")).astype(np.uint16) * 257)
    for name in ("grey16.png", "grey16.tif"):
        yield save(grey16, name)
    (folder / "grey16.pgm").write_bytes(b"P5 48 32 65535\n" + np.asarray(grey16).astype(">u2").tobytes())
    yield folder / "grey16.pgm"

    cmyk = noise.convert("CMYK")
    yield save(cmyk, "cmyk.tif")
    content = save(cmyk, "cmyk-adobe.jpg", quality=95).read_bytes()
    yield folder / "cmyk-adobe.jpg"
    content = save(ImageChops.invert(cmyk), "cmyk.jpg", quality=95).read_bytes()  # Pillow inverts what it writes
    start = content.index(b"\xff\xee")  # Adobe's marker; its length follows
    end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    (folder / "cmyk.jpg").write_bytes(content[:start] + content[end:])
    yield folder / "cmyk.jpg"

    for name in ("moving.gif", "moving.webp", "moving.png", "pages.tif"):
        yield save(noise, name, save_all=True, append_images=[noise.rotate(180)], duration=100)

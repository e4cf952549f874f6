"""Decode an image file, turn it upright, and make it a square of a given size."""

from __future__ import annotations

import contextlib
import io
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, ImageOps, UnidentifiedImageError
from torch.nn import functional as F

from emoreg.config.normalisation import MEAN
from emoreg.config.schema import Fit
from emoreg.data.images.files import IMAGE_FORMATS, File
from emoreg.data.images.table import Item
from emoreg.errors import UserError, printable
from emoreg.runtime.quiet_libraries import hush

MAX_PIXELS = 89_478_485  # per image: Pillow's own guard against decompression bombs, above most cameras
EMPTY = "it is empty (0 bytes)"
# JPEG files are decoded at no less than this multiple of the required size; the resizing filter does the rest.
# Pillow's thumbnail() uses 2 for the same reason (its reducing_gap).
DRAFT_GAP = 2
GREY = tuple(round(255 * mean) for mean in MEAN)  # colour of padding: about 0 after normalisation
# A file, an item of a library's data set, the content of a file, or an image that the caller has opened with Pillow.
Encoded = File | Item | bytes | Image.Image
_reading = threading.Lock()  # threads share the file position of a caller's image


class ImageError(UserError):
    """An image that cannot be decoded.

    Args:
        image: path or description of the image.
        reason: what is wrong with it, without the path.
    """

    def __init__(self, image: object, reason: str) -> None:
        self.image, self.reason = str(image), reason
        super().__init__(f"cannot decode {image}: {reason}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.image, self.reason)


def decode(image: Encoded | NDArray[np.uint8], image_size: int, fit: Fit = "crop") -> NDArray[np.uint8]:
    """Decode an image to uint8 (S, S, 3): `upright`, then `square`.

    Args:
        image: the image to decode, or pixels (H, W, 3).
        image_size: S.
        fit: see `square`.

    Raises:
        UserError: see `upright`.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (image_size, image_size):
            return image
        return square(Image.fromarray(image), image_size, fit)
    return square(upright(image, at_least=image_size), image_size, fit)


def upright(image: Encoded, content: bytes | None = None, at_least: int | None = None) -> Image.Image:
    """Decode the whole image, converted by `as_rgb`; of an animation, decode the first frame.

    A Pillow image is left unchanged, and gives the same pixels as its file. The exception is a JPEG file whose pixels
    Pillow has already loaded: `at_least` then has no effect, and values differ by rounding.

    Args:
        image: the image to decode.
        content: content of the file, if it has already been read.
        at_least: a size in pixels that is sufficient for both sides. JPEG files of at least four times that size are
            then decoded at 1/2, 1/4 or 1/8, which is several times faster.

    Raises:
        UserError: the image cannot be decoded, has more than MAX_PIXELS pixels, or has pixels that are not colours.
    """
    # Pillow warns about broken EXIF, too many pixels, palettes with transparency, ... What matters raises an error that
    # names the image; the rest concerns metadata that training does not use.
    hush(module=r"PIL\.|emoreg\.data\.images\.decode$")
    try:
        with _open(image, content) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                reason = f"it has {opened.width}x{opened.height} pixels; the limit is {MAX_PIXELS:,}"
                raise ImageError(describe(image), reason)
            if at_least is not None:
                opened.draft(None, (DRAFT_GAP * at_least, DRAFT_GAP * at_least))
            opened.load()
            return as_rgb(opened)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise ImageError(describe(image), "not an image in a known format") from None
    except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
        raise ImageError(describe(image), printable(str(error)) or type(error).__name__) from None


def describe(image: Encoded) -> str:
    """Name an image in a message: by its path, or by its size if it has none."""
    if isinstance(image, bytes):
        return f"an image of {len(image):,} bytes"
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or f"an image of {image.width}x{image.height}, mode {image.mode}"
    return str(image)


def _open(image: Encoded, content: bytes | None) -> Image.Image:
    """Open an image for this call only, without decoding it if possible."""
    if isinstance(image, Item):
        return image.fetch(image.index)
    if isinstance(image, Image.Image):
        with _reading:
            content = _unread(image)
            if content is None:
                copy = image.copy()
                copy.format = image.format
                return copy
    elif isinstance(image, bytes):
        content = image
    elif content is None:
        content = image.read()
    if not content:
        raise ImageError(describe(image), EMPTY)
    return Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)  # not EPS, which starts Ghostscript


def _unread(image: Image.Image) -> bytes | None:
    """Content of the file of an image at its first frame whose pixels are not loaded yet; None for other images."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None or image.tell():
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    try:
        return image.fp.read()
    finally:
        image.fp.seek(position)


# Cards of exported models contain the source of this function, so it must need nothing but NumPy, Pillow and the
# imports that `emoreg.inference.export.preparation` writes above it.
def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as a person sees it; ValueError for pixels that are not colours.

    - It is rotated according to its EXIF orientation.
    - 16-bit grey is scaled to 8 bits by taking the high byte, as Pillow scales 16-bit RGB, and never clipped.
    - CMYK is converted by Pillow's plain formula; Adobe's inverted values are recognised by their marker. Colour
      profiles are not applied.
    - Transparent parts are put on white, as on a page (ours): the people who rated the image never saw the colour that
      the file stores there.
    """
    file_format, is_adobe = image.format, "adobe" in image.info
    with contextlib.suppress(Exception):  # with broken EXIF the picture itself may be intact
        if image.getexif().get(0x0112, 1) in range(2, 9):
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, whose range is not known; save it with 8 or 16 bits")
    elif image.mode == "CMYK" and file_format == "JPEG" and not is_adobe:
        image = ImageChops.invert(image)  # Pillow assumes Adobe's inverted values
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image if image.mode == "RGB" else image.convert("RGB")


def square(image: Image.Image, image_size: int, fit: Fit = "crop") -> NDArray[np.uint8]:
    """Make an image square, uint8 (S, S, 3), resized by bicubic interpolation with antialiasing.

    Args:
        image: image in RGB.
        image_size: S.
        fit: "crop" takes the central square and resizes it to S; "pad" keeps the whole image, resizes its longer side
            to S, and centres it on the mean colour.
    """
    if image.size == (image_size, image_size):
        return np.asarray(image)
    if fit == "crop" or image.width == image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return _resize(np.asarray(image)[top : top + side, left : left + side], image_size, image_size)
    width, height = (max(1, round(side * image_size / max(image.size))) for side in image.size)
    left, top = (image_size - width) // 2, (image_size - height) // 2
    padded = np.full((image_size, image_size, 3), GREY, np.uint8)
    padded[top : top + height, left : left + width] = _resize(np.asarray(image), height, width)
    return padded


def _resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize pixels (H, W, 3): as Pillow's bicubic filter except for rounding and edges, but several times faster."""
    # Copied because PyTorch needs a writable array. Of the ways to get pixels out of Pillow this is the fastest.
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()

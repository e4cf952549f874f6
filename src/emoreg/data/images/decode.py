"""One image file to pixels: decoded, turned upright, resized and cropped to a square."""

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

MAX_PIXELS = 89_478_485  # of one image: Pillow's own guard against decompression bombs, above most cameras
EMPTY = "it is empty (0 bytes)"
# JPEG files are decoded at no less than this multiple of the wanted size; the resizing filter does the rest. Pillow's
# thumbnail() uses 2 for the same reason (its reducing_gap).
DRAFT_GAP = 2
GREY = tuple(round(255 * mean) for mean in MEAN)  # of bars beside an image: about 0 for the network
# A file, an image of a library's set, the content of a file, or one that the caller has opened with Pillow.
Encoded = File | Item | bytes | Image.Image
_reading = threading.Lock()  # a caller's image has one file position for all threads


class ImageError(UserError):
    """An image that cannot be decoded.

    Args:
        image: its path or description.
        reason: what is wrong with it, without the path. Kept as a field.
    """

    def __init__(self, image: object, reason: str) -> None:
        self.image, self.reason = str(image), reason
        super().__init__(f"cannot decode {image}: {reason}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.image, self.reason)


def decode(image: Encoded | NDArray[np.uint8], image_size: int, fit: Fit = "crop") -> NDArray[np.uint8]:
    """One image as uint8 (S, S, 3): `upright`, then `square`.

    Args:
        image: the image to decode; an array is one of pixels, (H, W, 3).
        image_size: S.
        fit: see `square`.

    Raises:
        UserError: as `upright`.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (image_size, image_size):
            return image
        return square(Image.fromarray(image), image_size, fit)
    return square(upright(image, at_least=image_size), image_size, fit)


def upright(image: Encoded, content: bytes | None = None, at_least: int | None = None) -> Image.Image:
    """The whole image, as `as_rgb` makes it; of an animation the first frame.

    An image of Pillow's stays as it is, and gives what its file gives. Only for a JPEG file whose pixels Pillow has
    loaded already, `at_least` comes too late: the whole file was decoded, and its values differ by rounding.

    Args:
        image: the image to decode.
        content: content of the file, if it has been read already.
        at_least: a size in pixels that is enough for both sides. JPEG files of more than twice that size are
            then decoded at 1/2, 1/4 or 1/8, which is several times faster.

    Raises:
        UserError: it cannot be decoded, has more than MAX_PIXELS pixels, or pixels that are not colours.
    """
    _hush_pillow()
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
    except Exception as error:  # on broken bytes Pillow's readers raise nearly anything
        raise ImageError(describe(image), printable(str(error)) or type(error).__name__) from None


def _hush_pillow() -> None:
    """Ignore what Pillow warns of while it reads: EXIF that is broken, too many pixels, palettes with transparency, ...

    What matters of it is an error of ours, with the image's name. The rest is about metadata that no training uses.
    """
    hush(module=r"PIL\.|emoreg\.data\.images\.decode$")


def describe(image: Encoded) -> str:
    """An image in a message: its path, or what is known of one that has none."""
    if isinstance(image, bytes):
        return f"an image of {len(image):,} bytes"
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or f"an image of {image.width}x{image.height}, mode {image.mode}"
    return str(image)


def _open(image: Encoded, content: bytes | None) -> Image.Image:
    """The image, opened for this call alone and not yet decoded where that can be."""
    if isinstance(image, Item):
        return image.fetch(image.index)
    if isinstance(image, Image.Image):
        with _reading:
            content = _unread(image)
            if content is None:
                own = image.copy()
                own.format = image.format
                return own
    elif isinstance(image, bytes):
        content = image
    elif content is None:
        content = image.read()
    if not content:
        raise ImageError(describe(image), EMPTY)
    return Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)  # EPS would start Ghostscript


def _unread(image: Image.Image) -> bytes | None:
    """The file of an image whose pixels have not been loaded, at its first frame; None for any other."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None or image.tell():
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    try:
        return image.fp.read()
    finally:
        image.fp.seek(position)


# The source of this function stands on the cards of exported models too: it needs only NumPy and Pillow, and the
# imports that `emoreg.inference.export.preparation` writes above it.
def as_rgb(image: Image.Image) -> Image.Image:
    """The whole image in RGB, itself or new, as a person sees it; ValueError for pixels that are not colours.

    - Turned as its EXIF orientation says.
    - 16-bit grey is scaled to 8 bits by its high byte, as Pillow scales 16-bit RGB, and never clipped.
    - CMYK is converted by Pillow's plain formula, with Adobe's inverted values recognised by their marker. Colour
      profiles are not applied.
    - Transparent parts are laid over white, as on a page (ours): those who rated the image never saw the colour
      that the file stores there.
    """
    kind, is_adobe = image.format, "adobe" in image.info
    with contextlib.suppress(Exception):  # broken EXIF tells nothing, and the picture may be whole
        if image.getexif().get(0x0112, 1) in range(2, 9):
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, whose range is not known; save it with 8 or 16 bits")
    elif image.mode == "CMYK" and kind == "JPEG" and not is_adobe:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image if image.mode == "RGB" else image.convert("RGB")


def square(image: Image.Image, image_size: int, fit: Fit = "crop") -> NDArray[np.uint8]:
    """A square image as uint8 (S, S, 3), resized by bicubic interpolation with antialiasing.

    Args:
        image: in RGB.
        image_size: S.
        fit: "crop" for the middle square, its side resized to S; "pad" for all of the image, its longer side resized to
            S, in the middle of the mean colour.
    """
    if image.size == (image_size, image_size):
        return np.asarray(image)
    if fit == "pad" and image.width != image.height:
        return _padded(image, image_size)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Of Pillow's ways to give its pixels away this is the quickest; PyTorch wants an array that may be written to.
    middle = torch.from_numpy(np.asarray(image)[top : top + side, left : left + side].copy())
    # Pillow's own filter but for rounding and edges, several times faster.
    resized = F.interpolate(middle.permute(2, 0, 1)[None], (image_size,) * 2, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _padded(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    longer = max(image.size)
    width, height = (max(1, round(side * image_size / longer)) for side in image.size)
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(whole, (height, width), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    page = np.full((image_size, image_size, 3), GREY, np.uint8)
    top, left = (image_size - height) // 2, (image_size - width) // 2
    page[top : top + height, left : left + width] = resized
    return page

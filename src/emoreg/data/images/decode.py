"""One image file to pixels: decoded, turned upright, resized and cropped to a square."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError
from torch.nn import functional as F

from emoreg.data.images.files import IMAGE_FORMATS, File
from emoreg.data.images.table import Item
from emoreg.errors import UserError, printable

MAX_PIXELS = 89_478_485  # of one image: Pillow's own guard against decompression bombs, above most cameras
# JPEG files are decoded at no less than this multiple of the wanted size; the resizing filter does the rest. Pillow's
# thumbnail() uses 2 for the same reason (its reducing_gap).
DRAFT_GAP = 2


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


def decode(image: File | Item | NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """One image as uint8 (S, S, 3): `upright`, its shorter side resized to S, its middle square.

    Raises:
        UserError: as `upright`.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (image_size, image_size):
            return image
        return square(Image.fromarray(image), image_size)
    return square(upright(image, at_least=image_size), image_size)


def upright(image: File | Item, content: bytes | None = None, at_least: int | None = None) -> Image.Image:
    """The whole image, in RGB, as a person sees it.

    - Turned as its EXIF orientation says; of an animation the first frame.
    - 16-bit grey is scaled to 8 bits by its high byte, as Pillow scales 16-bit RGB, and never clipped.
    - Transparent parts are laid over white, as on a page (ours): those who rated the image never saw the colour
      that the file stores there.
    - CMYK is converted by Pillow's plain formula, with Adobe's inverted values recognised by their marker. Colour
      profiles are not applied.

    Args:
        image: the image to decode.
        content: content of the file, if it has been read already.
        at_least: a size in pixels that is enough for both sides. JPEG files of more than twice that size are
            then decoded at 1/2, 1/4 or 1/8, which is several times faster.

    Raises:
        UserError: it cannot be decoded, has more than MAX_PIXELS pixels, or pixels that are not colours.
    """
    try:
        if isinstance(image, Item):
            opened = image.fetch(image.index)
        else:
            content = image.read() if content is None else content
            if not content:
                raise ImageError(image, "it is empty (0 bytes)")
            opened = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)  # EPS would start Ghostscript
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ImageError(image, f"it has {opened.width}x{opened.height} pixels; the limit is {MAX_PIXELS:,}")
            if at_least is not None:
                opened.draft(None, (DRAFT_GAP * at_least, DRAFT_GAP * at_least))
            opened.load()
            return _rgb(_turned(opened), opened)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise ImageError(image, "not an image in a known format") from None
    except Exception as error:  # on broken bytes Pillow's readers raise nearly anything
        raise ImageError(image, printable(str(error)) or type(error).__name__) from None


def _turned(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    except Exception:  # broken EXIF tells nothing, and the picture may be whole
        return image


def _rgb(image: Image.Image, source: Image.Image) -> Image.Image:
    """`image` in RGB; `source` is the opened file, which knows its format. ValueError for pixels without colours."""
    if image.mode.startswith("I;16") or (image.mode == "I" and source.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, whose range is not known; save it with 8 or 16 bits")
    elif image.mode == "CMYK" and source.format == "JPEG" and "adobe" not in source.info:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image.convert("RGB")


def square(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """The middle square as uint8 (S, S, 3), its side resized to S by bicubic interpolation with antialiasing."""
    if image.size == (image_size, image_size):
        return np.asarray(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side))))
    # Pillow's own filter but for rounding and edges, several times faster.
    resized = F.interpolate(middle.permute(2, 0, 1)[None], (image_size,) * 2, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()

"""The code on the cards that prepares an image without emoreg, as a run prepares it: Pillow and NumPy are enough."""

from __future__ import annotations

import inspect
import re

from emoreg.config.normalisation import MEAN, STD
from emoreg.config.schema import Fit
from emoreg.data.images.decode import DRAFT_GAP, GREY, as_rgb

IMPORTS = """\
import contextlib

import numpy as np
{imports}
from PIL import Image, ImageChops, ImageOps


"""
PREPARE = """\


image, size = Image.open("photo.jpg"), {size}
image.draft(None, ({gap} * size, {gap} * size))  # as in training, large JPEG files are decoded at a fraction
image.load()
image = as_rgb(image)
{square}
pixels = ((np.asarray(image) / 255 - {mean}) / {std}).astype(np.float32).transpose(2, 0, 1)[None]

"""
SQUARE = {
    "crop": """\
left, top = (image.width - min(image.size)) // 2, (image.height - min(image.size)) // 2
image = image.crop((left, top, left + min(image.size), top + min(image.size)))
image = image.resize((size, size), Image.Resampling.BICUBIC)""",
    "pad": """\
width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
page = Image.new("RGB", (size, size), {grey})
page.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2))
image = page""",
}
# The same in words.
INPUT = (
    "RGB, turned as EXIF says, of an animation the first frame, transparent parts over white, 16-bit values by their "
    "high byte;\n"
)
IN_WORDS = {
    "crop": "shorter side resized to {size} pixels (bicubic), centre crop",
    "pad": "longer side resized to {size} pixels (bicubic), in the middle of a square of the colour {grey}",
}


def in_words(size: int, fit: Fit) -> str:
    """What `preparation` does but for the normalisation, for people."""
    return INPUT + IN_WORDS[fit].format(size=size, grey=GREY)


def preparation(size: int, imports: str, fit: Fit = "crop") -> str:
    """Python that makes `pixels`, float32 (1, 3, S, S), from photo.jpg.

    `as_rgb` is the function that decodes images for training, in its own words; Pillow resizes as `square` does, but
    for the rounding of single values.

    Args:
        size: S.
        imports: the line that imports what runs the network.
        fit: how the run makes images square.
    """
    function = re.sub(r' *"""(.*?)\n\n.*?"""', r'    """\1"""', inspect.getsource(as_rgb), count=1, flags=re.DOTALL)
    prepare = PREPARE.format(square=SQUARE[fit].format(grey=GREY), size=size, gap=DRAFT_GAP, mean=MEAN, std=STD)
    return IMPORTS.format(imports=imports) + function.strip() + "\n" + prepare

"""Write the code on model cards that prepares an image as in training, with Pillow and NumPy but without emoreg."""

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
    "RGB, rotated as EXIF says, first frame of an animation, transparent parts on white, 16-bit values reduced to "
    "their high byte;\n"
)
IN_WORDS = {
    "crop": "shorter side resized to {size} pixels (bicubic), centre crop",
    "pad": "longer side resized to {size} pixels (bicubic), centred on a square of the colour {grey}",
}


def in_words(size: int, fit: Fit) -> str:
    """Describe what the code from `preparation` does, except for the normalisation."""
    return INPUT + IN_WORDS[fit].format(size=size, grey=GREY)


def preparation(size: int, imports: str, fit: Fit = "crop") -> str:
    """Write Python code that makes `pixels`, float32 (1, 3, S, S), from photo.jpg.

    It contains the source of `as_rgb`, which decodes images for training. Pillow resizes as `square` does, except for
    the rounding of single values.

    Args:
        size: S, side of the input in pixels.
        imports: import statement for the library that runs the network.
        fit: how the run makes images square.
    """
    function = re.sub(r' *"""(.*?)\n\n.*?"""', r'    """\1"""', inspect.getsource(as_rgb), count=1, flags=re.DOTALL)
    prepare = PREPARE.format(square=SQUARE[fit].format(grey=GREY), size=size, gap=DRAFT_GAP, mean=MEAN, std=STD)
    return IMPORTS.format(imports=imports) + function.strip() + "\n" + prepare

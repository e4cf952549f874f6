"""ArtPhoto (Machajdik & Hanbury 2010, "Affective image classification using features inspired by psychology and
art theory", ACM Multimedia).

806 artistic photographs from an art-sharing site, each with the one of Mikels' eight categories that its artist meant
to evoke. Published files: `<emotion>_NNNN.jpg`, with the category in the file name.
"""

from __future__ import annotations

import re

from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace, emotion_index
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError

ABOUT = About(
    title="ArtPhoto (Machajdik & Hanbury 2010)",
    size="806",
    labels="8 Mikels categories, in the file names",
    licence="for research; the photographs belong to their artists",
    source="imageemotion.org",
    layout="<emotion>_NNNN.jpg",
)
PUBLISHED = Published(
    images=806,
    source="Machajdik & Hanbury 2010",
    emotions=dict(zip(MIKELS_8, (101, 77, 102, 70, 70, 105, 115, 166), strict=True)),
)
NAME = re.compile(r"(?:.*/)?([^/_]+)_[^/]+")


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the photographs with one category each. Arguments: see `SetReader`.

    Raises:
        UserError: there are no images, a file name has no known emotion, or two files have the same name.
    """
    reader = SetReader("artphoto", root, skip_missing)
    places: dict[str, str] = {}
    for image in reader.image_files:
        place, name = str(image), image.name.rsplit("/", 1)[-1]
        match = NAME.fullmatch(image.name)
        if match is None:
            raise UserError(f"{place}: its name has no emotion; images of ArtPhoto are named <emotion>_NNNN.jpg")
        if name in places:
            raise UserError(f"{place} has the same name as {places[name]}; remove one")
        places[name] = place
        reader.add(place, name, image, emotion_index(match[1], MIKELS_8, place))
    return reader.stimuli(EmotionSpace("category", MIKELS_8))

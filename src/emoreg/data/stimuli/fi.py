"""FI, Flickr and Instagram (You et al. 2016, "Building a Large Scale Dataset for Image Emotion Recognition: The
Fine Print and The Benchmark", AAAI).

About 23,000 photographs, one of eight Mikels categories each, which at least three of five people confirmed.
Read as published: `<emotion>/*.jpg`, in whichever folder; also below `train`, `val` and `test`, as many keep it.
"""

from __future__ import annotations

from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace, emotion_index, standard
from emoreg.data.stimuli.emotion_folder import folders_of, refuse_empty_folders
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError

ABOUT = About(
    title="FI (You et al. 2016)",
    size="about 23,000",
    labels="8 Mikels categories",
    licence="for research, on request to its authors; the photographs belong to their owners",
    source="its first author, Quanzeng You",
    layout="[<split>/]<emotion>/*.jpg",
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Photographs with a category each, and their split where they lie in splits.

    Args:
        root: folder or zip that holds the eight folders; images elsewhere are left alone.
        skip_missing: ignored: nothing lists the images that should be there.

    Raises:
        UserError: one of the eight emotions, or a split, has no images.
    """
    reader = SetReader("fi", root, skip_missing)
    found = set()
    for image, folder, split in folders_of(reader):
        if standard(folder) in MIKELS_8:
            label = emotion_index(folder, MIKELS_8, str(image))
            reader.add(str(image), image.name, image, label, split=split)
            found.add(MIKELS_8[label])
    for name in MIKELS_8:
        if name not in found:
            raise UserError(f"{root} holds no images of '{name}' ({name}/*.jpg); FI has all of {', '.join(MIKELS_8)}")
    refuse_empty_folders(reader, MIKELS_8)
    return reader.stimuli(EmotionSpace("category", MIKELS_8))

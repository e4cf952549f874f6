"""FI, Flickr and Instagram (You et al. 2016, "Building a Large Scale Dataset for Image Emotion Recognition: The
Fine Print and The Benchmark", AAAI).

About 23,000 photographs, one of eight Mikels categories each, which at least three of five people confirmed.
Read as published: `<emotion>/*.jpg`, in whichever folder; also below `train`, `val` and `test`, as many keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from emoreg.data.images.files import File, list_folders
from emoreg.data.images.layout import split_name
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace, emotion_index, standard
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Split, Stimuli
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
    for image, folder, split in _folders_of(reader):
        if standard(folder) in MIKELS_8:
            label = emotion_index(folder, MIKELS_8, str(image))
            reader.add(str(image), image.name, image, label, split=split)
            found.add(MIKELS_8[label])
    for name in MIKELS_8:
        if name not in found:
            raise UserError(f"{root} holds no images of '{name}' ({name}/*.jpg); FI has all of {', '.join(MIKELS_8)}")
    _refuse_empty_folders(reader)
    return reader.stimuli(EmotionSpace("category", MIKELS_8))


def _folders_of(reader: SetReader) -> Iterator[tuple[File, str, Split | None]]:
    """Each image in a folder, the folder's name, and the split that the folder above names.

    Raises:
        UserError: there are none, or one is in a split but in no emotion's folder.
    """
    images = [image for image in reader.image_files if "/" in image.name]
    if not images:
        raise UserError(f"{reader.root} holds no images as [<split>/]<emotion>/*.jpg|png")
    for image in images:
        *above, folder, _ = image.name.split("/")
        if split_name(folder) is not None:
            raise UserError(f"{image} is in a split, but in no folder that names its emotion")
        split = split_name(above[-1]) if above else None
        yield image, folder, split and split[0]


def _refuse_empty_folders(reader: SetReader) -> None:
    """UserError for an empty folder next to those of the emotions, or a split without images."""
    with_images = {folder for image in reader.image_files for folder in PurePosixPath(image.name).parents}
    emotions = {PurePosixPath(image.name).parent for image in reader.image_files if "/" in image.name}
    above = {folder.parent for folder in emotions}
    above_splits = {folder.parent for folder in above if split_name(folder.name) is not None}
    for folder in sorted(list_folders(reader.root) - with_images):
        is_split = folder.parent in above_splits and split_name(folder.name) is not None
        is_emotion = folder.parent in above and standard(folder.name) in MIKELS_8
        if is_split or is_emotion:
            raise UserError(f"{File(str(folder), Path(reader.root))} holds no images; put some there, or remove it")

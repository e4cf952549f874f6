"""FI, Flickr and Instagram (You et al. 2016, "Building a Large Scale Dataset for Image Emotion Recognition: The
Fine Print and The Benchmark", AAAI).

23,308 photographs, each with one of Mikels' eight categories, confirmed by at least three of five people. Published
files: `<emotion>/*.jpg`, here at any depth, and also below `train`, `val` and `test`, as many copies have them.
Placeholders, which a site served instead of deleted photographs, are left out (placeholders.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from emoreg.data.images.files import File, list_folders
from emoreg.data.images.layout import split_name
from emoreg.data.images.names import Split
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace, emotion_index, standard
from emoreg.data.stimuli.placeholders import find_placeholders
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError

ABOUT = About(
    title="FI (You et al. 2016)",
    size="23,308",
    labels="8 Mikels categories",
    licence="for research, on request to its authors; the photographs belong to their owners",
    source="its first author, Quanzeng You",
    layout="[<split>/]<emotion>/*.jpg",
)
PUBLISHED = Published(
    images=23_308,
    source="You et al. 2016",
    emotions=dict(zip(MIKELS_8, (4_942, 1_266, 3_151, 5_374, 1_658, 2_963, 1_032, 2_922), strict=True)),
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the photographs with one category each, and with their splits if the folders have any.

    Arguments: see `SetReader`. Images that are in no emotion's folder are left out.

    Raises:
        UserError: one of the eight emotions, or a split, has no images.
    """
    reader = SetReader("fi", root, skip_missing)
    rows = [row for row in _images_in_folders(reader) if standard(row[1]) in MIKELS_8]
    labels = [emotion_index(folder, MIKELS_8, str(image)) for image, folder, _ in rows]
    images = [image for image, _, _ in rows]
    placeholders = find_placeholders(images, labels)
    dropped = {row for group in placeholders for row in group}
    kept = [row for row in range(len(rows)) if row not in dropped]
    emotions = {labels[row] for row in kept}
    for label, name in enumerate(MIKELS_8):
        if label not in emotions:
            raise UserError(f"{root} holds no images of '{name}' ({name}/*.jpg); FI has all of {', '.join(MIKELS_8)}")
    _refuse_empty_folders(reader)
    for row in kept:
        image, _, split = rows[row]
        reader.add(str(image), image.name, image, labels[row], split=split)
    left_out = list(_left_out(reader, images, labels, placeholders))
    return reader.stimuli(EmotionSpace("category", MIKELS_8), left_out=left_out)


def _left_out(
    reader: SetReader, images: Sequence[File], labels: Sequence[int], placeholders: Sequence[Sequence[int]]
) -> Iterator[str]:
    """One line for the images in no emotion's folder, and one for each placeholder."""
    used = set(images)
    elsewhere = [image for image in reader.image_files if image not in used]
    if elsewhere:
        yield f"fi: left out {len(elsewhere):,} images that are in no emotion's folder, e.g. '{elsewhere[0].name}'"
    for rows in placeholders:
        emotions = len({labels[row] for row in rows})
        yield (
            f"fi: left out {len(rows):,} copies of one picture, with {emotions} different emotions, e.g. "
            f"'{images[rows[0]].name}': a placeholder for deleted photographs"
        )


def _images_in_folders(reader: SetReader) -> Iterator[tuple[File, str, Split | None]]:
    """Each image that is in a folder, the folder's name, and the split that its parent folder names.

    Raises:
        UserError: there are no such images, or one is in a split but in no emotion's folder.
    """
    images = [image for image in reader.image_files if "/" in image.name]
    if not images:
        raise UserError(f"{reader.root} holds no images as [<split>/]<emotion>/*.jpg|png")
    for image in images:
        *above, folder, _ = image.name.split("/")
        if split_name(folder) is not None:
            raise UserError(f"{image} is in a split, but in no folder that names its emotion")
        split = split_name(above[-1]) if above else None
        yield image, folder, None if split is None else split[0]


def _refuse_empty_folders(reader: SetReader) -> None:
    """Raise UserError for an emotion's folder or a split that holds no images."""
    with_images = {folder for image in reader.image_files for folder in PurePosixPath(image.name).parents}
    emotions = {PurePosixPath(image.name).parent for image in reader.image_files if "/" in image.name}
    above = {folder.parent for folder in emotions}
    above_splits = {folder.parent for folder in above if split_name(folder.name) is not None}
    for folder in sorted(list_folders(reader.root) - with_images):
        is_split = folder.parent in above_splits and split_name(folder.name) is not None
        is_emotion = folder.parent in above and standard(folder.name) in MIKELS_8
        if is_split or is_emotion:
            raise UserError(f"{File(str(folder), Path(reader.root))} holds no images; put some there, or remove it")

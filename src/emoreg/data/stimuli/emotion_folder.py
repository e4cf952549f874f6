"""Any images in a folder per emotion: `[<split>/]<emotion>/*.jpg|png`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from emoreg.data.images.files import File
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import EmotionSpace, emotion_index, emotion_names, standard
from emoreg.data.stimuli.set_reader import SPLITS, SetReader
from emoreg.data.stimuli.stimulus_set import Split, Stimuli
from emoreg.errors import UserError

ABOUT = About(
    title="Your images, a folder per emotion",
    size="any",
    labels="the folders' names: Mikels, Ekman, polarity, or your own",
    licence="yours to know",
    source="your own",
    layout="[<split>/]<emotion>/*.jpg|png",
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Images with the emotion that their folder names.

    The space is Mikels-8, Ekman-6 (with neutral or without) or polarity, the first that knows all folders; or
    else the folders' names, sorted.

    Args:
        root: folder or zip that holds the folders.
        skip_missing: ignored: nothing lists the images that should be there.

    Raises:
        UserError: no such images, an empty folder among those of the emotions, a folder whose name is nearly an
            emotion's, an image outside the splits of the others.
    """
    reader = SetReader("emotion_folder", root, skip_missing)
    found = list(folders_of(reader))
    first = found[0][0]
    for image, _, _ in found:
        if image.name.count("/") != first.name.count("/"):
            raise UserError(f"{image} is at another depth than {first.name}; all must be [<split>/]<emotion>/*.jpg")
    names = emotion_names({folder: str(image) for image, folder, _ in reversed(found)})
    for image, folder, split in found:
        reader.add(str(image), image.name, image, emotion_index(folder, names, str(image)), split=split)
    refuse_empty_folders(reader)
    return reader.stimuli(EmotionSpace("category", names))


def folders_of(reader: SetReader) -> Iterator[tuple[File, str, Split | None]]:
    """Each image in a folder, the folder's name, and the split that the folder above names.

    Raises:
        UserError: there are none, or one is in a split but in no emotion's folder.
    """
    images = [image for image in reader.image_files if "/" in image.name]
    if not images:
        raise UserError(f"{reader.root} holds no images as [<split>/]<emotion>/*.jpg|png")
    for image in images:
        *above, folder, _ = image.name.split("/")
        if folder.lower() in SPLITS:
            raise UserError(f"{image} is in a split, but in no folder that names its emotion")
        yield image, folder, SPLITS.get(above[-1].lower()) if above else None


def refuse_empty_folders(reader: SetReader, names: Collection[str] | None = None) -> None:
    """UserError for an empty folder next to those of the emotions, or a split without images.

    Args:
        reader: reader of the set.
        names: the emotions; None if any folder may be one.
    """
    with_images = {folder for image in reader.image_files for folder in PurePosixPath(image.name).parents}
    emotions = {PurePosixPath(image.name).parent for image in reader.image_files if "/" in image.name}
    above = {folder.parent for folder in emotions}
    above_splits = {folder.parent for folder in above if folder.name.lower() in SPLITS}
    for folder in sorted(_folders(Path(reader.root)) - with_images):
        is_split = folder.parent in above_splits and folder.name.lower() in SPLITS
        is_emotion = folder.parent in above and (names is None or standard(folder.name) in names)
        if is_split or is_emotion:
            raise UserError(f"{File(str(folder), Path(reader.root))} holds no images; put some there, or remove it")


def _folders(root: Path) -> set[PurePosixPath]:
    """All folders below `root` that are not hidden."""
    if root.is_dir():
        names = {Path(above, name).relative_to(root).as_posix() for above, below, _ in os.walk(root) for name in below}
    else:
        with zipfile.ZipFile(root) as archive:
            names = {info.filename for info in archive.infolist() if info.is_dir()}
    folders = {PurePosixPath(name) for name in names}
    return {folder for folder in folders if not any(part.startswith((".", "__MACOSX")) for part in folder.parts)}

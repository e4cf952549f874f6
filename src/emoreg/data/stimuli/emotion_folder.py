"""Any images in a folder per emotion: `[<split>/]<emotion>/*.jpg|png` (`images.layout`)."""

from __future__ import annotations

import dataclasses

from emoreg.data.images.layout import Part, find_layout
from emoreg.data.images.names import Split
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import EmotionSpace, emotion_index, emotion_names
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Stimuli

ABOUT = About(
    title="Your images, a folder per emotion",
    size="any",
    labels="the folders' names: Mikels, Ekman, polarity, or your own",
    licence="yours to know",
    source="your own",
    layout="[<split>/]<emotion>/*.jpg|png",
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Images with the emotion that their folder names, whatever lies below that folder.

    The space is Mikels-8, Ekman-6 (with neutral or without) or polarity, the first that knows all folders; or
    else the folders' names, sorted.

    Args:
        root: folder or zip that holds the folders.
        skip_missing: ignored: nothing lists the images that should be there.

    Raises:
        UserError: no such images, an empty folder among those of the emotions, a folder whose name is nearly an
            emotion's, splits that are not clear.
    """
    reader = SetReader("emotion_folder", root, skip_missing)
    layout = find_layout(reader.root)
    layout.refuse_empty_folders()
    splits: list[Split | None] = list(layout.splits) or [None]
    found = [
        (image, folder, split)
        for split, part in zip(splits, layout.parts, strict=True)
        for image, folder in zip(part.images, part.classes, strict=True)
    ]
    found.sort(key=lambda row: row[0].name)
    names = emotion_names({folder: str(image) for image, folder, _ in reversed(found)})
    for image, folder, split in found:
        reader.add(str(image), image.name, image, emotion_index(folder, names, str(image)), split=split)
    stimuli = reader.stimuli(EmotionSpace("category", names))
    parts: dict[str, Part] = {split or "": part for split, part in zip(splits, layout.parts, strict=True)}
    note = layout.describe(parts, "emotions")
    return dataclasses.replace(stimuli, notes=(*layout.notes, note), left_out=layout.left_out)

"""Any images in one folder per emotion: `[<split>/]<emotion>/*.jpg|png` (`images.layout`)."""

from __future__ import annotations

from emoreg.data.images.layout import find_layout
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
    """Read images, with the emotion that their folder names. Folders below an emotion's folder are read too.

    The space is the first of Mikels-8, Ekman-6 (without or with neutral) and polarity that contains all folder names;
    if none does, the folder names themselves, sorted. Arguments: see `SetReader`.

    Raises:
        UserError: no images, an emotion's folder without images, a folder named like a misspelt emotion, or ambiguous
            splits.
    """
    reader = SetReader("emotion_folder", root, skip_missing)
    layout = find_layout(reader.root)
    layout.refuse_empty_folders()
    rows = [
        (image, folder, split)
        for split, part in layout.parts.items()
        for image, folder in zip(part.images, part.classes, strict=True)
    ]
    rows.sort(key=lambda row: row[0].name)
    names = emotion_names({folder: str(image) for image, folder, _ in reversed(rows)})
    for image, folder, split in rows:
        reader.add(str(image), image.name, image, emotion_index(folder, names, str(image)), split=split)
    notes = [*layout.notes, layout.describe(layout.parts, "emotions")]
    return reader.stimuli(EmotionSpace("category", names), notes=notes, left_out=layout.left_out)

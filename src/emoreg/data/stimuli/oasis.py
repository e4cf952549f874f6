"""OASIS (Kurdi, Lozano & Banaji 2017, "Introducing the Open Affective Standardized Image Set").

900 photographs, rated by people for valence and arousal from 1 to 7, with a Category (Animal, Object, Person or Scene),
which is not an emotion. Published files: `OASIS.csv` (with bare carriage returns as line ends, and trailing spaces in
some themes) and `images/<Theme>.jpg`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.set_reader import SetReader, number
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.data.stimuli.tabular import read_rows

ABOUT = About(
    title="OASIS (Kurdi, Lozano & Banaji 2017)",
    size="900",
    labels="valence and arousal, 1 to 7; a neutral Category",
    licence="for research; the column Source gives each image's origin",
    source="benedekkurdi.com/#oasis",
    layout="OASIS.csv, images/<Theme>.jpg",
)
PUBLISHED = Published(images=900, source="Kurdi, Lozano & Banaji 2017")


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the photographs with valence and arousal, mapped linearly from 1..7 to [-1, 1].

    The neutral label is the Category, if the table has one for every image. Arguments: see `SetReader`.

    Raises:
        UserError: a file or column is missing, or a value is out of range; names file, row and column.
    """
    reader = SetReader("oasis", root, skip_missing)
    sheet = reader.sheet("OASIS.csv")
    columns = ("Valence_mean", "Arousal_mean")
    categories: list[str] = []
    for place, row in read_rows(sheet, ("Theme", *columns)):
        path = f"images/{row['Theme']}.jpg"
        ratings = [(number(place, column, row[column], 1, 7) - 4) / 3 for column in columns]
        image = reader.find(path, sheet)
        reader.add(place, path, image, ratings)
        if image is not None:
            categories.append(row.get("Category", ""))
    stimuli = reader.stimuli(VALENCE_AROUSAL)
    if not all(categories):
        return stimuli
    names, values = np.unique(categories, return_inverse=True)
    neutral = Labels(EmotionSpace("category", tuple(names.tolist())), values.astype(np.int64))
    return dataclasses.replace(stimuli, neutral=neutral)

"""Abstract (Machajdik & Hanbury 2010, "Affective image classification using features inspired by psychology and
art theory", ACM Multimedia).

280 abstract paintings. About 14 people per painting each voted for one of Mikels' eight categories. Published files:
`ABSTRACT_groundTruth.csv`, with file names and headers in single quotes, and `abstract_NNNN.jpg` beside it.
"""

from __future__ import annotations

from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace
from emoreg.data.stimuli.published import UNTIED, Published
from emoreg.data.stimuli.set_reader import SetReader, votes
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.data.stimuli.tabular import read_rows

ABOUT = About(
    title="Abstract (Machajdik & Hanbury 2010)",
    size="280",
    labels="votes for 8 Mikels categories",
    licence="for research; the paintings belong to their artists",
    source="imageemotion.org",
    layout="ABSTRACT_groundTruth.csv, abstract_NNNN.jpg",
)
PUBLISHED = Published(
    images=280,
    source="Machajdik & Hanbury 2010",
    emotions=dict(zip(MIKELS_8, (25, 3, 15, 63, 18, 36, 36, 32), strict=True)),
    expected={
        UNTIED: (229, "the table has one more without a tie than the paper"),
        "contentment": (64, "the table has one more than the paper"),
    },
)
COLUMNS = ("Amusement", "Anger", "Awe", "Content", "Disgust", "Excitement", "Fear", "Sad")  # in the order of MIKELS_8


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the paintings with their votes. Arguments: see `SetReader`.

    With `stimuli.labels: majority`, ties are left out: 229 of 280 paintings remain (228 according to the paper).

    Raises:
        UserError: a file or column is missing, or an image has no votes; names file, row and column.
    """
    reader = SetReader("abstract", root, skip_missing)
    sheet = reader.sheet("ABSTRACT_groundTruth.csv")
    for place, row in read_rows(sheet, ("", *COLUMNS), quote="'"):
        reader.add(place, row[""], reader.find(row[""], sheet), votes(place, row, COLUMNS))
    return reader.stimuli(EmotionSpace("votes", MIKELS_8))

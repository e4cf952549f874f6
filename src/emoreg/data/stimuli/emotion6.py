"""Emotion6 (Peng et al. 2015, "A Mixed Bag of Emotions: Model, Predict, and Transfer Emotion Distributions", CVPR).

1,980 photographs. For each, 15 people chose which of Ekman's six emotions or neutral it evoked, and rated its valence
and arousal from 1 to 9 (self-assessment manikins). Published files: `ground_truth.txt`, tab-separated with headers in
brackets, and `images/<emotion>/N.jpg`, where <emotion> is the search term by which the image was found.
"""

from __future__ import annotations

from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import EKMAN_6_NEUTRAL, VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.set_reader import SetReader, number, votes
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.data.stimuli.tabular import read_rows

ABOUT = About(
    title="Emotion6 (Peng et al. 2015)",
    size="1,980",
    labels="probabilities of Ekman's 6 and neutral; valence and arousal, 1 to 9",
    licence="for academic research; the photographs belong to their owners",
    source="chenlab.ece.cornell.edu/downloads.html",
    layout="ground_truth.txt, images/<emotion>/N.jpg",
)
PUBLISHED = Published(images=1_980, source="Peng et al. 2015")


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the photographs with their probabilities, and with ratings mapped linearly from 1..9 to [-1, 1].

    Arguments: see `SetReader`.

    Raises:
        UserError: a file or column is missing, or a value is out of range; names file, row and column.
    """
    reader = SetReader("emotion6", root, skip_missing)
    sheet = reader.sheet("ground_truth.txt")
    shares = [f"prob. {name}" for name in EKMAN_6_NEUTRAL]
    ratings = VALENCE_AROUSAL.names
    for place, row in read_rows(sheet, ("image_filename", *ratings, *shares), delimiter="\t"):
        path = f"images/{row['image_filename']}"
        dimensions = [(number(place, column, row[column], 1, 9) - 5) / 4 for column in ratings]
        reader.add(place, path, reader.find(path, sheet), votes(place, row, shares), dimensions)
    return reader.stimuli(EmotionSpace("votes", EKMAN_6_NEUTRAL), VALENCE_AROUSAL)

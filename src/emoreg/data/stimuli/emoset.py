"""EmoSet-118K (Yang et al. 2023, "EmoSet: A Large-scale Visual Emotion Dataset with Rich Attributes", ICCV).

118,102 photographs from the web, each with one of Mikels' eight categories, confirmed by people. Published files:
`info.json`, and `train.json`, `val.json` and `test.json`, each a list of rows. In the lists in circulation a row is
`[emotion, "image/<emotion>/<name>.jpg", "annotation/<emotion>/<name>.json"]`; the authors' README and reader have an id
after the emotion. Both are read. The attributes in annotation/ are ignored.
"""

from __future__ import annotations

import json

from emoreg.data.images.files import is_image
from emoreg.data.images.names import SPLITS
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace, emotion_index
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.data.stimuli.tabular import read_json
from emoreg.errors import UserError

ABOUT = About(
    title="EmoSet-118K (Yang et al. 2023)",
    size="118,102",
    labels="8 Mikels categories, published splits",
    licence="for research, on request to its authors",
    source="vcc.tech/EmoSet",
    layout="train.json, val.json, test.json, image/<emotion>/<name>.jpg (and info.json)",
)
PUBLISHED = Published(
    images=118_102,
    source="Yang et al. 2023; val.json and test.json as published, train.json by subtraction",
    splits={"train": 94_481, "validation": 5_905, "test": 17_716},
)
ROWS = {3: "[emotion, image, annotation]", 4: "[emotion, id, image, annotation]"}
EITHER = " or ".join(ROWS.values())


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the photographs with one category each, in their published splits. Arguments: see `SetReader`.

    Raises:
        UserError: a list is missing, empty or malformed, or an image is missing; names file and row.
    """
    reader = SetReader("emoset", root, skip_missing)
    _check_emotions(reader)
    lengths: set[int] = set()
    for name in ("train", "val", "test"):
        sheet = reader.sheet(f"{name}.json")
        entries = read_json(sheet)
        if not isinstance(entries, list) or not entries:
            raise UserError(f"{sheet} has no rows; it must be a list of {EITHER}")
        where = str(sheet)
        for number, entry in enumerate(entries, start=1):
            place = f"{where}, row {number}"
            emotion, path, length = _parts(place, entry)
            label = emotion_index(emotion, MIKELS_8, place)
            reader.add(place, path, reader.find(path, sheet), label, split=SPLITS[name])
            lengths.add(length)
    note = f"emoset: rows are {' and '.join(ROWS[length] for length in sorted(lengths))}; annotations are not read"
    return reader.stimuli(EmotionSpace("category", MIKELS_8), notes=[note])


def _parts(place: str, entry: object) -> tuple[str, str, int]:
    """Emotion and image path of a row, and the row's length.

    Length alone would accept other rows, so the image must have the suffix of one, and the annotation must not.
    """
    match entry:
        case [str(emotion), str(image), str(annotation)] if is_image(image) and not is_image(annotation):
            return emotion, image, 3
        case [str(emotion), str(), str(image), str(annotation)] if is_image(image) and not is_image(annotation):
            return emotion, image, 4
        case _:
            raise UserError(f"{place} must be {EITHER}, not {json.dumps(entry):.80}")


def _check_emotions(reader: SetReader) -> None:
    """Raise UserError if there is an info.json that names other emotions. The numbers of the emotions are ignored."""
    if not reader.has("info.json"):
        return
    sheet = reader.sheet("info.json")
    match read_json(sheet):
        case {"emotion": {"label2idx": dict(numbers)}} if set(numbers) == set(MIKELS_8):
            return
        case {"emotion": {"label2idx": dict(numbers)}}:
            names = ", ".join(map(str, numbers))
            raise UserError(f"{sheet}, emotion.label2idx: {names}; EmoSet-118K has {', '.join(MIKELS_8)}")
        case _:
            raise UserError(f"{sheet} has no emotion.label2idx; use the info.json that comes with EmoSet, or delete it")

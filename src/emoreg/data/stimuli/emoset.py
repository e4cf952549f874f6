"""EmoSet-118K (Yang et al. 2023, "EmoSet: A Large-scale Visual Emotion Dataset with Rich Attributes", ICCV).

118,102 photographs from the web; each of eight Mikels categories was confirmed by people. Read as published:
`train.json`, `val.json` and `test.json`, each a list of `[emotion, "image/<emotion>/<name>.jpg",
"annotation/<emotion>/<name>.json"]`, and `info.json`. The attributes in annotation/ are not read.
"""

from __future__ import annotations

import json

from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace, emotion_index
from emoreg.data.stimuli.set_reader import SPLITS, SetReader
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


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Photographs with a category each, in the splits in which they are published.

    Args:
        root: folder or zip that holds the three lists and image/.
        skip_missing: skip rows whose image is missing, instead of stopping at the first.

    Raises:
        UserError: a list is missing, empty or malformed, or an image is missing; names file and row.
    """
    reader = SetReader("emoset", root, skip_missing)
    _check_emotions(reader)
    for name in ("train", "val", "test"):
        sheet = reader.sheet(f"{name}.json")
        folder, entries = sheet.name[: -len(f"{name}.json")], read_json(sheet)
        if not isinstance(entries, list) or not entries:
            raise UserError(f"{sheet} has no rows; it must be a list of [emotion, image, annotation]")
        where = str(sheet)
        for number, entry in enumerate(entries, start=1):
            place = f"{where}, row {number}"
            match entry:
                case [str(emotion), str(path), *_]:
                    label = emotion_index(emotion, MIKELS_8, place)
                    reader.add(place, path, reader.find(folder + path), label, split=SPLITS[name])
                case _:
                    raise UserError(f"{place} must be [emotion, image, annotation], not {json.dumps(entry):.80}")
    return reader.stimuli(EmotionSpace("category", MIKELS_8))


def _check_emotions(reader: SetReader) -> None:
    """UserError if there is an info.json that names other emotions; the numbers that it gives them do not matter."""
    if not any(file.name.rsplit("/", 1)[-1] == "info.json" for file in reader.files):
        return
    sheet = reader.sheet("info.json")
    match read_json(sheet):
        case {"emotion": {"label2idx": dict(numbers)}} if set(numbers) == set(MIKELS_8):
            return
        case {"emotion": {"label2idx": dict(numbers)}}:
            names = ", ".join(map(str, numbers))
            raise UserError(f"{sheet}, emotion.label2idx: {names}; EmoSet-118K has {', '.join(MIKELS_8)}")
        case _:
            raise UserError(f"{sheet} has no emotion.label2idx; take the info.json that EmoSet comes with, or none")

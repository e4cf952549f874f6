"""The published layouts for tests: the names of a few images, and the tables that list them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.data.stimuli.emotion import MIKELS_8


@dataclass(frozen=True)
class Layout:
    """Files of a set as published.

    Args:
        sheets: text of each table, by name; the first one lists images.
        images: names of the images as in the tables, in the order in which they are read.
    """

    sheets: Mapping[str, str]
    images: tuple[str, ...]


# Bare carriage returns as line ends, none at the end of the file; the first header is empty and not quoted.
ABSTRACT = (
    ",'Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'\r"
    "'abstract_0001.jpg',1,0,7,2,0,1,0,3\r"
    "'abstract_0002.jpg',0,4,0,0,4,0,1,0\r"
    "'abstract_0003.jpg',0,0,0,0,0,0,9,5"
)
# Bare carriage returns as line ends, a first column without a name, a trailing space in a theme.
OASIS = (
    ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N\r"
    "I1,Acorns 1,Object,Pixabay,4.0,0.9,102,2.5,1.6,101\r"
    "I2,Dog 6 ,Animal,Pixabay,6.49,0.8,103,4.5,1.9,100\r"
    "I3,War 1,Scene,Wikipedia,1,0.7,104,7,1.7,99\r"
)
EMOTION6 = """[image_filename]\t[valence]\t[arousal]\t[prob. anger]\t[prob. disgust]\t[prob. fear]\t[prob. joy]\t\
[prob. sadness]\t[prob. surprise]\t[prob. neutral]
disgust/1.jpg\t2.5\t3.8\t0.133333\t0.7\t0\t0.0666667\t0.1\t0\t0
joy/1.jpg\t9\t5\t0\t0\t0\t0.4\t0\t0.2\t0.4
fear/12.jpg\t1\t9\t0\t0\t0.8\t0\t0\t0.2\t0
"""
MANIFEST = """path,emotion,p_awe,p_sad,valence,arousal,split
images/a.jpg,awe,3,1,0.5,-0.25,train
images/b.jpg,sad,0,4,-1,0,val
images/c.jpg,awe,2,2,0,1,test
"""
MADE = """path,emotion,source,strength,seed,model
a-0.png,awe,emod/1.jpg,0.5,0,some/model
a-1.png,awe,emod/1.jpg,0.5,1,some/model
b-0.png,fear,emod/2.jpg,0.5,2,some/model
"""
EMOSET = {
    "train": [["awe", "awe_00001"], ["fear", "fear_00001"]],
    "val": [["contentment", "contentment_00001"]],
    "test": [["sadness", "sadness_00002"]],
}


def emoset_list(split: str, has_ids: bool = False) -> str:
    """A list as in circulation, or with ids as in the authors' README."""
    rows = [
        [e, *([name] if has_ids else []), f"image/{e}/{name}.jpg", f"annotation/{e}/{name}.json"]
        for e, name in EMOSET[split]
    ]
    return json.dumps(rows, indent=2)


EMOSET_SHEETS = {f"{split}.json": emoset_list(split) for split in ("train", "val", "test")}
EMOSET_NAMES = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
EMOSET_INFO = json.dumps(
    {
        "emotion": {
            "label2idx": {name: number for number, name in enumerate(EMOSET_NAMES)},
            "idx2label": {str(number): name for number, name in enumerate(EMOSET_NAMES)},
        },
        "brightness": {"label2idx": {"0.0": 0, "0.1": 1}, "idx2label": {"0": 0.0, "1": 0.1}},
    },
    indent=2,
)

LAYOUTS = {
    "abstract": Layout({"ABSTRACT_groundTruth.csv": ABSTRACT}, tuple(f"abstract_000{n}.jpg" for n in (1, 2, 3))),
    "artphoto": Layout({}, ("awe_0001.jpg", "content_0023.jpg", "sad_0001.jpg")),
    "emotion6": Layout({"ground_truth.txt": EMOTION6}, ("disgust/1.jpg", "joy/1.jpg", "fear/12.jpg")),
    "fi": Layout({}, tuple(f"{name}/{name}_1.jpg" for name in sorted(MIKELS_8))),
    "emoset": Layout(
        EMOSET_SHEETS | {"info.json": EMOSET_INFO},
        tuple(f"image/{e}/{name}.jpg" for split in EMOSET.values() for e, name in split),
    ),
    "oasis": Layout({"OASIS.csv": OASIS}, ("Acorns 1", "Dog 6", "War 1")),
    "emod": Layout({"manifest.csv": MANIFEST}, ("images/a.jpg", "images/b.jpg", "images/c.jpg")),
    "diffused_emod": Layout({"manifest.csv": MADE}, ("a-0.png", "a-1.png", "b-0.png")),
    "manifest": Layout({"manifest.csv": MANIFEST}, ("images/a.jpg", "images/b.jpg", "images/c.jpg")),
    "emotion_folder": Layout({}, ("angry/x.png", "joy/1.jpg", "joy/2.jpg", "Surprise/1.jpg")),
}


def file_of(name: str, image: str) -> str:
    """Path of the image that the table of the set `name` calls `image`."""
    return {"oasis": f"images/{image}.jpg", "emotion6": f"images/{image}"}.get(name, image)

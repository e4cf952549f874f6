"""EMOd (Fan et al. 2018, "Emotional Attention: A Study of Image Sentiment and Visual Attention", CVPR).

1,019 photographs (321 of them from the IAPS) with the sentiment that they evoke, and with eye movements of 16
people. The layout is that of a public reader: `EMOdImages1019/<id>.jpg` and `allfindata1019_renamed.mat`, whose matrix
`allfindata1019` has a row per image: the id in column 1, valence, arousal and dominance in columns 4 to 6, and the
shares of nine emotions in columns 7 to 15. The file does not name these emotions, so they are ignored. A manifest
(manifest.py), which can name them, is read too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.files import File
from emoreg.data.images.table import About
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL_DOMINANCE
from emoreg.data.stimuli.manifest import MANIFESTS, is_manifest, read_manifest
from emoreg.data.stimuli.matlab import read_matrix
from emoreg.data.stimuli.published import IMAGES, Published
from emoreg.data.stimuli.set_reader import SetReader
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError

SHEET, VARIABLE, FOLDER = "allfindata1019_renamed.mat", "allfindata1019", "EMOdImages1019"
DIMENSIONS = [3, 4, 5]  # columns, from 0
COLUMNS = 15  # the least number of columns
# The file does not state the scale of its ratings: -1 to 1, or self-assessment from 1 to 5, 7 or 9. The first of these
# that contains all ratings is used (ours): the photographs are emotional, so some ratings are near the scale's ends.
SCALES = ((-1.0, 1.0), (1.0, 5.0), (1.0, 7.0), (1.0, 9.0))
FROM_IAPS = "321 of EMOd's images are from the IAPS, which has terms of its own"

ABOUT = About(
    title="EMOd (Fan et al. 2018)",
    size="1,019",
    labels="valence, arousal, dominance; or as your manifest has them",
    licence="for research, on request to its authors; the IAPS has terms of its own",
    source="nus-sesame.top/emotionalattention",
    layout=f"{SHEET}, {FOLDER}/<id>.jpg; or manifest.csv|jsonl|parquet (path, emotion, valence, ...), and its images",
)
PUBLISHED = Published(
    images=1_019, source="Fan et al. 2018", expected={IMAGES: (698, f"{FROM_IAPS}, and are not here")}
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the photographs with valence, arousal and dominance in [-1, 1], or with the labels of a manifest.

    Args:
        root: a manifest, or a folder or zip that holds the images and either the .mat file or one manifest.
        skip_missing: skip rows whose image is missing; if false, the first one is an error.

    Raises:
        UserError: see `manifest.read_manifest`; or the .mat file has other contents, or an image is missing.
    """
    return read_as_emod("emod", root, skip_missing)


def read_as_emod(name: str, root: str | None, skip_missing: bool) -> Stimuli:
    """Read the set `name` like `read`. A manifest takes precedence over the .mat file."""
    reader = SetReader(name, root, skip_missing)
    if is_manifest(reader.root) or reader.has(*MANIFESTS):
        return read_manifest(name, root, skip_missing)
    sheet = reader.sheet(*MANIFESTS, SHEET)
    table = read_matrix(sheet, VARIABLE)
    if table.shape[1] < COLUMNS:
        raise UserError(
            f"{sheet}: '{VARIABLE}' has {table.shape[1]} columns; it must have at least {COLUMNS}: an id, two others, "
            "valence, arousal, dominance, the shares of nine emotions"
        )
    folder = sheet.name[: -len(SHEET)] + FOLDER
    paths = [f"{folder}/{_id(sheet, row, number)}.jpg" for row, number in enumerate(table[:, 0].tolist(), start=1)]
    ratings = table[:, DIMENSIONS]
    low, high = _scale(sheet, ratings)
    labels = (ratings - (low + high) / 2) / ((high - low) / 2)
    images = [reader.find(path) for path in paths]
    if None in images and not skip_missing:
        row = images.index(None)
        raise UserError(
            f"{sheet}, row {row + 1}: no image '{paths[row]}'; {images.count(None):,} of {len(paths):,} are missing "
            f"({FROM_IAPS}; stimuli.skip_unreadable: true skips such rows)"
        )
    for row, (path, image, label) in enumerate(zip(paths, images, labels.tolist(), strict=True), start=1):
        reader.add(f"{sheet}, row {row}", path, image, label)
    notes = [
        f"{sheet}: valence, arousal and dominance are interpreted as ratings from {low:g} to {high:g}; they range from "
        f"{ratings.min():.2f} to {ratings.max():.2f}",
        f"{sheet}: the shares of nine emotions are ignored, as the file does not name the emotions; a manifest can",
    ]
    return reader.stimuli(VALENCE_AROUSAL_DOMINANCE, notes=notes, left_out=list(_unlisted(reader, folder, set(images))))


def _id(sheet: File, row: int, number: float) -> int:
    if not (number.is_integer() and number >= 0):
        raise UserError(f"{sheet}, row {row}: column 1, the id, is {number:g}; it must be a whole number")
    return int(number)


def _scale(sheet: File, ratings: NDArray[np.float64]) -> tuple[float, float]:
    """The lowest and highest rating of the first of SCALES that contains all ratings. UserError if none does."""
    for row, column in np.argwhere(~np.isfinite(ratings)):
        name = VALENCE_AROUSAL_DOMINANCE.names[column]
        raise UserError(f"{sheet}, row {row + 1}: {name} is {ratings[row, column]}; it must be a number")
    for low, high in SCALES:
        if low <= ratings.min() and ratings.max() <= high:
            return low, high
    raise UserError(
        f"{sheet}: valence, arousal and dominance range from {ratings.min():g} to {ratings.max():g}; columns 4 to 6 "
        f"must be ratings {', '.join(f'{low:g} to {high:g}' for low, high in SCALES)}: write a manifest with ratings "
        "mapped to -1 to 1"
    )


def _unlisted(reader: SetReader, folder: str, used: set[File | None]) -> Iterator[str]:
    """One line for images in `folder` that no row names, and one for images elsewhere."""
    others = [image for image in reader.image_files if image not in used]
    inside = [image for image in others if image.name.startswith(f"{folder}/")]
    outside = [image for image in others if not image.name.startswith(f"{folder}/")]
    if inside:
        yield f"{reader.name}: left out {len(inside):,} images that no row names, e.g. '{inside[0].name}'"
    if outside:
        where = f"outside {FOLDER}, e.g. '{outside[0].name}' (fixation maps are not stimuli)"
        yield f"{reader.name}: left out {len(outside):,} images {where}"

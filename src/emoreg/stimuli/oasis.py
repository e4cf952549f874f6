"""OASIS (Kurdi, Lozano & Banaji 2017, "Introducing the Open Affective Standardized Image Set").

900 photographs; valence and arousal rated by people from 1 to 7. Read as published: `OASIS.csv` (with bare
carriage returns as line ends and blanks behind some themes) and `images/<Theme>.jpg`, in a folder or a zip.
"""

from __future__ import annotations

import csv
import io
import math

import numpy as np

from emoreg.errors import UserError, nearest
from emoreg.images.files import list_files
from emoreg.images.table import Table

COLUMNS = ("Theme", "Valence_mean", "Arousal_mean")


def read_oasis(root: str | None, skip_unreadable: bool) -> Table:
    """Photographs with valence and arousal, the ratings mapped linearly from 1..7 to [-1, 1].

    Args:
        root: folder or zip that holds OASIS.csv and images/.
        skip_unreadable: leave out rows whose image is missing, instead of stopping at the first.

    Raises:
        UserError: something is missing or out of range; names file, row and column.
    """
    if root is None:
        raise UserError("stimuli.root: name the folder or zip that holds OASIS.csv and images/")
    files = {file.name: file for file in list_files(root)}
    sheet = next((file for name, file in files.items() if name.split("/")[-1] == "OASIS.csv"), None)
    if sheet is None:
        raise UserError(f"{root} holds no OASIS.csv; OASIS is published with that table beside images/")
    folder = sheet.name.removesuffix("OASIS.csv")
    text = sheet.read().decode("utf-8-sig", errors="replace")
    rows = csv.DictReader(io.StringIO("\n".join(text.splitlines())))
    for column in COLUMNS:
        if column not in (rows.fieldnames or ()):
            raise UserError(f"{sheet}: no column '{column}'{nearest(column, filter(None, rows.fieldnames or ()))}")

    images, labels = [], []
    for number, row in enumerate(rows, start=2):
        theme = (row["Theme"] or "").strip()
        rating = [_rating(f"{sheet}, row {number}", column, row[column]) for column in COLUMNS[1:]]
        image = files.get(f"{folder}images/{theme}.jpg")
        if image is not None:
            images.append(image)
            labels.append(rating)
        elif not skip_unreadable:
            raise UserError(f"{sheet}, row {number}: no image images/{theme}.jpg (skip_unreadable: true goes on)")
    return Table("oasis", images, np.array(labels, np.float32).reshape(-1, 2))


def _rating(place: str, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 1 <= value <= 7:  # NaN compares false
        raise UserError(f"{place}: {column} is '{text}'; ratings go from 1 to 7")
    return (value - 4) / 3

"""The files of a diffused set: names of variants, their provenance, and the manifest that lists them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.decode import upright
from emoreg.data.images.files import File
from emoreg.data.images.packed import PackedImages
from emoreg.data.images.table import Item
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import printable
from emoreg.runtime.safe_io import read_bounded, write_atomically, writing

if TYPE_CHECKING:
    from PIL import Image

MANIFEST, IMAGES, FLAGGED = "manifest.csv", "images", "flagged"

IN_MANIFEST = (
    *("source", "source_sha256", "variant", "strength", "steps", "guidance", "seed", "prompt"),
    *("model", "commit", "device", "diffusers"),
)

Provenance = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One generated image, finished or planned."""

    row: int  # row of its source in the set
    file: str  # file name without folder and suffix
    provenance: Provenance  # the part that is known before the image is made


def source_name(stimuli: Stimuli, row: int) -> str:
    """Name of an image in its set."""
    images = stimuli.images
    if isinstance(images, PackedImages):
        return printable(images.name(row))
    if isinstance(images, np.ndarray):
        return f"{stimuli.name}[{row}]"
    image = images[row]
    return printable(image.name if isinstance(image, File) else str(image))


def digest_of(image: File | Item | NDArray[np.uint8]) -> tuple[str, bytes | None]:
    """The SHA-256 of a file's bytes, and these bytes; for other images the SHA-256 of the pixels, and None."""
    if isinstance(image, File):
        content = image.read()
        return hashlib.sha256(content).hexdigest(), content
    pixels = np.asarray(image if isinstance(image, np.ndarray) else upright(image))
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest(), None


def file_names(stimuli: Stimuli) -> list[str]:
    """A file name for each image of a set, safe on any file system and unique even if case is ignored.

    For example "abstract_0001" for "paintings/abstract_0001.jpg". If the stem is empty or not unique, a digest of the
    whole path is appended.
    """
    sources = [source_name(stimuli, row) for row in range(len(stimuli.images))]
    stems = [re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(source).stem).strip("._-")[:80] for source in sources]
    occurrences = Counter(stem.lower() for stem in stems)
    names: list[str] = []
    used: set[str] = set()
    for source, stem in zip(sources, stems, strict=True):
        name = stem
        if not stem or occurrences[stem.lower()] > 1:
            name = f"{stem or 'image'}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
        while name.lower() in used:  # a manifest may list the same path in two folders
            name += "_"
        names.append(name)
        used.add(name.lower())
    return names


def _paths(out: Path, variant: Variant) -> tuple[Path, Path]:
    """Paths of the image, and of the record that replaces it if it was flagged."""
    return out / IMAGES / f"{variant.file}.png", out / FLAGGED / f"{variant.file}.json"


def find_made(out: Path, variant: Variant) -> Provenance | None:
    """The provenance of a finished variant; None if it does not exist, or was made from another source or prompt."""
    from PIL import Image

    image, flagged = _paths(out, variant)
    try:
        if image.exists():
            with Image.open(image, formats=("PNG",)) as opened:
                text = opened.info["emoreg"]
        elif flagged.exists():
            text = read_bounded(flagged).decode()
        else:
            return None
        provenance = dict(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SyntaxError):  # damaged, or not written by us
        return None
    is_complete = {*IN_MANIFEST, "flagged"} <= set(provenance)
    is_wanted = all(provenance.get(key) == value for key, value in variant.provenance.items())
    return provenance if is_complete and is_wanted else None


def save(out: Path, variant: Variant, picture: Image.Image, provenance: Provenance) -> None:
    """Write a variant, with its provenance embedded. If it was flagged, write only the provenance.

    Raises:
        UserError: see `write`.
    """
    from PIL.PngImagePlugin import PngInfo

    image, flagged = _paths(out, variant)
    text = json.dumps(provenance, ensure_ascii=False)
    if provenance["flagged"]:
        write(flagged, text.encode())
        image.unlink(missing_ok=True)  # an image made from an earlier version of the source
        return
    info, content = PngInfo(), io.BytesIO()
    info.add_itxt("emoreg", text)
    picture.convert("RGB").save(content, "PNG", pnginfo=info)
    write(image, content.getbuffer())
    flagged.unlink(missing_ok=True)


def write_manifest(out: Path, stimuli: Stimuli, wanted: Sequence[Variant], done: Mapping[str, Provenance]) -> int:
    """Write the manifest of the finished images, in the order of the set, and return their number; no file for none."""
    rows = []
    for variant in wanted:
        provenance = done.get(variant.file)
        if provenance is not None and not provenance["flagged"]:
            cells = {"path": f"{IMAGES}/{variant.file}.png", **_label_cells(stimuli, variant.row)}
            rows.append(cells | {key: provenance[key] for key in IN_MANIFEST})
    if rows:
        text = io.StringIO()
        sheet = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(rows)
        write(out / MANIFEST, text.getvalue().encode())
    return len(rows)


def _label_cells(stimuli: Stimuli, row: int) -> dict[str, str]:
    """Labels and split of a source as cells of a manifest, by column."""
    first = {labels.space.kind: labels for labels in reversed(stimuli.labels)}  # the first of each kind
    category, votes, dimensions = first.get("category"), first.get("votes"), first.get("dimensions")
    cells: dict[str, str] = {}
    if category is not None:
        cells["emotion"] = category.space.names[int(category.values[row])]
    if votes is not None:
        cells |= {f"p_{name}": str(n) for name, n in zip(votes.space.names, votes.values[row], strict=True)}
    if dimensions is not None:
        cells |= {name: str(x) for name, x in zip(dimensions.space.names, dimensions.values[row], strict=True)}
    if stimuli.splits is not None:
        cells["split"] = stimuli.splits[row]
    return cells


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file of the set atomically. UserError if the disk is full or not writable."""
    with writing(path, kept="finished images are kept; run the same command again to resume"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

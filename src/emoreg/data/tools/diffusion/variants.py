"""The variants of a diffused set on the disk: their names, their provenance, the manifest that lists them."""

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
    """One image that is to be made of a source, or was."""

    row: int  # of its source in the set
    file: str  # without folder and suffix
    provenance: Provenance  # known before it is made


def source_name(stimuli: Stimuli, row: int) -> str:
    """What the set calls an image."""
    images = stimuli.images
    if isinstance(images, PackedImages):
        return printable(images.name(row))
    if isinstance(images, np.ndarray):
        return f"{stimuli.name}[{row}]"
    image = images[row]
    return printable(image.name if isinstance(image, File) else str(image))


def digest_of(image: File | Item | NDArray[np.uint8]) -> tuple[str, bytes | None]:
    """The SHA-256 of a file's bytes, or else of the pixels; and the bytes of a file."""
    if isinstance(image, File):
        content = image.read()
        return hashlib.sha256(content).hexdigest(), content
    pixels = np.asarray(image if isinstance(image, np.ndarray) else upright(image))
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest(), None


def file_names(stimuli: Stimuli) -> list[str]:
    """For each image of a set a name that is safe on any file system, and distinct whatever the case of letters.

    Such as "abstract_0001" for "paintings/abstract_0001.jpg". Where several come down to the same, or nothing is
    left, a digest of the whole path is added.
    """
    sources = [source_name(stimuli, row) for row in range(len(stimuli.images))]
    stems = [re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(source).stem).strip("._-")[:80] for source in sources]
    sharing = Counter(stem.lower() for stem in stems)
    names: list[str] = []
    used: set[str] = set()
    for source, stem in zip(sources, stems, strict=True):
        name = stem
        if not stem or sharing[stem.lower()] > 1:
            name = f"{stem or 'image'}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
        while name.lower() in used:  # the same path in two folders of one manifest
            name += "_"
        names.append(name)
        used.add(name.lower())
    return names


def _paths(out: Path, variant: Variant) -> tuple[Path, Path]:
    """Paths of the image and of its placeholder if it was flagged."""
    return out / IMAGES / f"{variant.file}.png", out / FLAGGED / f"{variant.file}.json"


def find_made(out: Path, variant: Variant) -> Provenance | None:
    """The provenance of a variant that was made before; None if it was not, or from another source or prompt."""
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
        found = dict(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SyntaxError):  # damaged, or somebody's own
        return None
    is_whole = {*IN_MANIFEST, "flagged"} <= set(found)
    is_wanted = all(found.get(key) == value for key, value in variant.provenance.items())
    return found if is_whole and is_wanted else None


def save(out: Path, variant: Variant, picture: Image.Image, found: Provenance) -> None:
    """Write a variant with its provenance in it; of one that was flagged the provenance alone.

    UserError as `write`.
    """
    from PIL.PngImagePlugin import PngInfo

    image, flagged = _paths(out, variant)
    text = json.dumps(found, ensure_ascii=False)
    if found["flagged"]:
        write(flagged, text.encode())
        image.unlink(missing_ok=True)  # of a source that has changed
        return
    info, content = PngInfo(), io.BytesIO()
    info.add_itxt("emoreg", text)
    picture.convert("RGB").save(content, "PNG", pnginfo=info)
    write(image, content.getbuffer())
    flagged.unlink(missing_ok=True)


def write_manifest(out: Path, stimuli: Stimuli, wanted: Sequence[Variant], done: Mapping[str, Provenance]) -> int:
    """List the images that are done, in the order of the set; gives their number. None, none is written."""
    rows = [
        {
            "path": f"{IMAGES}/{variant.file}.png",
            **_label_cells(stimuli, variant.row),
            **{key: found[key] for key in IN_MANIFEST},
        }
        for variant in wanted
        if (found := done.get(variant.file)) is not None and not found["flagged"]
    ]
    if rows:
        text = io.StringIO()
        sheet = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(rows)
        write(out / MANIFEST, text.getvalue().encode())
    return len(rows)


def _label_cells(stimuli: Stimuli, row: int) -> dict[str, str]:
    """Labels and split of a source, as a manifest has them."""
    kinds = {labels.space.kind: labels for labels in reversed(stimuli.labels)}  # the first of each kind
    cells: dict[str, str] = {}
    if (category := kinds.get("category")) is not None:
        cells["emotion"] = category.space.names[int(category.values[row])]
    for labels, prefix in ((kinds.get("votes"), "p_"), (kinds.get("dimensions"), "")):
        if labels is not None:
            names = (f"{prefix}{name}" for name in labels.space.names)
            cells |= dict(zip(names, map(str, labels.values[row]), strict=True))
    if stimuli.splits is not None:
        cells["split"] = stimuli.splits[row]
    return cells


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file of the set atomically. UserError for a full disk, or one that is not ours to write."""
    with writing(path, kept="finished images are kept; run the same command again to resume"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

"""Leaks: images that a network is tested on and was trained on before (ours).

Each stage keeps a checksum of every training image. Stage 2 refuses an encoder that has seen an image of its test
split; training images of the target may be seen: a positive control needs that. A classifier that is scored on images
that it was trained on says so, and so does a target that a caller gives with the same images in two parts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.config.schema import Fit
from emoreg.data.images.files import MAX_ENTRIES
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.packed import PackedImages
from emoreg.data.images.table import Table, name_image
from emoreg.errors import SettingError, UserError
from emoreg.runs.run import SEEN, Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import read_bounded

FORMAT = 1
MAGIC = b"emoregSE"
HEADER = struct.Struct("<8sIIQ")  # magic, format, image size in pixels, number of checksums; then these, 8 bytes each
CHECKSUM = np.dtype("<u8")
NAMED = 3  # images in an error


@dataclass(frozen=True)
class Seen:
    """The training images of a run: checksums uint64 (N,) of their pixels, decoded at `image_size`."""

    image_size: int
    checksums: NDArray[np.uint64]


def checksums(images: ImageSet, progress: Progress) -> NDArray[np.uint64]:
    """BLAKE2b, cut to 64 bits, of each image's pixels (S, S, 3): uint64 (N,), in order.

    Two of a million different images share a checksum with a probability of 3e-8.

    Args:
        images: on any device; a set too large to hold in memory is read once.
        progress: shows how many images are done.
    """
    found: list[bytes] = []
    with progress.task(f"checksums of {images.table.name}", len(images), "images") as advance:
        for pixels, _, _ in images.batches(torch.arange(len(images)), 512):
            for image in pixels.permute(0, 2, 3, 1).cpu().contiguous().numpy():
                found.append(hashlib.blake2b(image, digest_size=CHECKSUM.itemsize).digest())
            advance(len(pixels))
    return np.frombuffer(b"".join(found), CHECKSUM).astype(np.uint64)


def record_seen(run: Run, parts: Sequence[ImageSet], progress: Progress) -> None:
    """Write the checksums of a run's training images into its folder, unless it is resumed.

    Args:
        run: of either stage.
        parts: its training images, one set or several.
        progress: as `checksums`.

    Raises:
        UserError: the file cannot be written.
    """
    if run.has_begun and (run.folder / SEEN).exists():
        return
    every = np.sort(np.concatenate([checksums(part, progress) for part in parts]))
    run.write(SEEN, HEADER.pack(MAGIC, FORMAT, parts[0].image_size, len(every)) + every.astype(CHECKSUM).tobytes())


def read_seen(run: Run) -> Seen | None:
    """What a run was trained on; None where no record is, as in runs of the first edition.

    Raises:
        UserError: the file cannot be read, is damaged, or of another format.
    """
    path = run.folder / SEEN
    if not path.exists():
        return None
    try:
        content = read_bounded(path, HEADER.size + CHECKSUM.itemsize * MAX_ENTRIES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    damaged = UserError(f"{path} is damaged: it does not tell which images the run has seen; do the run again")
    if len(content) < HEADER.size:
        raise damaged
    magic, version, image_size, count = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise damaged
    if version != FORMAT:
        raise UserError(f"{path} is of format {version}, and this emoreg reads {FORMAT}: update emoreg")
    if image_size == 0 or len(content) != HEADER.size + CHECKSUM.itemsize * count:
        raise damaged
    return Seen(image_size, np.frombuffer(content, CHECKSUM, offset=HEADER.size).astype(np.uint64))


def refuse_leaks(
    experience: Path | str,
    test: ImageSet,
    train: Table,
    progress: Progress,
    fit: Fit = "crop",
    key: str = "encoder.experience",
) -> None:
    """Refuse an encoder that was trained on images of the target's test split.

    Images are the same if their pixels are, decoded at stage 1's size and fit. Test images that the target itself has
    among its training images too, as CIFAR-100 is published with ten, are not counted: stage 1 adds nothing there.

    Args:
        experience: folder of the stage-1 run.
        test: the test images, at stage 2's size.
        train: all training images of the target.
        progress: tells in a line where nothing can be checked.
        fit: how stage 1 made images square.
        key: what brought the encoder, for the error.

    Raises:
        SettingError: how many test images were seen, the names of the first, what to do.
        UserError: as `read_seen`.
    """
    name, seen = test.table.name, read_seen(Run(Path(experience)))
    if seen is None:
        progress.say(
            f"{experience} holds no record of its images, as runs of the first edition: not checked whether test "
            f"images of {name} are among them"
        )
        return
    size = seen.image_size
    if (size, fit) != (test.image_size, test.fit):
        if isinstance(test.table.images, PackedImages):
            progress.say(
                f"{name} is a pack of {test.image_size} pixels and stage 1 saw {size}: test images that it has seen "
                "may go unnoticed"
            )
        test = ImageSet(test.table, size, None, test.labels.cpu(), fit)
    own = checksums(test, progress)
    found = np.isin(own, seen.checksums)
    if found.any():
        trained = load_images(train, size, True, 4.0, Progress(quiet=True), fit)
        found &= ~np.isin(own, checksums(trained, progress))
    if found.any():
        rows = np.flatnonzero(found).tolist()
        names = ", ".join(name_image(test.table.images, row) for row in rows[:NAMED])
        raise SettingError(
            key,
            f"{experience} was trained on {len(rows)} of the {len(test)} test images of {name} "
            f"({names}{', ...' if len(rows) > NAMED else ''}), so accuracy on them would mean nothing: choose other "
            "stimuli, or leave these images out of them",
        )


def tell_shared(run: Run, validation: ImageSet | None, test: ImageSet | None, progress: Progress) -> None:
    """Say in lines how many images of a part of a target are in another part too, by their pixels.

    Parts that are too large to hold in memory are left out, as every image would have to be read once more.

    Args:
        run: of stage 2, with the record of its training images, if these are held.
        validation: its validation images, if there are any.
        test: its test images, if they are scored.
        progress: gets the lines.

    Raises:
        UserError: as `read_seen`.
    """
    parts = {"validation": validation, "test": test}
    held = {kind: part for kind, part in parts.items() if part is not None and part.pixels is not None}
    found = {kind: checksums(part, progress) for kind, part in held.items()}
    if (seen := read_seen(run)) is not None:
        found["training"] = seen.checksums
    for kind, other in (("test", "training"), ("validation", "training"), ("validation", "test")):
        if kind in found and other in found and (shared := int(np.isin(found[kind], found[other]).sum())):
            progress.say(
                f"{held[kind].table.name}: {shared:,} of its {len(held[kind]):,} {kind} images are among the {other} "
                "images too: what is answered to them does not tell how others are answered"
            )


def count_trained_on(run: Run, images: ImageSet, progress: Progress) -> int | None:
    """How many of `images` are among the training images of a run of stage 2, by their pixels at its size.

    Args:
        run: that scores them.
        images: at the run's image size.
        progress: as `checksums`; a line tells of images that were trained on.

    Returns:
        None for a run without a record: of an earlier emoreg, or of a training set too large to hold in memory.

    Raises:
        UserError: as `read_seen`.
    """
    seen, total = read_seen(run), len(images)
    if seen is None or seen.image_size != images.image_size:
        return None
    found = int(np.isin(checksums(images, progress), seen.checksums).sum())
    if found:
        progress.say(
            f"{found:,} of these {total:,} images are among those that {run.folder.name} was trained on: what it "
            "answers to them does not tell how it answers to others"
        )
    return found

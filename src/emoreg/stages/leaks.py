"""Leaks: test images that a network was trained on (ours).

Each run keeps a checksum of every training image; a run of stage 2 only if it holds them in memory. Stage 2 refuses an
encoder that was trained on images of the test split. Training images of the target are allowed, since positive controls
need them. Scoring a classifier on its training images prints a line, and so does a user-supplied target that has the
same images in two parts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.config.schema import Fit
from emoreg.data.fingerprint import checksums_of_pixels
from emoreg.data.given import lines_on_shared
from emoreg.data.images.batches import evaluation_batch_size
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
HEADER = struct.Struct("<8sIIQ")  # magic, format, image size in pixels, number of checksums; 8 bytes each follow
CHECKSUM = np.dtype("<u8")
NAMED = 3  # images in a message


@dataclass(frozen=True)
class Seen:
    """The training images of a run: checksums uint64 (N,) of their pixels, decoded at `image_size`."""

    image_size: int
    checksums: NDArray[np.uint64]


def checksums(images: ImageSet, progress: Progress) -> NDArray[np.uint64]:
    """Return the checksum of each image's pixels (S, S, 3), in order, uint64 (N,); see `checksums_of_pixels`.

    Args:
        images: on any device; a set too large to hold in memory is read once.
        progress: shows how many images are done.
    """
    parts: list[NDArray[np.uint64]] = []
    with progress.task(f"checksums of {images.table.name}", len(images), "images") as advance:
        for pixels, _, _ in images.batches(torch.arange(len(images)), evaluation_batch_size(images.image_size)):
            parts.append(checksums_of_pixels(pixels.permute(0, 2, 3, 1).cpu().contiguous().numpy()))
            advance(len(pixels))
    return np.concatenate(parts)


def record_seen(run: Run, parts: Sequence[ImageSet], progress: Progress) -> None:
    """Write the checksums of a run's training images into its folder, unless it is resumed.

    Args:
        run: of either stage.
        parts: its training images, in one or several sets.
        progress: as `checksums`.

    Raises:
        UserError: the file cannot be written.
    """
    if run.has_begun and (run.folder / SEEN).exists():
        return
    every = np.sort(np.concatenate([checksums(part, progress) for part in parts]))
    run.write(SEEN, HEADER.pack(MAGIC, FORMAT, parts[0].image_size, len(every)) + every.astype(CHECKSUM).tobytes())


def read_seen(run: Run) -> Seen | None:
    """Read the record of a run's training images; None without one, as in runs of the first edition.

    Raises:
        UserError: the file cannot be read, is damaged, or has another format.
    """
    path = run.folder / SEEN
    if not path.exists():
        return None
    try:
        content = read_bounded(path, HEADER.size + CHECKSUM.itemsize * MAX_ENTRIES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    damaged = UserError(f"{path} is damaged: it does not hold checksums of training images; train the run again")
    if len(content) < HEADER.size or not content.startswith(MAGIC):
        raise damaged
    _, version, image_size, count = HEADER.unpack_from(content)
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

    Images are the same if their pixels are, decoded with stage 1's size and fit. Test images that are also among the
    target's own training images, such as ten of CIFAR-100's, are not counted: stage 1 adds nothing there.

    Args:
        experience: folder of the stage-1 run.
        test: the test images, at stage 2's size.
        train: all training images of the target.
        progress: prints a line if something cannot be checked.
        fit: how stage 1 made images square.
        key: the setting or argument that names the encoder, for the error.

    Raises:
        SettingError: the encoder was trained on test images; gives their number and the first names.
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
    test_checksums = checksums(test, progress)
    is_leak = np.isin(test_checksums, seen.checksums)
    if is_leak.any():
        trained = load_images(train, size, True, 4.0, Progress(quiet=True), fit)
        is_leak &= ~np.isin(test_checksums, checksums(trained, progress))
    if is_leak.any():
        rows = np.flatnonzero(is_leak).tolist()
        names = ", ".join(name_image(test.table.images, row) for row in rows[:NAMED])
        raise SettingError(
            key,
            f"{experience} was trained on {len(rows)} of the {len(test)} test images of {name} "
            f"({names}{', ...' if len(rows) > NAMED else ''}), so accuracy on them would mean nothing: choose other "
            "stimuli, or leave these images out of them",
        )


def report_shared(run: Run, name: str, validation: ImageSet | None, test: ImageSet | None, progress: Progress) -> None:
    """Print how many images of one part of a target are in another part too, by their pixels.

    Parts that are too large to hold in memory are left out, as every image would have to be read once more.

    Args:
        run: of stage 2, with the record of its training images, if they are in memory.
        name: name of the target.
        validation: its validation images, if it has any.
        test: its test images, if they are scored.
        progress: prints the lines.

    Raises:
        UserError: as `read_seen`.
    """
    parts = {"validation": validation, "test": test}
    held = {kind: part for kind, part in parts.items() if part is not None and part.pixels is not None}
    sums = {kind: checksums(part, progress) for kind, part in held.items()}
    if (seen := read_seen(run)) is not None:
        sums["training"] = seen.checksums
    for line in lines_on_shared(name, sums):
        progress.say(line)


def count_trained_on(run: Run, images: ImageSet, progress: Progress) -> int | None:
    """Count the images that a run of stage 2 was trained on, by their pixels.

    Args:
        run: whose classifier scores the images.
        images: at the run's image size.
        progress: as `checksums`; prints a line if there are any.

    Returns:
        None if the run has no record: of an earlier emoreg, or of a training set too large to hold in memory.

    Raises:
        UserError: as `read_seen`.
    """
    seen = read_seen(run)
    if seen is None or seen.image_size != images.image_size:
        return None
    count = int(np.isin(checksums(images, progress), seen.checksums).sum())
    if count:
        progress.say(
            f"{count:,} of these {len(images):,} images are among those that {run.folder.name} was trained on: "
            "predictions for them say nothing about unseen images"
        )
    return count


def report_unchecked(run: Run, progress: Progress) -> None:
    """Print that `count_trained_on` has no record of a run's training images."""
    progress.say(
        f"{run.folder.name} holds no record of its training images, as runs of earlier versions and of sets too large "
        "to hold in memory: not checked whether these are among them"
    )

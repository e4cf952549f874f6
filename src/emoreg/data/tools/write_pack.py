"""Write images and labels that exist only in Python as a pack, which recipes, studies and commands read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from emoreg.config.schema import LABELS_OF, Fit, StimuliSettings, TargetSettings
from emoreg.config.setting_types import path_of, typed_value
from emoreg.data.fingerprint import checksums_of_pixels
from emoreg.data.given import GivenStimuli, check_stimuli, contents_of_given, lines_on_shared
from emoreg.data.images.names import SPLITS, Split
from emoreg.data.images.packed import open_pack
from emoreg.data.images.table import Table
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.data.targets import compose_names, with_notes_on_classes
from emoreg.data.targets.target import Target, check_target, require_two_classes, scale_note
from emoreg.data.tools.catalogue import Collection, collection_of_stimuli, collection_of_target
from emoreg.data.tools.pack import pack_collection
from emoreg.errors import SettingError, UserError, nearest
from emoreg.runtime.progress import Progress

TARGET, STIMULI = "folder", "manifest"  # the names by which the user's own sets are read


def write_pack(
    data: Target | GivenStimuli,
    out: Path | str,
    image_size: int | None = None,
    splits: Iterable[str] | None = None,
    fit: Fit = "crop",
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write your own images and labels to a folder that recipes, studies and commands read like any other set.

    A run that reads the folder equals one that is given the same data in Python. Call it again to resume an interrupted
    pack; a finished one of the same data is left as it is. Prints what may spoil a run on the data: images that are in
    two parts of a target, classes without images in a part, values that are too large to be learned.

    Args:
        data: a target, for stage 2, or stimuli (a table and the space of its labels), for stage 1.
        out: the folder, which is created.
        image_size: side S of the images in pixels, as in the recipes that will read them. None for that of the arrays,
            if all of them are squares of one size.
        splits: train, validation or test for each of the stimuli (N,); None without published splits. A target has
            splits of its own.
        fit: how images are made square: crop keeps the central square, pad adds grey bars.
        skip_unreadable: skip files that cannot be decoded, and report how many.
        progress: None prints to the terminal.

    Returns:
        The settings that read it, for `target` or `stimuli` in a recipe or a study's file: name, root and image_size,
        and labels and fit if they differ from the defaults.

    Raises:
        UserError: labels or images of a wrong form; something else in `out`; no space or no permission.
    """
    folder, progress = path_of(out, "out"), progress or Progress()
    if isinstance(data, Target):
        if splits is not None:
            raise SettingError("splits", "must be None for a target, whose tables are its splits")
        check_target(data)
        require_two_classes(data)
        target = with_notes_on_classes(compose_names(data))
        collection, notes = collection_of_target(TARGET, None, target), list(target.notes)
        if scale := scale_note(target):
            notes.append(scale)
    else:
        check_stimuli(data, "data")
        table, space = data
        stimuli = Stimuli(table.name, table.images, (Labels(space, table.labels),), _checked_splits(splits, table))
        collection, notes = collection_of_stimuli(STIMULI, None, stimuli), []
    size = _side(collection.images) if image_size is None else typed_value(int, image_size, "image_size")
    settings = _settings(data, str(folder), size, fit)
    progress.report_notes(notes)
    packed = pack_collection(_identified(collection, data), size, folder, skip_unreadable, progress, fit)
    if packed.left_out:
        first = packed.left_out[0]["reason"]
        progress.warn(f"{folder}: skipped {len(packed.left_out):,} unreadable images; the first: {first}")
    if isinstance(data, Target) and packed.seconds is not None:  # else reported by the call that finished the pack
        for line in _shared(folder):
            progress.say(line)
    written = yaml.safe_dump(settings, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True)
    progress.say(
        f"{folder}: {packed.images:,} images of {size}x{size} pixels; use it as {collection.kind}: {written.strip()}"
    )
    return settings


def _checked_splits(splits: Any, table: Table) -> list[Split] | None:
    """The split of each image of a table in the library's words. SettingError for other words, or another number."""
    if splits is None:
        return None
    if isinstance(splits, str) or not isinstance(splits, Iterable):
        raise SettingError("splits", f"must be a word for each of the {len(table):,} images, not {splits!r}")
    words = [str(word).lower() for word in splits]
    if len(words) != len(table):
        raise SettingError("splits", f"must name the split of each of the {len(table):,} images, not of {len(words):,}")
    for row, word in enumerate(words):
        if word not in SPLITS:
            raise SettingError("splits", f"no split {word!r}, in row {row}{nearest(word, SPLITS)}")
    checked = [SPLITS[word] for word in words]
    if "train" not in checked:
        raise SettingError("splits", "must have images to train on, but none is 'train'")
    return checked


def _side(images: Iterable[Any]) -> int:
    """The side of all images in pixels. SettingError if they are not arrays of one square size."""
    match list({image.shape if isinstance(image, np.ndarray) else None for image in images}):
        case [(int(height), int(width), _)] if height == width:
            return height
    raise SettingError("image_size", "must be given: the images are not arrays of one square size")


def _settings(data: Target | GivenStimuli, root: str, size: int, fit: Fit) -> dict[str, Any]:
    """The settings that read the pack. SettingError for a value that no recipe accepts."""
    is_target = isinstance(data, Target)
    settings: dict[str, Any] = {"name": TARGET if is_target else STIMULI, "root": root, "image_size": size}
    if isinstance(data, Target) and data.task in LABELS_OF:
        settings["labels"] = LABELS_OF[data.task]
    if fit != "crop":
        settings["fit"] = fit
    section: type[TargetSettings | StimuliSettings] = TargetSettings if is_target else StimuliSettings
    section(**settings)  # checks them
    return settings


def _shared(folder: Path) -> Iterator[str]:
    """Lines on the images of a packed target that are in two of its parts."""
    pack = open_pack(folder, "target")
    parts = {"training": "train", "validation": "validation", "test": "test"}
    checksums = checksums_of_pixels(pack.images)
    yield from lines_on_shared(
        pack.title, {part: sums for part, split in parts.items() if len(sums := checksums[pack.splits == split])}
    )


def _identified(collection: Collection, data: Target | GivenStimuli) -> Collection:
    """The same set with a checksum of its pixels, by which other pixels with the same labels are another set."""
    contents = contents_of_given(data)
    if contents is None:
        raise UserError(
            f"{collection.title}: images that a library decodes when they are needed cannot be packed; give their "
            "pixels, uint8 (N, H, W, 3)"
        )
    return dataclasses.replace(collection, checksum=f"{collection.title}\n{contents.sha256}")

"""Images and labels that a user gives in Python, instead of the name of a set: checks, and checksums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoreg.config.contents import Contents
from emoreg.data.fingerprint import contents_of_tables
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.stimulus_set import check_labels
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError, is_plain

GivenStimuli = tuple[Table, EmotionSpace]


def check_stimuli(stimuli: Any, key: str = "stimuli") -> None:
    """Raise UserError unless these are a table and the emotion space of its labels.

    Args:
        stimuli: what the user gave.
        key: name of the argument, for the error.
    """
    parts = stimuli if isinstance(stimuli, tuple | list) else [stimuli]
    types = [type(part) for part in parts]
    if types != [Table, EmotionSpace]:
        given = ", ".join(each.__name__ for each in types)
        raise SettingError(key, f"must be (emoreg.Table, emoreg.EmotionSpace), not {given}")
    table, space = stimuli
    for name in (table.name, *space.names):  # written to files, pages and terminals
        if not name.strip() or not is_plain(name):
            raise SettingError(key, f"names must not be empty or contain control characters, as {name!r} does")
    check_labels(table, space)


def contents_of_given(images: Target | GivenStimuli) -> Contents | None:
    """Identify user-supplied images by pixels, labels and classes; None if that is not possible."""
    if isinstance(images, Target):
        return contents_of_tables((images.train, images.test, images.validation), (images.task, *images.classes))
    table, space = images
    return contents_of_tables((table,), (space.kind, *space.names))


def lines_on_shared(name: str, checksums: Mapping[str, NDArray[np.uint64]]) -> Iterator[str]:
    """Lines on how many images of one part of a target are in another part too.

    Args:
        name: name of the target.
        checksums: of the images of each part, training, validation and test; a part may be left out.
    """
    for part, other in (("test", "training"), ("validation", "training"), ("validation", "test")):
        if part in checksums and other in checksums:
            shared = int(np.isin(checksums[part], checksums[other]).sum())
            if shared:
                yield (
                    f"{name}: {shared:,} of its {len(checksums[part]):,} {part} images are also among the {other} "
                    "images: predictions for them say nothing about unseen images"
                )

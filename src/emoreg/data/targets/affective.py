"""Affective sets as targets: which emotion an image evokes in most people, or whether a pleasant one (ours).

A positive control of the method: if anything helps here, an encoder that has learned affect does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from emoreg.config.schema import StimuliSettings, TargetLabels, TargetSettings
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.stimulus_set import choose_labels
from emoreg.data.targets.subsets import hold_out_fifth, keep_classes
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError

SETS = ("abstract", "artphoto", "emoset", "emotion6", "fi", "emod", "diffused_emod", "oasis", "manifest")
LEFT_OUT: Mapping[TargetLabels, str] = {
    "majority": "whose most-voted emotions tie",
    "polarity": "that are neither negative nor positive, or both alike",
    "ekman": "whose emotion is none of the six, or whose most-voted ones tie",
}


def read_affective(settings: TargetSettings) -> Target:
    """The task by a set's emotions.

    The class is what `settings.labels` says; images without such a label are left out and counted, and emotions that
    no image is left of are no class. Published splits are used; without a test split the same fifth
    of each class is always the test split, whatever the seed.

    Args:
        settings: name of the set, its folder, zip or pack, and its labels.

    Raises:
        UserError: the set is missing or malformed, or has nothing from which such labels follow.
    """
    asked = StimuliSettings(
        settings.name.lower(),
        settings.root,
        image_size=settings.image_size,
        fit=settings.fit,
        skip_unreadable=settings.skip_unreadable,
    )
    try:
        stimuli = read_stimuli(asked, seed=0)
        table, space, rows = choose_labels(stimuli, settings.labels)
    except SettingError as error:  # of the same setting, where stimuli are read
        raise SettingError(
            f"target.{error.key.removeprefix('stimuli.')}", error.reason, error.path, error.line
        ) from None
    classes = tuple(name for label, name in enumerate(space.names) if np.any(table.labels == label))
    table = keep_classes(table, space.names, classes, "whole")
    validation = None
    if stimuli.splits is None or set(stimuli.splits) == {"train"}:
        train, test = hold_out_fifth(table)
    else:
        splits = np.array(stimuli.splits)[rows]
        parts = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
        test_split = "test" if len(parts["test"]) else "validation"
        train, test = table.take(parts["train"]), table.take(parts[test_split])
        if test_split == "test" and len(parts["validation"]):
            validation = table.take(parts["validation"])
    without = len(stimuli.images) - len(rows)
    left_out = (f"{stimuli.name}: left out {without} images {LEFT_OUT[settings.labels]}",) if without else ()
    return Target(train, test, classes, validation, stimuli.notes, (*stimuli.left_out, *left_out))

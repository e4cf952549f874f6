"""Stimulus sets of any kind: affective ones, and for positive controls the classes of a target (ours).

Classes are not emotions. But a positive control needs a stage 1 whose labels are known to help the target, such as half
of CIFAR's classes for the other half: a study that finds no label effect there cannot find one anywhere.
"""

from __future__ import annotations

import numpy as np

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data import stimuli
from emoreg.data.images.names import Split
from emoreg.data.images.table import joined
from emoreg.data.stimuli import WITH_CLASSES
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.data.targets import read_target
from emoreg.errors import SettingError


def read_stimuli(settings: StimuliSettings, seed: int) -> Stimuli:
    """Read a whole set: affective images, or the training images of a target with their classes.

    Args:
        settings: name and location of the set.
        seed: of the procedural compositions.

    Raises:
        UserError: the set is unknown, missing or malformed, or has no classes.
    """
    if settings.name in WITH_CLASSES:
        return _classes(settings)
    if settings.classes is not None:
        raise SettingError(
            "stimuli.classes",
            f"must be null: {settings.name} has emotions and no classes; those of {', '.join(WITH_CLASSES)} can be "
            "stimuli, for positive controls",
        )
    return stimuli.read_stimuli(settings, seed)


def _classes(settings: StimuliSettings) -> Stimuli:
    """Read the training images of a target, and its validation split if it publishes one besides a test split."""
    target_settings = TargetSettings(
        settings.name, settings.root, settings.classes, image_size=settings.image_size, fit=settings.fit
    )
    try:
        target = read_target(target_settings)
    except SettingError as error:  # name the setting of the stimuli instead
        name = error.key.removeprefix("target.")
        raise SettingError(f"stimuli.{name}", error.reason, error.path, error.line) from None
    table, splits = target.train, list[Split]()
    if target.validation is not None:
        table = joined([target.train, target.validation])
        splits.extend(["train"] * len(target.train))
        splits.extend(["validation"] * len(target.validation))
    labels = Labels(EmotionSpace("category", target.classes), table.labels.astype(np.int64))
    return Stimuli(table.name, table.images, (labels,), splits or None, notes=target.notes, left_out=target.left_out)

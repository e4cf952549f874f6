"""Affective sets as targets: predict the emotion that most people feel, all their emotions, or their ratings (ours).

A positive control of the method: an encoder that has learned affect should help here if anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import StimuliSettings, TargetLabels, TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.emotion import EmotionSpace, Kind
from emoreg.data.stimuli.stimulus_set import Stimuli, choose_labels, describe_outvoted
from emoreg.data.targets.subsets import hold_out_fifth, keep_classes
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError

SETS = ("abstract", "artphoto", "emoset", "emotion6", "fi", "emod", "diffused_emod", "oasis", "manifest")
# Why images are left out, by kind of label.
LEFT_OUT: Mapping[TargetLabels, str] = {
    "majority": "whose most-voted emotions tie",
    "polarity": "with neither a negative nor a positive emotion or rating, or with both alike",
    "ekman": "with none of the six emotions, or with several of them alike",
}
REQUIRED: Mapping[TargetLabels, Kind] = {"multilabel": "votes", "dimensions": "dimensions"}  # published labels


def read_affective(settings: TargetSettings) -> Target:
    """Read an affective set as the task of predicting `settings.labels`.

    Images without such a label are left out and counted; emotions without images are left out too. Published splits are
    used, with the validation split as the test split if there is no other. Without either, a fifth of each class (or,
    without classes, of all images) is the test split, which does not depend on the seed of the run.

    Args:
        settings: name of the set, its folder, zip or pack, and its labels.

    Raises:
        UserError: the set is missing or malformed, or such labels cannot be derived from its labels.
    """
    try:
        stimuli = read_stimuli(
            StimuliSettings(
                settings.name.lower(),
                settings.root,
                image_size=settings.image_size,
                fit=settings.fit,
                skip_unreadable=settings.skip_unreadable,
            ),
            seed=0,
        )
        table, space, rows = _choose_labels(stimuli, settings.labels)
    except SettingError as error:  # name the setting of the target instead
        raise SettingError(
            f"target.{error.key.removeprefix('stimuli.')}", error.reason, error.path, error.line
        ) from None
    notes, left_out = stimuli.notes, stimuli.left_out
    notes += describe_outvoted(stimuli, settings.labels)
    if len(rows) < len(stimuli.images) and settings.labels in LEFT_OUT:
        without = len(stimuli.images) - len(rows)
        left_out += (f"{stimuli.name}: left out {without} images {LEFT_OUT[settings.labels]}",)
    classes = space.names
    if settings.task == "classification":
        classes = tuple(name for label, name in enumerate(space.names) if np.any(table.labels == label))
        table = keep_classes(table, space.names, classes, "whole")
    elif settings.task == "multilabel":
        table, classes, note = _several(table, space.names)
        notes += (f"{stimuli.name}: {note}",)
    train, test, validation = _split(stimuli, table, rows)
    return Target(train, test, classes, validation, notes, left_out, task=settings.task)


def _choose_labels(stimuli: Stimuli, labels: TargetLabels) -> tuple[Table, EmotionSpace, NDArray[np.int64]]:
    required = REQUIRED.get(labels)
    if required is not None and required not in {each.space.kind for each in stimuli.labels}:
        reason = f"must not be {labels} for {stimuli.name}, whose labels have no {required}"
        raise SettingError("stimuli.labels", reason)
    return choose_labels(stimuli, "distribution" if labels == "multilabel" else labels)


def _split(stimuli: Stimuli, table: Table, rows: NDArray[np.int64]) -> tuple[Table, Table, Table | None]:
    """Split a table of these rows of the stimuli into training, test and, if published, validation images."""
    if stimuli.splits is None or set(stimuli.splits) == {"train"}:
        return *hold_out_fifth(table), None
    splits = np.array(stimuli.splits)[rows]
    train, validation, test = (np.flatnonzero(splits == split) for split in ("train", "validation", "test"))
    if not len(test):
        return table.take(train), table.take(validation), None
    return table.take(train), table.take(test), table.take(validation) if len(validation) else None


def _several(table: Table, names: Sequence[str]) -> tuple[Table, tuple[str, ...], str]:
    """Convert votes (N, E) to multilabel targets: a table with labels float32 (N, K), the K names, and a note.

    An emotion applies to an image if it got at least the share of votes that it would get if they were spread evenly,
    1 / E. Emotions that apply to all images or to none are left out, because they teach nothing.
    """
    shares = table.labels / table.labels.sum(axis=1, keepdims=True)
    applies = shares >= (1 - 1e-5) / len(names)  # with a tolerance for votes that are stored with six digits
    kept = np.flatnonzero(applies.any(axis=0) & ~applies.all(axis=0)).tolist()
    labels = applies[:, kept].astype(np.float32)
    left_out = [name for label, name in enumerate(names) if label not in kept]
    note = f"an emotion applies to an image if it got at least {1 / len(names):.3g} of the votes"
    if left_out:
        note += f"; left out, as they apply to all images or to none: {', '.join(left_out)}"
    note += f"; {labels.sum(axis=1).mean():.2f}{' of the others' if left_out else ''} apply to an image on average"
    return Table(table.name, table.images, labels), tuple(names[label] for label in kept), note

"""Affective sets as targets: which emotion an image evokes in most people, which ones, or how they rate it (ours).

A positive control of the method: if anything helps here, an encoder that has learned affect does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emoreg.config.schema import StimuliSettings, TargetLabels, TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.emotion import Kind
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

NEEDED: Mapping[TargetLabels, Kind] = {"multilabel": "votes", "dimensions": "dimensions"}  # of people, not of words


def read_affective(settings: TargetSettings) -> Target:
    """The task by a set's emotions.

    What is asked is what `settings.labels` says; images without such a label are left out and counted, and emotions
    that no image is left of are not asked for. Published splits are used; without a test split the same fifth of each
    class (of labels without classes: of all images) is always the test split, whatever the seed.

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
        kinds = {labels.space.kind for labels in stimuli.labels}
        if settings.labels in NEEDED and NEEDED[settings.labels] not in kinds:
            reason = f"must not be {settings.labels} for {stimuli.name}, whose labels have no {NEEDED[settings.labels]}"
            raise SettingError("stimuli.labels", reason)
        choice = "distribution" if settings.labels == "multilabel" else settings.labels
        table, space, rows = choose_labels(stimuli, choice)
    except SettingError as error:  # of the same setting, where stimuli are read
        raise SettingError(
            f"target.{error.key.removeprefix('stimuli.')}", error.reason, error.path, error.line
        ) from None
    notes = list(stimuli.notes)
    if settings.task == "classification":
        classes = tuple(name for label, name in enumerate(space.names) if np.any(table.labels == label))
        table = keep_classes(table, space.names, classes, "whole")
    elif settings.task == "multilabel":
        table, classes, note = _several(table, space.names)
        notes.append(f"{stimuli.name}: {note}")
    else:
        classes = space.names
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
    left_out: tuple[str, ...] = ()
    if without and settings.labels in LEFT_OUT:
        left_out = (f"{stimuli.name}: left out {without} images {LEFT_OUT[settings.labels]}",)
    return Target(train, test, classes, validation, tuple(notes), (*stimuli.left_out, *left_out), task=settings.task)


def _several(table: Table, names: Sequence[str]) -> tuple[Table, tuple[str, ...], str]:
    """Which emotions hold of each image, float32 (N, K), by its votes (N, E); their names; and what was done, in words.

    One holds that got at least the share it would have if votes fell evenly, 1 / E. Of what holds of all images, or of
    none, nothing can be learned: it is left out.
    """
    shares = table.labels / table.labels.sum(axis=1, keepdims=True)
    holds = shares >= (1 - 1e-5) / len(names)  # votes that are printed with six digits
    kept = np.flatnonzero(holds.any(axis=0) & ~holds.all(axis=0)).tolist()
    labels = holds[:, kept].astype(np.float32)
    left_out = [name for label, name in enumerate(names) if label not in kept]
    note = f"an emotion holds where it got {1 / len(names):.3g} of the votes or more"
    note += f"; left out, as they hold of all images or of none: {', '.join(left_out)}" if left_out else ""
    note += f"; {labels.sum(axis=1).mean():.2f}{' of the others' if left_out else ''} do of an image"
    return Table(table.name, table.images, labels), tuple(names[label] for label in kept), note

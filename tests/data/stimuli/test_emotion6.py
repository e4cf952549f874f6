from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.stimuli.layouts import EMOTION6
from emoreg.data.stimuli.emotion import EKMAN_6_NEUTRAL
from emoreg.data.stimuli.emotion6 import read
from emoreg.data.stimuli.stimulus_set import choose_labels


def test_a_header_without_brackets_is_read_too(build: Callable[..., Path]) -> None:
    root = build("emotion6")
    expected = read(str(root), False)
    (root / "ground_truth.txt").write_text(EMOTION6.replace("[", "").replace("]", ""))
    for found, known in zip(read(str(root), False).labels, expected.labels, strict=True):
        np.testing.assert_array_equal(found.values, known.values)


def test_each_choice_of_labels_follows_from_votes_and_ratings(build: Callable[..., Path]) -> None:
    stimuli = read(str(build("emotion6")), False)
    table, space, rows = choose_labels(stimuli, "majority")  # joy and neutral tie in the second
    assert space.names == EKMAN_6_NEUTRAL and rows.tolist() == [0, 2] and table.labels.tolist() == [1, 2]
    table, _, rows = choose_labels(stimuli, "ekman")
    assert rows.tolist() == [0, 1, 2] and table.labels.tolist() == [1, 3, 2]
    table, _, rows = choose_labels(stimuli, "polarity")
    assert rows.tolist() == [0, 1, 2] and table.labels.tolist() == [0, 1, 0]
    table, space, _ = choose_labels(stimuli, "dimensions")
    assert space.names == ("valence", "arousal") and table.labels[0].tolist() == [-0.625, np.float32(-0.3)]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emoreg.data.stimuli.abstract import read
from emoreg.data.stimuli.emotion import MIKELS_8, EmotionSpace
from emoreg.data.stimuli.stimulus_set import choose_labels
from emoreg.errors import UserError

HEADER = ",'Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    """280 rows, 52 of them with a tie for the most votes. The reader does not open the images."""
    rng = np.random.default_rng(0)
    lines = [HEADER]
    for number in range(1, 281):
        counts = rng.permutation([6, 6, 1, 1, 0, 0, 0, 0] if number % 280 < 52 else [6, 5, 2, 1, 0, 0, 0, 0])
        lines.append(f"'abstract_{number:04}.jpg',{','.join(map(str, counts))}")
        (tmp_path / f"abstract_{number:04}.jpg").write_bytes(b"not opened")
    (tmp_path / "ABSTRACT_groundTruth.csv").write_bytes("\r".join(lines).encode())
    return tmp_path


def test_a_majority_keeps_228_of_280_paintings_after_52_ties(paintings: Path) -> None:
    stimuli = read(str(paintings), False)
    assert len(stimuli.images) == 280
    table, space, rows = choose_labels(stimuli, "majority")
    assert space == EmotionSpace("category", MIKELS_8)
    assert len(table) == len(rows) == 228
    votes = stimuli.labels[0].values[rows]
    assert (votes[np.arange(228), table.labels] == 6).all() and ((votes == 6).sum(axis=1) == 1).all()


def test_a_distribution_keeps_ties_and_polarity_drops_its_own(paintings: Path) -> None:
    stimuli = read(str(paintings), False)
    table, space, _ = choose_labels(stimuli, "distribution")
    assert len(table) == 280 and space.kind == "votes"
    votes = stimuli.labels[0].values
    pleasant = votes[:, [0, 2, 3, 5]].sum(axis=1)
    table, space, rows = choose_labels(stimuli, "polarity")
    assert space.names == ("negative", "positive")
    np.testing.assert_array_equal(rows, np.flatnonzero(pleasant != 7))
    np.testing.assert_array_equal(table.labels, pleasant[rows] > 7)


def test_an_unclosed_quote_is_reported(paintings: Path) -> None:
    sheet = paintings / "ABSTRACT_groundTruth.csv"
    sheet.write_bytes(sheet.read_bytes().replace(b"'abstract_0270.jpg'", b"'abstract_0270.jpg"))
    with pytest.raises(UserError, match=r"ABSTRACT_groundTruth\.csv, line \d+: not a table: .*check the quotes"):
        read(str(paintings), False)

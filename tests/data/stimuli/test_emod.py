"""EMOd as a MATLAB file and a folder of images. EMOd as a manifest is in test_every_set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from emoreg.config.schema import StimuliSettings
from emoreg.data.fingerprint import contents_of
from emoreg.data.stimuli import diffused_emod, emod
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL_DOMINANCE
from emoreg.data.stimuli.stimulus_set import Stimuli, choose_labels
from emoreg.errors import UserError
from narrow import files

Build = Callable[..., Path]
IDS = (1, 20, 1019)


def table(
    ratings: tuple[tuple[float, float, float], ...] = ((1.5, 4, 5), (8.2, 9, 6), (5, 1, 3)),
) -> NDArray[np.float64]:
    """Id, two unused columns, valence, arousal, dominance, nine shares, and eight more unused columns."""
    shares = np.random.default_rng(0).dirichlet(np.ones(9), len(IDS))
    return np.column_stack([IDS, np.full((3, 2), np.nan), ratings, shares, np.full((3, 8), np.nan)])


@pytest.fixture
def published(tmp_path: Path, write_image: Build) -> Path:
    root = tmp_path / "EMOd"
    for number in IDS:
        write_image(root / "EMOdImages1019" / f"{number}.jpg")
        write_image(root / "FixationMap" / "Continous_map" / f"{number}.jpg")
    write(root, table())
    return root


def write(root: Path, values: NDArray[np.float64], variable: str = "allfindata1019") -> None:
    savemat(root / "allfindata1019_renamed.mat", {variable: values}, do_compression=True)


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        emod.read(str(root), False)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("read", [emod.read, diffused_emod.read])
def test_ratings_are_mapped_from_their_scale_and_belong_to_the_ids(
    read: Callable[..., Stimuli], published: Path, pack: Build
) -> None:
    for place, prefix in ((published, ""), (pack(published), "EMOd/")):
        stimuli = read(str(place), False)
        assert [image.name for image in files(stimuli.images)] == [f"{prefix}EMOdImages1019/{n}.jpg" for n in IDS]
        (labels,) = stimuli.labels
        assert labels.space == VALENCE_AROUSAL_DOMINANCE and labels.values.dtype == np.float32
        expected = [[-0.875, -0.25, 0], [0.8, 1, 0.25], [0, -1, -0.5]]
        np.testing.assert_allclose(labels.values, expected, atol=1e-6)
        assert "interpreted as ratings from 1 to 9; they range from 1.00 to 9.00" in stimuli.notes[0]
        assert "shares of nine emotions are ignored" in stimuli.notes[1]
        (line,) = stimuli.left_out
        assert line.startswith(f"{stimuli.name}: left out 3 images outside EMOdImages1019, e.g. '{prefix}FixationMap/")


@pytest.mark.parametrize(
    ("ratings", "low", "high"),
    [
        (((-1, 0, 0.5), (0.2, 1, 0), (0, 0, 0)), -1, 1),
        (((1, 2, 3), (4.8, 5, 1), (1, 1, 1)), 1, 5),
        (((1.2, 2, 3), (6.8, 5, 1), (1, 1, 1)), 1, 7),
    ],
)
def test_the_scale_is_the_first_that_contains_all_ratings(
    ratings: tuple[tuple[float, float, float], ...], low: float, high: float, published: Path
) -> None:
    write(published, table(ratings))
    stimuli = emod.read(str(published), False)
    expected = 2 * (np.array(ratings) - low) / (high - low) - 1
    np.testing.assert_allclose(stimuli.labels[0].values, expected, atol=1e-6)
    assert f"from {low} to {high}" in stimuli.notes[0]


def test_polarity_follows_from_valence(published: Path) -> None:
    _, _, rows = choose_labels(emod.read(str(published), False), "polarity")
    assert rows.tolist() == [0, 1]  # the third valence is the middle of the scale


def test_missing_images_are_counted_in_the_error_unless_they_are_skipped(published: Path) -> None:
    for number in IDS[1:]:
        (published / "EMOdImages1019" / f"{number}.jpg").unlink()
    line = refusal(published)
    assert "renamed.mat, row 2: no image 'EMOdImages1019/20.jpg'; 2 of 3 are missing" in line
    assert "321 of EMOd's images are from the IAPS" in line and "stimuli.skip_unreadable" in line
    stimuli = emod.read(str(published), True)
    assert len(stimuli.images) == 1 and [place.rpartition(", ")[2] for place in stimuli.missing] == ["row 2", "row 3"]


def test_images_that_no_row_names_are_reported(published: Path, write_image: Build) -> None:
    write_image(published / "EMOdImages1019" / "7.jpg")
    assert emod.read(str(published), False).left_out[0] == (
        "emod: left out 1 images that no row names, e.g. 'EMOdImages1019/7.jpg'"
    )


def test_a_manifest_takes_precedence(published: Path) -> None:
    (published / "manifest.csv").write_text("path,emotion\nEMOdImages1019/1.jpg,awe\nEMOdImages1019/20.jpg,fear\n")
    for place in (published, published / "manifest.csv"):
        stimuli = emod.read(str(place), False)
        assert len(stimuli.images) == 2 and stimuli.labels[0].space.kind == "category"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values[:, :5], "'allfindata1019' has 5 columns; it must have at least 15: an id, two others"),
        (lambda values: _with(values, 1, 0, np.nan), "row 2: column 1, the id, is nan; it must be a whole number"),
        (lambda values: _with(values, 1, 0, 2.5), "row 2: column 1, the id, is 2.5"),
        (lambda values: _with(values, 1, 0, -3), "row 2: column 1, the id, is -3"),
        (lambda values: _with(values, 1, 0, 1), "row 2: 'EMOdImages1019/1.jpg' is listed a second time"),
        (lambda values: _with(values, 2, 4, np.nan), "row 3: arousal is nan; it must be a number"),
        (
            lambda values: _with(values, 0, 3, 99),
            "dominance range from 1 to 99; columns 4 to 6 must be ratings -1 to 1, 1 to 5",
        ),
    ],
)
def test_a_matrix_of_other_columns_is_refused(
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]], message: str, published: Path
) -> None:
    write(published, change(table()))
    assert message in refusal(published)


def _with(values: NDArray[np.float64], row: int, column: int, value: float) -> NDArray[np.float64]:
    values[row, column] = value
    return values


def test_a_file_without_the_variable_is_refused_with_the_nearest_name(published: Path) -> None:
    write(published, table(), "allfindata")
    assert "renamed.mat has no variable 'allfindata1019' (did you mean 'allfindata'?)" in refusal(published)


def test_changed_ratings_change_the_fingerprint(published: Path) -> None:
    settings = StimuliSettings(name="emod", root=str(published))
    before = contents_of(settings)
    write(published, _with(table(), 0, 3, 1.25))
    assert before is not None and contents_of(settings) != before

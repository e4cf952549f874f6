from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoreg.errors import SettingError, UserError
from emoreg.inference.calibrate import calibrate
from emoreg.inference.load import load_run
from emoreg.inference.predict import predict
from emoreg.inference.temperature import read_calibration, temperature_of
from emoreg.runs.run import CALIBRATION, WEIGHTS, Run
from emoreg.runtime.progress import Progress
from refusing import refusal


def with_values(**values: Any) -> Callable[[str], str]:
    """Return a function that changes values in the text of a record."""
    return lambda text: json.dumps(json.loads(text) | values)


DAMAGES: tuple[Callable[[str], str], ...] = (
    lambda text: "",
    lambda text: text[:40],
    lambda text: "[1]",
    lambda text: "[" * 100_000,
    lambda text: text.replace('"weights"', '"wights"'),
    *(with_values(temperature=value) for value in (0.0, -1.5, math.nan, "1.5", True, None)),
    with_values(images=0),
    with_values(fitted_on="\x1b[2J"),
    *(with_values(nll=value) for value in (math.inf, 10**400)),
    *(with_values(format=value) for value in ("1", -1, True)),
)


@pytest.fixture
def run(runs: Path, tmp_path: Path, quiet: Progress) -> Path:
    """A calibrated run."""
    folder = Path(shutil.copytree(runs / "learned", tmp_path / "learned"))
    calibrate(folder, device="cpu", progress=quiet)
    return folder


def test_a_temperature_is_a_number_as_text_too_or_that_of_the_run(run: Path) -> None:
    loaded = load_run(run)
    assert temperature_of(loaded, None) is None
    numbers: tuple[Any, ...] = (2, 2.0, "2", "2e0", np.float32(2))
    for given in numbers:
        assert temperature_of(loaded, given) == (2.0, "given by hand")
    own = temperature_of(loaded, "calibrated")
    assert own is not None and own.value == read_calibration(Run(run)).temperature
    assert "validation images, whose NLL it changes from" in own.origin


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, r"temperature: must be from 0\.01 to 100, not 0"),
        (-1.5, "not -1.5"),
        (math.nan, "not nan"),
        (math.inf, "not inf"),
        ("1000", "not 1000"),
        ("nan", "must be calibrated or a number, not 'nan'"),
        ("warm", "must be calibrated or a number, not 'warm'"),
        ("", "must be calibrated or a number"),
        ("calibrate", r"\(did you mean 'calibrated'\?\)"),
        (True, "must be a number, not True"),
        ([1.0], "must be a number"),
    ],
)
def test_anything_else_is_refused_before_anything_is_predicted(given: Any, message: str, runs: Path) -> None:
    with pytest.raises(SettingError, match=message):
        predict(runs / "plain", np.zeros((4, 4, 3), np.uint8), temperature=given)


def test_a_run_without_a_calibration_is_refused_with_what_to_do(runs: Path) -> None:
    folder = runs / "plain"
    message = refusal(lambda: temperature_of(load_run(folder), "calibrated"))
    assert f"{folder} has no calibration.json: " in message and f"'emoreg calibrate {folder}', or give a" in message


def test_a_damaged_record_is_refused_with_what_to_do(run: Path) -> None:
    path = run / CALIBRATION
    good = path.read_text()
    for damage in DAMAGES:
        path.write_text(damage(good))
        with pytest.raises(UserError, match=r"calibration\.json is damaged .*; run 'emoreg calibrate .*' again"):
            read_calibration(Run(run))
    path.write_text(json.dumps(json.loads(good) | {"format": 99}))
    assert "update emoreg" in refusal(lambda: read_calibration(Run(run)))
    path.unlink()
    path.mkdir()
    assert "cannot be read: Is a directory" in refusal(lambda: read_calibration(Run(run)))


def test_a_temperature_for_other_weights_is_refused(run: Path, runs: Path) -> None:
    before = read_calibration(Run(run))
    (run / WEIGHTS).rename(run / "kept")
    shutil.copy(runs / "gated" / WEIGHTS, run / WEIGHTS)
    assert "was fitted for other weights than" in refusal(lambda: read_calibration(Run(run)))
    (run / "kept").replace(run / WEIGHTS)
    assert read_calibration(Run(run)) == before

"""The temperature T of a classifier: the one that its run records, or a number.

Temperature scaling (Guo et al. 2017): the softmax takes z / T instead of the logits z. `calibrate` fits T and writes
calibration.json into the run's folder:

| key | content |
|---|---|
| temperature | T |
| fitted_on, images, checksum | the images that it was fitted on, their number, and a checksum of their pixels |
| nll, nll_scaled | mean cross-entropy of these images in nats, for z and for z / T |
| weights | SHA-256 of the run's weights |
| environment | time, versions, git revision, hardware, device and precision |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from emoreg.config.setting_types import shown, typed_value
from emoreg.config.strict_yaml import decimal_number
from emoreg.errors import SettingError, UserError, closest, is_plain, shortened
from emoreg.inference.load import LoadedRun, require_classes
from emoreg.runs.inputs import weights_checksum
from emoreg.runs.run import CALIBRATION, WEIGHTS, Run
from emoreg.runtime.safe_io import read_json, write_json, writing
from emoreg.suites.calibration import MAX_TEMPERATURE

CALIBRATED = "calibrated"  # instead of a number: the temperature that the run records
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """The temperature of a run, and what it was fitted on.

    Args:
        temperature: T, in [0.01, 100].
        fitted_on: name of the images.
        images: their number.
        nll: their mean cross-entropy in nats, as trained.
        nll_scaled: the same at the temperature.
    """

    temperature: float
    fitted_on: str
    images: int
    nll: float
    nll_scaled: float

    @property
    def origin(self) -> str:
        """Where the temperature comes from, in words."""
        change = f"from {self.nll:.3f} to {self.nll_scaled:.3f}"
        return f"fitted on {self.images:,} {self.fitted_on}, whose NLL it changes {change}"


class Temperature(NamedTuple):
    """A temperature T to divide logits by, and where it comes from, in words."""

    value: float
    origin: str


def temperature_of(loaded: LoadedRun, given: float | str | None) -> Temperature | None:
    """Return the temperature that is meant by an argument `temperature`.

    Args:
        loaded: the run.
        given: a number in [0.01, 100], as text too; "calibrated" for the run's own; None for none.

    Raises:
        UserError: the run has no calibration, one that is damaged, or one for other weights; or it predicts something
            other than one class per image.
        SettingError: `given` is something else.
    """
    if given is None:
        return None
    require_classes(loaded, "a temperature")
    if isinstance(given, str) and given == CALIBRATED:
        calibration = read_calibration(Run(loaded.folder))
        return Temperature(calibration.temperature, calibration.origin)
    if isinstance(given, str) and decimal_number(given) is None:
        hint = closest(given, [CALIBRATED])
        raise SettingError("temperature", f"must be {CALIBRATED} or a number, not {shown(given)}{hint}")
    return Temperature(checked_temperature(given), "given by hand")


def checked_temperature(value: Any) -> float:
    """Return a temperature as a float; raise SettingError unless it is a number in [0.01, 100]."""
    temperature: float = typed_value(float, value, "temperature")
    if not 1 / MAX_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        limits = f"from {1 / MAX_TEMPERATURE:g} to {MAX_TEMPERATURE:g}"
        raise SettingError("temperature", f"must be {limits}, not {temperature:g}")
    return temperature


def write_calibration(run: Run, calibration: Calibration, checksum: str, environment: Mapping[str, Any]) -> None:
    """Write calibration.json atomically.

    Args:
        run: the run, with its weights.
        calibration: what was fitted.
        checksum: of the pixels that it was fitted on.
        environment: of the fit.

    Raises:
        UserError: the file cannot be written.
    """
    path = run.folder / CALIBRATION
    content = {"format": FORMAT, **dataclasses.asdict(calibration), "checksum": checksum}
    with writing(path):
        write_json(path, {**content, "weights": weights_checksum(run.folder / WEIGHTS), "environment": environment})


def read_calibration(run: Run) -> Calibration:
    """Read calibration.json of a run.

    Raises:
        UserError: there is none; it is damaged, of a later format, or for other weights than the run has now.
    """
    path = run.folder / CALIBRATION
    if not path.exists():
        raise UserError(
            f"{run.folder} has no {CALIBRATION}: fit its temperature with 'emoreg calibrate {run.folder}', or give a "
            "number"
        )
    try:
        content = read_json(path)
        version = content["format"]
        if type(version) is not int or version < 1:
            raise ValueError("format is not a number of a format")
        if version > FORMAT:
            raise UserError(f"{path} is of format {version}, and this emoreg reads {FORMAT}: update emoreg")
        calibration, weights = _calibration(content), content["weights"]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError) as error:
        reason = shortened(f"no {error}" if isinstance(error, KeyError) else str(error))
        raise UserError(f"{path} is damaged ({reason}); run 'emoreg calibrate {run.folder}' again") from None
    if weights != weights_checksum(run.folder / WEIGHTS):
        raise UserError(
            f"{path} was fitted for other weights than {run.folder / WEIGHTS} holds now; run "
            f"'emoreg calibrate {run.folder}' again"
        )
    return calibration


def _calibration(content: Mapping[str, Any]) -> Calibration:
    """Check the values of calibration.json. Raises ValueError, KeyError or TypeError."""
    name, images = content["fitted_on"], content["images"]
    if not isinstance(name, str) or not is_plain(name):
        raise ValueError("fitted_on is not plain text")
    if type(images) is not int or images < 1:
        raise ValueError("images is not a number of images")
    temperature, *losses = (content[key] for key in ("temperature", "nll", "nll_scaled"))
    if not all(type(value) is float and math.isfinite(value) for value in (temperature, *losses)):
        raise ValueError("temperature, nll and nll_scaled are not decimal numbers")
    return Calibration(checked_temperature(temperature), name, images, *losses)

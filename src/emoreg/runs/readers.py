"""Safe loading of a run's files: code in them is never executed, and damage raises a one-line UserError."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.setting_types import MAX_INTEGER
from emoreg.errors import UserError, is_plain, shortened
from emoreg.runtime.safe_io import read_bounded, read_json, require_regular

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

FORMAT = 1  # of checkpoints and weights; files of a later format are refused
SPLITS = ("test", "validation", "train")  # keys of final.json that hold metrics
FROM_0_TO_1 = (
    *("accuracy", "accuracy_non_emotional", "accuracy_emotional", "ece", "lambda", "per_class", "confidence"),
    *("balanced_accuracy", "macro_f1", "top5_accuracy", "majority_baseline", "exact_match"),
    *("mean_average_precision", "mean_average_precision_non_emotional", "mean_average_precision_emotional"),
)


def read_state(path: Path) -> dict[str, Any]:
    """Load a checkpoint: numbers, names and tensors, on the CPU.

    Raises:
        UserError: the file is damaged, of a later format, or not a checkpoint.
    """
    import torch

    try:
        _require_stored_zip(path)
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        reason = shortened(str(error), 200) or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own message explains how to run the code anyway
            reason = "truncated, or it holds code, which is never run"
        raise UserError(f"{path} is damaged ({reason}); delete it to start this run over") from None
    _refuse_later_format(path, state)
    if not isinstance(state.get("rows"), list):
        raise UserError(f"{path} is damaged ('rows' does not hold metrics); delete it to start this run over")
    return state


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load weights (safetensors), and the run's metadata about them.

    Raises:
        UserError: the file is damaged, of a later format, or holds NaN or infinities.
    """
    from safetensors import SafetensorError, safe_open

    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = dict(json.loads(file.metadata()["emoreg"]))
            weights = with_constant_lambda({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as the weights of a run: {shortened(str(error), 300)}") from None
    _refuse_later_format(path, metadata)
    refuse_non_finite(path, weights)
    return weights, {key: value for key, value in metadata.items() if key != "format"}


def refuse_non_finite(path: Path | str, weights: Mapping[str, Any]) -> None:
    """Raise UserError for NaN or infinities in weights, except in attention masks of 0 and -∞."""
    if (name := non_finite(weights)) is not None:
        raise UserError(f"{path}: {shortened(name)} holds NaN or infinity: the file is damaged")


def non_finite(weights: Mapping[str, Any]) -> str | None:
    """Return the name of the first weights with NaN or infinities, except attention masks of 0 and -∞; else None."""
    import torch

    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        finite = value.isfinite()
        if finite.all():
            continue
        is_mask = (value[~finite] == -math.inf).all() and (value[finite] == 0).any() and (value[finite] == 0).all()
        if not is_mask:
            return name
    return None


def with_constant_lambda(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a constant λ of 0 or 1, which the first edition stored as its log-odds ρ = ±∞, to λ itself."""
    converted = {}
    for name, value in weights.items():
        if name.endswith("regulation.rho") and value.isinf().all():
            converted[name.removesuffix("rho") + "lam"] = value.sigmoid()
        else:
            converted[name] = value
    return converted


def read_final(path: Path) -> dict[str, Any]:
    """Load the final metrics; raise UserError if the file is damaged, or a value has the wrong type or range."""
    final = read_record(path)
    wrong = [key for key, value in final.items() if not _is_valid(key, value)]
    if wrong or "test" not in final:
        key = shortened([*wrong, "test"][0])
        raise UserError(f"{path} is damaged ({key} is not what emoreg writes there)")
    return final


def read_metrics(path: Path) -> pd.DataFrame:
    """Load metrics.csv, one row of numbers per epoch; raise UserError if the file is damaged."""
    import pandas as pd

    try:
        content = read_bounded(path)
        if not content.strip(b'"\r\n'):  # saved within the first epoch
            return pd.DataFrame({"epoch": []})
        table = pd.read_csv(io.BytesIO(content), dtype=str)  # before pandas 4, its own conversion to numbers is inexact
        if "epoch" not in table:
            raise ValueError("it has no column 'epoch'")
        if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first columns for an index
            raise ValueError("its rows are longer than its header")
        columns: dict[str, list[float]] = {}
        for name, texts in table.items():
            try:
                columns[str(name)] = [_number(text) for text in texts]
            except ValueError:
                raise ValueError(f"{shortened(repr(name))} does not hold numbers") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({shortened(str(error))}); delete it to continue without its curves"
        ) from None
    return pd.DataFrame(columns, dtype=float)


def _number(text: str | float) -> float:
    """Convert a cell of metrics.csv (NaN if empty); raise ValueError for text, and for numbers out of range."""
    value = float(text)
    if math.isinf(value) and "inf" not in str(text):
        raise ValueError("out of range")
    return value


def read_record(path: Path) -> dict[str, Any]:
    """Load a JSON object; raise UserError if the file is damaged."""
    try:
        return dict(read_json(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (TypeError, ValueError) as error:
        raise damaged_record(path, shortened(str(error))) from None


def damaged_record(path: Path, reason: str) -> UserError:
    """Return the error for a damaged record that the next start of the run writes again."""
    return UserError(f"{path} is damaged ({reason}); delete it, and run the same command again to write a new one")


def _refuse_later_format(path: Path, content: Mapping[str, Any]) -> None:
    version = content.get("format", FORMAT)
    if type(version) is not int or version > FORMAT:
        raise UserError(f"{path} is of format {shortened(str(version))}, and this emoreg reads {FORMAT}: update emoreg")


def _require_stored_zip(path: Path) -> None:
    """Raise ValueError for files that torch.save does not write today: older formats, compressed or damaged zips."""
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed, which torch.save's files are not")
            damaged = archive.testzip()  # torch.load does not compare checksums
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"not a file of torch.save: {error}") from None
    if damaged is not None:
        raise ValueError(f"{shortened(damaged)} has another checksum than when it was written")


def _is_valid(key: str, value: Any) -> bool:
    """Whether a value of final.json has the type and range of its key."""
    if value is None:
        return True
    if key in ("seconds", "images_per_second", "parameters", "flops"):
        return _is_number(value)
    if key == "lambda":
        return isinstance(value, list) and bool(value) and all(map(_is_fraction, value))
    if key == "classes":
        return isinstance(value, list) and all(isinstance(name, str) and is_plain(name) for name in value)
    if key in ("images", "takeover"):
        return _is_number(value) or (isinstance(value, dict) and all(map(_is_number, value.values())))
    return key not in SPLITS or (
        isinstance(value, dict) and all(map(_is_valid_metric, value, value.values())) and _has_bit_per_image(value)
    )


def _has_bit_per_image(metrics: Mapping[str, Any]) -> bool:
    """Whether "correct", if it is stored, has as many bits as there are images, rounded up to bytes."""
    packed, images = metrics.get("correct"), metrics.get("images")
    return packed is None or (type(images) is int and len(base64.b64decode(packed)) == (images + 7) // 8)


def _is_valid_metric(name: str, value: Any) -> bool:
    if name == "correct":  # a bit per image; see stages.metrics.packed
        return value is None or (isinstance(value, str) and _is_base64(value))
    if name == "checksum":
        return value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None)
    if name == "reliability":  # a table: a list per column, all of the same length
        return (
            isinstance(value, dict)
            and all(isinstance(column, list) and _are_valid(key, column) for key, column in value.items())
            and len({len(column) for column in value.values()}) == 1
        )
    if name == "confusion":  # a square matrix of images by true and predicted class
        return isinstance(value, list) and all(_is_counts(row) and len(row) == len(value) for row in value)
    if name == "per_class":
        return isinstance(value, list) and _are_valid(name, value)
    return _are_valid(name, [value])


def _is_counts(row: Any) -> bool:
    return isinstance(row, list) and all(type(count) is int and 0 <= count <= MAX_INTEGER for count in row)


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def _are_valid(name: str, values: list[Any]) -> bool:
    """Whether all values of a metric are numbers in its range, or null (a class without images)."""
    is_in_range = _is_fraction if name in FROM_0_TO_1 else _is_number
    return all(value is None or is_in_range(value) for value in values)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= MAX_INTEGER)


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and (math.isnan(value) or 0 <= value <= 1)  # NaN is the mean over no images

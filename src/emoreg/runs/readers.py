"""Reading what runs have saved, whoever has had it since: no code in it is run, and damage is told in one line."""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg.config.recipe import MAX_INTEGER
from emoreg.errors import UserError, is_plain, shortened
from emoreg.runtime.safe_io import read_bounded, read_json, require_regular

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

FORMAT = 1  # of checkpoints and of what weights say of themselves; a later one is refused, never guessed at
KEPT = ("test", "validation", "train")  # splits in final.json
FROM_0_TO_1 = ("accuracy", "accuracy_non_emotional", "accuracy_emotional", "ece", "lambda", "per_class", "confidence")


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint: numbers, names and tensors, on the CPU.

    Raises:
        UserError: the file is damaged, of a later format, or of anything else.
    """
    import torch

    try:
        _require_stored_zip(path)
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        reason = shortened(str(error), 200) or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own words tell how to run the code after all
            reason = "it is cut off, or holds code, which is not run"
        raise UserError(f"{path} is damaged ({reason}); delete it to start this run anew") from None
    _refuse_later_format(path, state)
    return state


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (safetensors), and what the run said of them.

    Raises:
        UserError: the file is damaged, of a later format, or holds what are no numbers.
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
    """UserError for NaN and infinities in weights; a mask of 0 and -∞, as attention has, is none."""
    import torch

    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        finite = value.isfinite()
        is_mask = (value[~finite] == -math.inf).all() and (value[finite] == 0).any() and (value[finite] == 0).all()
        if not finite.all() and not is_mask:
            raise UserError(f"{path}: {shortened(name)} holds NaN or infinity: the file is damaged")


def with_constant_lambda(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights in which a constant λ of 0 or 1 is stored as itself.

    The first edition stored its log-odds ρ, which are infinite.
    """
    infinite = {name for name, value in weights.items() if name.endswith("regulation.rho") and value.isinf().all()}
    return {
        name.removesuffix("rho") + "lam" if name in infinite else name: value.sigmoid() if name in infinite else value
        for name, value in weights.items()
    }


def read_final(path: Path) -> dict[str, Any]:
    """The final metrics. UserError if they are damaged, or not what a report can rely on."""
    final = read_record(path)
    wrong = next((key for key, value in final.items() if not _fits(key, value)), "" if "test" in final else "test")
    if wrong:
        raise UserError(f"{path} is damaged ({shortened(wrong)} is not what emoreg writes there)")
    return final


def read_metrics(path: Path) -> pd.DataFrame:
    """One row an epoch, all of it numbers. UserError if it is damaged."""
    import pandas as pd

    try:
        content = read_bounded(path)
        if not content.strip(b'"\r\n'):  # saved before the first epoch was done
            return pd.DataFrame({"epoch": []})
        table = pd.read_csv(io.BytesIO(content))
        other = [name for name in table if table[name].dtype.kind not in "iuf"]
        if other or "epoch" not in table:
            raise ValueError(f"{shortened(repr(other[0]))} has no numbers" if other else "it has no column 'epoch'")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({shortened(str(error))}); delete it to go without its curves") from None
    return table


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file that holds names and values. UserError if it does not."""
    try:
        return dict(read_json(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (TypeError, ValueError) as error:
        reason = shortened(str(error))
        raise UserError(f"{path} is damaged ({reason}); delete it, and the same command makes it anew") from None


def _refuse_later_format(path: Path, content: Mapping[str, Any]) -> None:
    found = content.get("format", FORMAT)
    if type(found) is not int or found > FORMAT:
        raise UserError(f"{path} is of format {shortened(str(found))}, and this emoreg reads {FORMAT}: update emoreg")


def _require_stored_zip(path: Path) -> None:
    """ValueError for what torch.save does not write today: its older formats, and zips that grow when unpacked."""
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            grows = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"no file of torch.save: {error}") from None
    if grows:
        raise ValueError("it is compressed, as torch.save leaves none")


def _fits(key: str, value: Any) -> bool:
    """Whether a value of final.json is of the kind that stands below this key."""
    if value is None:
        return True
    if key in ("seconds", "images_per_second", "parameters", "flops"):
        return _is_number(value)
    if key == "lambda":
        return isinstance(value, list) and bool(value) and all(map(_is_share, value))
    if key == "classes":
        return isinstance(value, list) and all(isinstance(name, str) and is_plain(name) for name in value)
    if key == "images":
        return _is_number(value) or (isinstance(value, dict) and all(map(_is_number, value.values())))
    return key not in KEPT or (isinstance(value, dict) and all(map(_fits_metric, value, value.values())))


def _fits_metric(name: str, value: Any) -> bool:
    if name == "reliability":
        columns = list(value.items()) if isinstance(value, dict) else []
        return all(isinstance(column, list) and _fits_all(key, column) for key, column in columns) and (
            len({len(column) for _, column in columns}) == 1
        )
    if name == "per_class":
        return isinstance(value, list) and _fits_all(name, value)
    return _fits_all(name, [value])


def _fits_all(name: str, values: list[Any]) -> bool:
    """Whether all are numbers, or null as for a class without images."""
    kind = _is_share if name in FROM_0_TO_1 else _is_number
    return all(value is None or kind(value) for value in values)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= MAX_INTEGER)


def _is_share(value: Any) -> bool:
    return _is_number(value) and not (value < 0 or value > 1)  # NaN is what it is of no image

"""Checks of the loss's inputs, before PyTorch misinterprets them."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor

from emoreg.config.loss import LossSettings, LossWeights
from emoreg.config.schema import Task
from emoreg.config.setting_types import shown, typed_value
from emoreg.errors import SettingError

DEFAULT_WEIGHTS = {has_two: LossSettings().weights(has_two) for has_two in (False, True)}
TASKS: tuple[Task, ...] = get_args(Task)
NAMES = {"multilabel": "a multilabel task", "regression": "a regression"}
ROUNDING = 0.02  # tolerance of a sum of probabilities: mixed and smoothed in bfloat16 it is off by up to 0.01
IGNORED = -100  # the default ignore_index of `cross_entropy`: an image without a label
NOTHING = "nothing to train: set the weight of the regulated response, or of one that exists, above 0"


def checked_weights(weights: Any) -> LossWeights:
    """Return the weights of a loss from a LossWeights or a sequence of numbers. Raise SettingError for others."""
    if isinstance(weights, LossSettings):
        raise SettingError("weights", "must be a LossWeights, not a LossSettings; give its weights(has_two=True)")
    if not isinstance(weights, tuple | list) or len(weights) not in (3, 4):
        given = weights if isinstance(weights, int | float | str) else f"a {type(weights).__name__}"
        raise SettingError("weights", f"must be a LossWeights(a, a_n, a_e, m), not {given}")
    weights = LossWeights(*weights)
    for name, weight in weights._asdict().items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise SettingError(f"weights.{name}", f"must be a number, at least 0 and finite, not {weight!r}")
    return weights


def require_labels(labels: Any, logits: Tensor, task: Task = "classification") -> None:
    """Raise SettingError for labels whose shape, dtype or values do not fit the task; see `models.tasks`."""
    if not isinstance(labels, Tensor):
        raise SettingError("labels", f"must be a tensor, not a {type(labels).__name__}; give torch.tensor(labels)")
    if task not in TASKS:
        typed_value(Task, task, "task")
    if task != "classification":
        _require_values(labels, logits, task)
    elif labels.shape == logits.shape[:1] and labels.dtype in (torch.int64, torch.uint8):
        _require_indices(labels, logits.shape[1])
    elif labels.shape == logits.shape and labels.is_floating_point():
        _require_probabilities(labels)
    else:
        raise SettingError("labels", _fault_of_class_labels(labels, logits))


def _fault_of_class_labels(labels: Tensor, logits: Tensor) -> str:
    count, shape = len(logits), tuple(labels.shape)
    if shape == (count,):
        return f"must be int64, not {_dtype(labels)}; give labels.long()"
    if shape == (count, 1):
        return f"must be of shape ({count},), not {shape}; give labels[:, 0]"
    probabilities = f"probabilities {tuple(logits.shape)} of mixed images"
    return f"must be class indices ({count},) or {probabilities}, not {_dtype(labels)} {shape}"


def _require_probabilities(labels: Tensor) -> None:
    """Raise SettingError for a row that is not a distribution over the classes."""
    if not _can_be_read(labels):
        return
    sums = labels.sum(dim=1, dtype=torch.float32)
    is_wrong = ~((labels >= 0).all(dim=1) & ((sums - 1).abs() <= ROUNDING))  # NaN is neither at least 0 nor near 1
    if not is_wrong.any():
        return
    row = int(is_wrong.nonzero()[0])
    total, least = sums[row].item(), labels[row].min().item()
    if not math.isfinite(total):
        reason = f"must be finite, and row {row} is not"
    elif least < 0:
        reason = f"must be probabilities of the classes, not {least:g} as in row {row}; values need task='regression'"
    else:
        is_multi_hot = ((labels[row] == 0) | (labels[row] == 1)).all()
        hint = "several labels per image need task='multilabel'" if is_multi_hot else "divide each row by its sum"
        reason = f"must be probabilities of the classes, which add up to 1, not to {total:g} as in row {row}; {hint}"
    raise SettingError("labels", reason)


def _require_values(labels: Tensor, logits: Tensor, task: Task) -> None:
    """Raise SettingError for labels that are not one number per output, in a multilabel task from 0 to 1."""
    wanted = "from 0 (absent) to 1 (present)" if task == "multilabel" else "values"
    if labels.shape != logits.shape or not labels.is_floating_point():
        hint = "; give labels.float()" if labels.shape == logits.shape else "; a column for each output"
        if labels.shape == logits.shape[:1] and logits.shape[1] == 1:
            hint = "; give labels[:, None].float()"
        given, kind = f"{_dtype(labels)} {tuple(labels.shape)}", NAMES[task]
        raise SettingError("labels", f"must be float {tuple(logits.shape)}, {wanted}, in {kind}, not {given}{hint}")
    if not _can_be_read(labels):
        return
    least, largest = labels.min().item(), labels.max().item()
    if task == "multilabel" and not (least >= 0 and largest <= 1):
        wrong = largest if least >= 0 else least
        raise SettingError("labels", f"must be {wanted} in a multilabel task, not {wrong:g}")
    if not math.isfinite(largest - least):
        raise SettingError("labels", "must be finite in a regression")


def _can_be_read(labels: Tensor) -> bool:
    """Whether there are values that can be checked without a graph break or waiting for a GPU."""
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or not labels.numel():
        return False
    try:
        labels.flatten()[0].item()
    except RuntimeError:  # within torch.func.vmap
        return False
    return True


def _dtype(labels: Tensor) -> str:
    return str(labels.dtype).removeprefix("torch.")


def _require_indices(labels: Tensor, classes: int) -> None:
    """Raise SettingError for an index outside 0 to K - 1."""
    if not _can_be_read(labels):
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if highest == IGNORED:
        raise SettingError("labels", f"are {IGNORED} (no label) in every image, so there is no loss; skip the batch")
    if highest >= classes or IGNORED < lowest < 0:
        wrong = highest if highest >= classes else lowest
        raise SettingError("labels", f"must be 0 to {classes - 1}, the indices of {classes} classes, not {wrong}")


def require_smoothing(label_smoothing: float, task: Task = "classification") -> None:
    """Raise SettingError for label smoothing outside [0, 1), or above 0 in a regression."""
    if not 0 <= label_smoothing < 1:
        raise SettingError("label_smoothing", f"must lie in [0, 1), not {label_smoothing}")
    if label_smoothing and task == "regression":
        raise SettingError("label_smoothing", f"must be 0 in a regression, not {label_smoothing:g}")


def checked_class_weights(given: Any, classes: int, task: Task) -> Tensor | None:
    """Return the weights of K classes as float32 (K,), from a tensor or a sequence of numbers; None stays None.

    Raises:
        SettingError: the task is not classification; not K numbers; invalid weights.
    """
    if given is None:
        return None
    if task != "classification":
        raise SettingError("class_weights", f"must be None in {NAMES[task]}: images do not have exactly one class")
    try:
        weights = torch.as_tensor(given, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        reason = f"must be a number for each of {classes} classes, not {shown(given)}"
        raise SettingError("class_weights", reason) from None
    if tuple(weights.shape) != (classes,):
        raise SettingError("class_weights", f"must be of shape ({classes},), not {tuple(weights.shape)}")
    if _can_be_read(weights) and not (weights.isfinite().all() and weights.min() >= 0 and weights.max() > 0):
        raise SettingError("class_weights", f"must be finite, at least 0 and not all 0, not {shown(weights.tolist())}")
    return weights

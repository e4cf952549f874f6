"""What goes into the loss of a regulated classifier, checked before PyTorch takes one thing for another."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from emoreg.config.loss import LossSettings, LossWeights
from emoreg.errors import SettingError

DEFAULT_WEIGHTS = {has_two: LossSettings().weights(has_two) for has_two in (False, True)}
IGNORED = -100  # of `cross_entropy`: an image without a label
NOTHING = "nothing to train: set the weight of the regulated response, or of one that exists, above 0"


def checked_weights(weights: Any) -> LossWeights:
    """The weights of a loss, from a LossWeights or its numbers in order. SettingError for anything else."""
    if isinstance(weights, LossSettings):
        raise SettingError("weights", "must be a LossWeights, not a LossSettings; give its weights(has_two=True)")
    if not isinstance(weights, tuple | list) or len(weights) not in (3, 4):
        shown = weights if isinstance(weights, int | float | str) else f"a {type(weights).__name__}"
        raise SettingError("weights", f"must be a LossWeights(a, a_n, a_e, m), not {shown}")
    given = weights if isinstance(weights, LossWeights) else LossWeights(*weights)
    for name, weight in zip(given._fields, given, strict=True):
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise SettingError(f"weights.{name}", f"must be a number, at least 0 and finite, not {weight!r}")
    return given


def require_labels(labels: Any, logits: Tensor) -> None:
    """SettingError for labels that are neither class indices (B,) nor probabilities (B, K)."""
    if not isinstance(labels, Tensor):
        raise SettingError("labels", f"must be a tensor, not a {type(labels).__name__}; give torch.tensor(labels)")
    count, shape = len(logits), tuple(labels.shape)
    if shape == (count,) and labels.dtype in (torch.int64, torch.uint8):
        _require_classes(labels, logits.shape[1])
        return
    if shape == tuple(logits.shape) and labels.is_floating_point():
        return
    if shape == (count,):
        reason = f"must be int64, not {str(labels.dtype).removeprefix('torch.')}; give labels.long()"
    elif shape == (count, 1):
        reason = f"must be of shape ({count},), not {shape}; give labels[:, 0]"
    else:
        reason = (
            f"must be class indices ({count},), or of mixed images probabilities {tuple(logits.shape)}, "
            f"not {str(labels.dtype).removeprefix('torch.')} {shape}"
        )
    raise SettingError("labels", reason)


def _require_classes(labels: Tensor, classes: int) -> None:
    """SettingError for an index outside 0 to K - 1. On CPUs only: a GPU would have to be waited for."""
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or not len(labels):
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if highest >= classes or IGNORED < lowest < 0:
        wrong = highest if highest >= classes else lowest
        raise SettingError("labels", f"must be 0 to {classes - 1}, the indices of {classes} classes, not {wrong}")


def require_share(label_smoothing: float) -> None:
    """SettingError for a label smoothing outside [0, 1)."""
    if not 0 <= label_smoothing < 1:
        raise SettingError("label_smoothing", f"must lie in [0, 1), not {label_smoothing}")

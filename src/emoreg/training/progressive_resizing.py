"""Progressive resizing: early steps train on smaller images and cost less."""

from __future__ import annotations

import torch
from torch import nn

from emoreg.config.training import TrainingSettings
from emoreg.errors import UserError
from emoreg.models.features import evaluation_mode

GROWING = 0.8  # share of the training over which images grow
STRIDE = 4  # pixels; sizes are multiples of it, so that feature maps can be halved twice


def progressive_size(size: int, training: TrainingSettings, epochs_done: float) -> int:
    """The side of the training images in pixels at a point of the training; see `training.initial_scale`.

    As in fast.ai's entry to DAWNBench (Howard 2018) and EfficientNetV2 (Tan & Le 2021, section 4).

    Args:
        size: full side, in pixels.
        training: initial_scale and epochs are used.
        epochs_done: in [0, training.epochs].
    """
    grown = min(epochs_done / (GROWING * training.epochs), 1.0)
    scale = training.initial_scale + (1 - training.initial_scale) * grown
    return min(round(scale * size / STRIDE) * STRIDE, size) if scale < 1 else size


def refuse_fixed_size(model: nn.Module, size: int, training: TrainingSettings) -> None:
    """Raise UserError if `training.initial_scale` needs images smaller than the network accepts."""
    small = progressive_size(size, training, 0.0)
    if small == size:
        return
    device = next(model.parameters()).device
    try:
        with evaluation_mode(model):
            model(torch.zeros(2, 3, small, small, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"training.initial_scale is {training.initial_scale}, but this network accepts only images of {size} "
            f"pixels, not {small} ({error}): set it to 1"
        ) from None

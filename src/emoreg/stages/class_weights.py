"""Weights of classes in the loss; see `LossSettings.class_weights`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emoreg.config.loss import ClassWeights
from emoreg.errors import SettingError, nearest


def class_weights(setting: ClassWeights, labels: Tensor, classes: Sequence[str]) -> Tensor | None:
    """Return the weight of each class, float32 (K,), with mean 1 over the training images; None for equal weights.

    It is on the device of the labels.

    Args:
        setting: loss.class_weights of the recipe.
        labels: int64 (N,), of the training images.
        classes: K names, in the order of the labels.

    Raises:
        SettingError: an unknown class (the closest name is suggested), or not one weight per class.
    """
    if setting == "none":
        return None
    images = labels.cpu().bincount(minlength=len(classes)).double()  # Apple's GPUs have no double precision
    if setting == "balanced":
        weights = torch.where(images > 0, 1 / images, 0.0)  # 0 for a class without training images
    elif isinstance(setting, Mapping):
        for name in setting:
            if name not in classes:
                raise SettingError("loss.class_weights", f"no class is called '{name}'{nearest(name, classes)}")
        weights = images.new_tensor([setting.get(name, 1.0) for name in classes])
    else:
        if len(setting) != len(classes):
            given = f"must have a weight for each of the {len(classes)} classes, not {len(setting)}"
            raise SettingError("loss.class_weights", f"{given}; or name those that differ, as {{{classes[0]}: 2}}")
        weights = images.new_tensor([float(weight) for weight in setting])
    return (weights * images.sum() / (weights * images).sum()).float().to(labels.device)


def describe_class_weights(weights: Tensor, classes: Sequence[str]) -> str:
    """Describe the smallest and the largest weight with their classes."""
    low, high = int(weights.argmin()), int(weights.argmax())
    return f"class weights from {weights[low]:.3g} ({classes[low]}) to {weights[high]:.3g} ({classes[high]})"

"""Resolve `auto`: the identity of a run includes the kind of device and the precision that it was trained with."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

from emoreg.config.recipe import Recipe
from emoreg.config.training import Precision, TrainingSettings


@dataclass(frozen=True)
class Machine:
    """The kind of device and the precision that training.device and training.precision of `auto` stand for."""

    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Kind of device."""
    precision: Precision = "32-true"
    """Precision on it."""


@functools.cache
def this_machine() -> Machine:
    """Return what `auto` stands for in this process."""
    from emoreg.training.fabric import first_device, resolve_precision

    device = first_device()
    return Machine(device, resolve_precision(TrainingSettings(), device))


def has_auto(recipe: Recipe) -> bool:
    """Return whether the device or the precision of the recipe is `auto`."""
    return "auto" in (recipe.training.device, recipe.training.precision)


def resolved(recipe: Recipe, machine: Machine | None) -> Recipe:
    """Replace `auto` in a recipe. The device need not exist.

    Args:
        recipe: of either stage.
        machine: None for this machine, which is examined only if a setting is `auto`.
    """
    training = recipe.training
    if not has_auto(recipe):
        return recipe
    machine = machine or this_machine()
    device = machine.device if training.device == "auto" else training.device
    precision = training.precision
    if precision == "auto" and recipe.edition == 1 and device == "cpu":
        precision = "32-true"  # the only precision on CPUs in that edition
    elif precision == "auto" and device == machine.device:
        precision = machine.precision
    elif precision == "auto":  # a device of another kind, perhaps elsewhere: GPUs since 2020 compute in bfloat16
        precision = "bf16-mixed" if device == "cuda" else "32-true"
    return dataclasses.replace(recipe, training=dataclasses.replace(training, device=device, precision=precision))

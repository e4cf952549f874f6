"""Stored outputs for two fixed images, which reveal that a user-supplied network has other code than the trained one.

Networks with the same parameters but another `forward` accept the same weights. Networks that a recipe describes are
built by this library and need no such check (ours).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emoreg.config.recipe import PretrainRecipe
from emoreg.data.images.augment import normalise
from emoreg.errors import UserError
from emoreg.models.features import evaluation_mode
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import WEIGHTS, Run

KEY = "probe"  # in the metadata of weights: a list of numbers for each output tensor
IMAGES = 2
TOLERANCE = 0.05  # difference relative to the largest output, for other devices, precisions and versions
REPEATABLE = TOLERANCE / 10  # the same between two calls of one network


def probe_outputs(network: nn.Module, image_size: int) -> dict[str, list[list[float]]]:
    """Return metadata with a network's outputs; empty if they are not finite or repeatable, or the network fails."""
    with evaluation_mode(network):
        first, second = _outputs(network, image_size), _outputs(network, image_size)
    if first is None or second is None or not _allclose(first, second, REPEATABLE):
        return {}
    return {KEY: [[float(f"{number:.5g}") for number in output.tolist()] for output in first]}


def refuse_other_outputs(run: Run, name: str, network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Refuse a network that has a run's weights but gives other outputs than the network that the run trained.

    Nothing is compared if no outputs are stored: for networks of a recipe, and in runs of earlier versions.

    Args:
        run: finished.
        name: the argument that the network was passed as.
        network: with the run's weights.
        metadata: of the weights.

    Raises:
        UserError: the outputs differ, or the stored ones are damaged.
    """
    if KEY not in metadata:
        return
    try:
        stored = [torch.tensor(output, dtype=torch.float32) for output in metadata[KEY]]
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{run.folder / WEIGHTS} is damaged: its {KEY} is not lists of numbers") from None
    recipe = run.recipe
    size = recipe.stimuli.image_size if isinstance(recipe, PretrainRecipe) else recipe.target.image_size
    with evaluation_mode(network):
        outputs = _outputs(network, size)
    if outputs is not None and not _allclose(stored, outputs, TOLERANCE):
        raise UserError(
            f"{name} has the weights of {run.folder} but gives different outputs: build it with the same code"
        )


def _outputs(network: nn.Module, image_size: int) -> list[Tensor] | None:
    """Flat float32 outputs for two images; None if they are not finite or the network fails.

    A classifier has up to three: the mixture and both branches. The pixels come from a hash, so that they never change.
    """
    shape = (IMAGES, 3, image_size, image_size)
    pixels = np.frombuffer(hashlib.shake_256(b"probe").digest(int(np.prod(shape))), np.uint8).reshape(shape)
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    images = normalise(torch.from_numpy(pixels.copy()))
    try:
        images = images.to(device)
        with torch.autocast(device.type, enabled=False):
            if isinstance(network, RegulatedClassifier):
                outputs = [part for part in network(images, whole=True)[:3] if part is not None]
            else:
                outputs = [network(images)]
        outputs = [output.flatten().float().cpu() for output in outputs]
    except Exception:  # the user's code may raise anything, and no training should be lost for it
        return None
    return outputs if all(output.isfinite().all() for output in outputs) else None


def _allclose(first: Sequence[Tensor], second: Sequence[Tensor], tolerance: float) -> bool:
    """Whether differences are at most `tolerance` times the largest number of each tensor of `first`."""
    return len(first) == len(second) and all(
        one.shape == other.shape and bool((one - other).abs().max() <= tolerance * one.abs().max())
        for one, other in zip(first, second, strict=True)
    )

"""What a network answers to two fixed images: so a network of the caller's with other code is known (ours).

With the same parameters it takes the same weights. A recipe's network is the library's own, and needs none of this.
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
from emoreg.models.features import tried_out
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import WEIGHTS, Run

KEY = "probe"  # in the metadata of weights: the numbers of each kind of answer
IMAGES = 2
SHARE = 0.05  # of the largest number, by which other devices, precisions and versions may be off
STEADY = SHARE / 10  # by which a network may be off from one time to the next


def probed(network: nn.Module, image_size: int) -> dict[str, list[list[float]]]:
    """For the metadata of a network's weights; empty for one that fails, or answers otherwise each time."""
    with tried_out(network):  # the second is not drawn as the first is
        first, second = (_answers(network, image_size) for _ in range(2))
    if first is None or second is None or not _are_alike(first, second, STEADY):
        return {}
    return {KEY: [[float(f"{number:.5g}") for number in answer.tolist()] for answer in first]}


def refuse_other_answers(run: Run, name: str, network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Refuse a network that was given a run's weights and answers otherwise than the one that it trained.

    Nothing is compared where no answers are stored: of a recipe's network, and in runs of earlier versions.

    Args:
        run: finished.
        name: what the network was given as.
        network: with the weights.
        metadata: of the weights.

    Raises:
        UserError: it does; or the answers that are stored are damaged.
    """
    if KEY not in metadata:
        return
    try:
        stored = [torch.tensor(answer, dtype=torch.float32) for answer in metadata[KEY]]
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{run.folder / WEIGHTS} is damaged: its {KEY} is not lists of numbers") from None
    recipe = run.recipe
    size = recipe.stimuli.image_size if isinstance(recipe, PretrainRecipe) else recipe.target.image_size
    with tried_out(network):
        found = _answers(network, size)
    if found is not None and not _are_alike(stored, found, SHARE):
        raise UserError(
            f"{name} answers otherwise than the one that {run.folder} trained, with the same weights: build it alike"
        )


def _answers(network: nn.Module, image_size: int) -> list[Tensor] | None:
    """What a network answers in float32, each kind of answer flat; None if that is not finite.

    The images are of numbers that no version of a library draws otherwise.
    """
    shape = (IMAGES, 3, image_size, image_size)
    pixels = np.frombuffer(hashlib.shake_256(b"probe").digest(int(np.prod(shape))), np.uint8).reshape(shape)
    images = normalise(torch.from_numpy(pixels.copy()))
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    try:
        with torch.autocast(device.type, enabled=False):
            parts: Sequence[Tensor | None] = (
                network(images.to(device), whole=True)[:3]  # of the mixture and of both branches
                if isinstance(network, RegulatedClassifier)
                else (network(images.to(device)),)
            )
        answers = [part.flatten().float().cpu() for part in parts if part is not None]
    except Exception:  # of another's code anything: no training is lost for it
        return None
    return answers if all(answer.isfinite().all() for answer in answers) else None


def _are_alike(first: Sequence[Tensor], second: Sequence[Tensor], share: float) -> bool:
    """Whether no number is off by more than a share of the largest of its kind."""
    return len(first) == len(second) and all(
        one.shape == other.shape and bool((one - other).abs().max() <= share * one.abs().max())
        for one, other in zip(first, second, strict=True)
    )

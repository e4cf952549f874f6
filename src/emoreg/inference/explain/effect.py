"""Measure what the emotional response changes on labelled images, and in which classes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emoreg.data.images.batches import evaluation_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.inference.predict import at_lambda
from emoreg.models.regulation import RegulatedClassifier
from emoreg.report.statistics import Interval, interval

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SplitResponses:
    """Responses to N labelled images, one value per image.

    Args:
        labels: int64 (N,).
        probability: probability of the true class, with λ as trained.
        probability_without: the same at λ = 0; equal to `probability` if there is no emotional branch.
        correct: whether the most probable class is the true one, with λ as trained.
        correct_without: the same at λ = 0.
        lam: λ; with one λ per class, the λ of the true class. None without an emotional branch.
        features: f(x) (M, D) of the requested images.
        emotional_features: e(x) (M, De) of the same images; None without an emotional branch.
    """

    labels: NDArray[np.int64]
    probability: Floats
    probability_without: Floats
    correct: NDArray[np.bool_]
    correct_without: NDArray[np.bool_]
    lam: Floats | None
    features: Floats
    emotional_features: Floats | None

    @property
    def change(self) -> Floats:
        """How much the emotional response changes the true class's probability, (N,) in [-1, 1]."""
        return self.probability - self.probability_without


@dataclass(frozen=True)
class ClassEffect:
    """Effect of the emotional response on one class.

    Args:
        name: the class.
        change: change of the true class's probability from λ = 0 to λ as trained, mean over the class's images.
        accuracy_without: accuracy on the class at λ = 0.
        accuracy: accuracy on the class with λ as trained.
        lam: mean λ; NaN without an emotional branch.
    """

    name: str
    change: Interval
    accuracy_without: float
    accuracy: float
    lam: float


@torch.inference_mode()
def split_responses(
    model: RegulatedClassifier, images: ImageSet, rows: NDArray[np.int64], fabric: Fabric
) -> SplitResponses:
    """Classify all images in one pass.

    Args:
        model: classifier in evaluation mode, on the device.
        images: labelled images, on the device.
        rows: the images whose features are kept, in ascending order.
        fabric: device and precision.
    """
    networks = {"plain": model.backbone, "emotional": model.encoder}
    current: dict[str, Tensor] = {}  # features of the current batch

    def keep(name: str, _module: nn.Module, _inputs: tuple[Any, ...], features: Tensor) -> None:
        current[name] = features

    parts: list[tuple[Tensor, ...]] = []
    kept: dict[str, list[Tensor]] = {name: [] for name in networks}
    start = 0
    with contextlib.ExitStack() as hooks:
        for name, network in networks.items():
            if network is not None:
                hooks.enter_context(network.register_forward_hook(functools.partial(keep, name)))
        for batch, labels in evaluation_batches(images):
            with fabric.autocast():
                response = model.respond(batch)
            without = response if response.emotional is None else at_lambda(response, 0.0, model.mix)
            truth = labels[:, None]
            both_logits = response.logits.float(), without.logits.float()
            probabilities = [logits.softmax(dim=1).gather(1, truth)[:, 0] for logits in both_logits]
            correct = [logits.argmax(dim=1) == labels for logits in both_logits]
            lam = torch.zeros_like(probabilities[0])
            if response.lam is not None:
                lam = response.lam.float().expand_as(response.logits).gather(1, truth)[:, 0]
            parts.append(tuple(values.cpu() for values in (labels, *probabilities, *correct, lam)))
            in_batch = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(labels))] - start
            start += len(labels)
            for name, features in current.items():
                kept[name].append(features[torch.from_numpy(in_batch).to(features.device)].float().cpu())
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    is_regulated = model.encoder is not None
    return SplitResponses(
        labels=columns[0],
        probability=columns[1],
        probability_without=columns[2],
        correct=columns[3],
        correct_without=columns[4],
        lam=columns[5] if is_regulated else None,
        features=torch.cat(kept["plain"]).numpy(),
        emotional_features=torch.cat(kept["emotional"]).numpy() if is_regulated else None,
    )


def class_effects(responses: SplitResponses, classes: Sequence[str]) -> list[ClassEffect]:
    """Compute the effect on every class that has images, the largest increase of probability first."""
    effects = []
    for number, name in enumerate(classes):
        rows = responses.labels == number
        if rows.any():
            effects.append(
                ClassEffect(
                    name,
                    interval(responses.change[rows].tolist()),
                    float(responses.correct_without[rows].mean()),
                    float(responses.correct[rows].mean()),
                    float("nan") if responses.lam is None else float(responses.lam[rows].mean()),
                )
            )
    return sorted(effects, key=lambda effect: -effect.change.mean)

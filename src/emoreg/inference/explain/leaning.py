"""What labelled images say of a classifier: how much it leans on its emotional response, and its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
class Looked:
    """Of N labelled images, one value an image.

    Args:
        labels: int64 (N,).
        with_emotion: the probability of the true class, as trained.
        without_emotion: the same at λ = 0. Without an emotional branch it is the same.
        is_right, was_right: whether the most probable class is the true one, as trained and at λ = 0.
        lam: λ; with one λ a class that of the true class. None without an emotional branch.
        features: f(x) (M, D) of those images that were asked for.
        emotional_features: e(x) (M, De) of the same; None without an emotional branch.
    """

    labels: NDArray[np.int64]
    with_emotion: Floats
    without_emotion: Floats
    is_right: NDArray[np.bool_]
    was_right: NDArray[np.bool_]
    lam: Floats | None
    features: Floats
    emotional_features: Floats | None

    @property
    def change(self) -> Floats:
        """What the emotional response changes in the probability of the true class (N,), in [-1, 1]."""
        return self.with_emotion - self.without_emotion


@dataclass(frozen=True)
class Leaning:
    """How much one class leans on the emotional response.

    Args:
        name: of the class.
        change: mean change of the true class's probability between λ = 0 and λ as trained, over the class's images.
        was_right, is_right: accuracy in the class at λ = 0 and as trained.
        lam: mean λ.
    """

    name: str
    change: Interval
    was_right: float
    is_right: float
    lam: float


@torch.inference_mode()
def look(model: RegulatedClassifier, images: ImageSet, rows: NDArray[np.int64], fabric: Fabric) -> Looked:
    """One pass over all images.

    Args:
        model: in evaluation, on the device.
        images: labelled, on the device.
        rows: whose features are kept, rising.
        fabric: device and precision.
    """
    caught: dict[str, Tensor] = {}

    def catch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Any, ...], features: Tensor) -> None:
            caught[name] = features

        return hook

    hooks = [model.backbone.register_forward_hook(catch("plain"))]
    if model.encoder is not None:
        hooks.append(model.encoder.register_forward_hook(catch("emotional")))
    parts: list[tuple[Tensor, ...]] = []
    kept: dict[str, list[Tensor]] = {"plain": [], "emotional": []}
    start = 0
    try:
        for batch, labels in evaluation_batches(images):
            with fabric.autocast():
                response = model.respond(batch)
            without = response if response.emotional is None else at_lambda(response, 0.0, model.mix)
            truth = labels[:, None]
            pairs = [answer.logits.float() for answer in (response, without)]
            chosen = [logits.softmax(dim=1).gather(1, truth)[:, 0] for logits in pairs]
            right = [logits.argmax(dim=1) == labels for logits in pairs]
            lam = torch.zeros_like(chosen[0])
            if response.lam is not None:
                lam = response.lam.float().expand_as(response.logits).gather(1, truth)[:, 0]
            parts.append(tuple(values.cpu() for values in (labels, *chosen, *right, lam)))
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(labels))] - start
            start += len(labels)
            for name, features in caught.items():
                kept[name].append(features[torch.from_numpy(inside).to(features.device)].float().cpu())
    finally:
        for hook in hooks:
            hook.remove()
    truths, with_emotion, without_emotion, is_right, was_right, lams = (
        torch.cat(values).numpy() for values in zip(*parts, strict=True)
    )
    is_regulated = model.encoder is not None
    return Looked(
        truths,
        with_emotion,
        without_emotion,
        is_right,
        was_right,
        lams if is_regulated else None,
        torch.cat(kept["plain"]).numpy(),
        torch.cat(kept["emotional"]).numpy() if is_regulated else None,
    )


def leanings(looked: Looked, classes: Sequence[str]) -> list[Leaning]:
    """Every class that has images, those that lean on the emotional response most first."""
    found = []
    for number, name in enumerate(classes):
        inside = looked.labels == number
        if inside.any():
            found.append(
                Leaning(
                    name,
                    interval(looked.change[inside].tolist()),
                    float(looked.was_right[inside].mean()),
                    float(looked.is_right[inside].mean()),
                    float("nan") if looked.lam is None else float(looked.lam[inside].mean()),
                )
            )
    return sorted(found, key=lambda leaning: -leaning.change.mean)


def project(features: Floats, method: str, seed: int) -> tuple[Floats, str]:
    """Features (M, D) on a plane (M, 2), and what was done, in a few words.

    Args:
        features: of at least 3 images.
        method: "pca", or "tsne" (van der Maaten & Hinton 2008), which shows neighbours and not distances.
        seed: of t-SNE.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if not np.ptp(features, axis=0).max() > 0:  # scikit-learn's t-SNE crashes on them; NaN too
        return np.zeros((len(features), 2), np.float32), "all features are the same"
    if method == "pca":
        analysis = PCA(2, random_state=seed)
        plane = analysis.fit_transform(features)
        share = float(np.nan_to_num(analysis.explained_variance_ratio_).sum())
        return plane.astype(np.float32), f"first two principal components, {100 * share:.0f} % of the variance"
    count, width = features.shape
    if width > 50:  # as its authors do: it takes away noise, and time
        features = PCA(min(50, count), random_state=seed).fit_transform(features)
    perplexity = min(30.0, (count - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    return plane.astype(np.float32), f"t-SNE, perplexity {perplexity:.0f}"

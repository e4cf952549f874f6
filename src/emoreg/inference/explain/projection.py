"""Project features to two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["tsne", "pca"]


@dataclass(frozen=True)
class Projection:
    """Features of one branch in two dimensions.

    Args:
        title: which features.
        points: (M, 2).
        description: how they were projected, in a few words.
        method: the method used; None if all features are the same.
    """

    title: str
    points: NDArray[np.float32]
    description: str
    method: Method | None


def project(title: str, features: NDArray[np.float32], method: Method, seed: int) -> Projection:
    """Project features.

    Args:
        title: which features they are.
        features: features of at least 3 images, (M, D).
        method: "pca", or "tsne" (van der Maaten & Hinton 2008), which preserves neighbours but not distances.
        seed: seed of the method.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if not np.ptp(features, axis=0).max() > 0:  # scikit-learn's t-SNE crashes on constant features; also for NaN
        return Projection(title, np.zeros((len(features), 2), np.float32), "all features are the same", None)
    if method == "pca":
        pca = PCA(2, random_state=seed)
        points = pca.fit_transform(features)
        share = float(np.nan_to_num(pca.explained_variance_ratio_).sum())
        description = f"first two principal components, {100 * share:.0f} % of the variance"
    else:
        count, width = features.shape
        if width > 50:  # recommended by its authors: less noise, and faster
            features = PCA(min(50, count), random_state=seed).fit_transform(features)
        perplexity = min(30.0, (count - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
        description = f"t-SNE, perplexity {perplexity:.0f}"
    return Projection(title, points.astype(np.float32), description, method)

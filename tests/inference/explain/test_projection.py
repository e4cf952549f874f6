from __future__ import annotations

import numpy as np
import pytest

from emoreg.inference.explain.projection import Method, project


@pytest.mark.parametrize(("method", "description"), [("pca", "first two principal components"), ("tsne", "t-SNE")])
def test_two_groups_of_features_stay_apart(method: Method, description: str) -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(40, 60)).astype(np.float32)
    features[20:] += 8
    projection = project("features", features, method, seed=0)
    plane = projection.points
    assert plane.shape == (40, 2) and description in projection.description
    centres = plane[:20].mean(axis=0), plane[20:].mean(axis=0)
    spread = max(plane[:20].std(), plane[20:].std())
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    np.testing.assert_array_equal(plane, project("features", features, method, seed=0).points)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_very_few_or_constant_features_can_be_projected(method: Method) -> None:
    few = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    for features in (few, np.zeros((12, 4), np.float32)):
        assert np.isfinite(project("features", features, method, 0).points).all()

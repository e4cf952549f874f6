"""Shortcuts for a frozen emotional encoder: batch norms folded away, or features computed only once (ours)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emoreg.config.augment import AugmentSettings
from emoreg.data.images.batches import Batch, evaluation_batches, view_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.models.folding import folded


class FrozenFeatures:
    """Features e(x) (B, De) of training batches, without gradients.

    Args:
        encoder: e, in evaluation mode; it is not changed, and not used before the first batch.
        images: the images that the batches come from.
        views: None to compute the features of each batch. Otherwise e sees each image in this many fixed views, and
            each step draws one of them from torch's default generator; 0 means the unchanged image. All features,
            (views, N, De), are computed at the first batch and kept on the device.
        augment: draws the views.
        seed: of the views.
    """

    def __init__(
        self, encoder: nn.Module, images: ImageSet, views: int | None, augment: AugmentSettings, seed: int
    ) -> None:
        self.encoder, self.images, self.views, self.augment, self.seed = encoder, images, views, augment, seed
        self.folded: nn.Module | None = None
        self.features: Tensor | None = None  # (views, N, De)
        self._outside_of_graphs = torch.compiler.disable(self._features)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the features of a batch."""
        features: Tensor = self._outside_of_graphs(batch)
        return features

    @torch.no_grad()
    def _features(self, batch: Batch) -> Tensor:
        if self.folded is None:
            self.folded = folded(self.encoder, batch.images)
        if self.views is None:
            return self.folded(batch.images)
        if self.features is None:
            self.features = self._features_of_all_images(self.folded)
        if len(self.features) == 1:
            return self.features[0].index_select(0, batch.rows)
        views = torch.randint(len(self.features), batch.rows.shape, device=batch.rows.device)
        return self.features[views, batch.rows]

    def _features_of_all_images(self, encoder: nn.Module) -> Tensor:
        views: list[Iterable[Tensor]] = [(pixels for pixels, _ in evaluation_batches(self.images))]
        if self.views:
            drawn = (view_batches(self.images, self.augment, self.seed, view) for view in range(self.views))
            views = [(batch.images for batch in batches) for batches in drawn]
        return torch.stack([torch.cat([encoder(pixels) for pixels in view]) for view in views])

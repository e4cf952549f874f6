"""What a frozen emotional encoder makes cheap: batch norm folded away, or features computed only once (ours)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from emoreg.config.schema import AugmentSettings
from emoreg.data.images.batches import Batch, evaluation_batches, view_batches
from emoreg.data.images.decode import ImageSet

TOLERANCE = 1e-3  # of folded features, relative to the largest: rounding stays far below it, a wrong trace does not


def frozen_features(
    encoder: nn.Module, images: ImageSet, views: int | None, augment: AugmentSettings, seed: int
) -> Callable[[Batch], Tensor]:
    """What gives e(x) (B, De), without gradients, for the batches that a classifier is trained on.

    Args:
        encoder: e, in evaluation; nothing of it is changed. Looked at when the first batch comes.
        images: that the batches come from.
        views: None to compute the features of each batch as it comes. Otherwise e sees each image in so many fixed
            views, and in each step one of them, drawn from torch's default generator; 0 is the image as it is. All
            features, (views, N, De), are computed when the first batch comes, and held on the device.
        augment: how the views differ.
        seed: of the views.
    """
    fast: list[nn.Module] = []
    held: list[Tensor] = []

    @torch.no_grad()
    def compute(batch: Batch) -> Tensor:
        if not fast:
            fast.append(folded(encoder, batch.images))
        return fast[0](batch.images)

    @torch.no_grad()
    def look_up(batch: Batch) -> Tensor:
        if not held:
            of_batch = folded(encoder, batch.images)

            def of_all(batches: Iterable[tuple[Tensor, ...]]) -> Tensor:
                return torch.cat([of_batch(pixels) for pixels, *_ in batches])

            if views:
                passes = [of_all(view_batches(images, augment, seed, view)) for view in range(views)]
            else:
                passes = [of_all(evaluation_batches(images))]
            held.append(torch.stack(passes))
        features = held[0]
        if len(features) == 1:
            return features[0].index_select(0, batch.rows)
        return features[torch.randint(len(features), batch.rows.shape, device=batch.rows.device), batch.rows]

    return torch.compiler.disable(compute if views is None else look_up)


@torch.no_grad()
def folded(encoder: nn.Module, images: Tensor) -> nn.Module:
    """A copy with batch norm folded into the convolutions: the same features but for rounding.

    Args:
        encoder: in evaluation.
        images: (B, 3, H, W), to see that it is so.

    Returns:
        The encoder itself, if it has no batch norm or torch.fx cannot trace it or traces it wrongly.
    """
    from torch.fx.experimental.optimization import fuse

    if not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()):
        return encoder
    try:
        fast = fuse(copy.deepcopy(encoder)).to(memory_format=torch.channels_last)
        features, expected = fast(images), encoder(images)
    except Exception:  # whatever the tracing of someone's own module raises
        logging.getLogger(__name__).debug("an encoder cannot be traced and is used as it is", exc_info=True)
        return encoder
    is_same = (features - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return fast if is_same else encoder

"""Compute saliency maps: how much each pixel contributes to a response, by integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoreg.models.regulation import RegulatedClassifier
from emoreg.runtime.optional import importing

Branch = Literal["non_emotional", "emotional", "regulated"]
STEPS = 32  # of the integral; Sundararajan et al. 2017 find 20 to 300 enough
BATCH_SIZE = 64  # of a forward pass
BLUR = 1 / 40  # standard deviation of the Gaussian blur for display, as a share of the side


@dataclass(frozen=True)
class SaliencyMap:
    """How much each pixel contributes to the logit of one class, compared with a blank image.

    Args:
        branch: the response that the logit belongs to.
        values: float32 (S, S), summed over the colours; positive values are evidence for the class.
        logit_gain: logit of the image minus logit of the blank image; `values` sum to it up to `residual`.
        residual: numerical error of the integral, in logits.
    """

    branch: Branch
    values: NDArray[np.float32]
    logit_gain: float
    residual: float


def saliency_maps(model: RegulatedClassifier, images: Tensor, classes: Sequence[int]) -> list[tuple[SaliencyMap, ...]]:
    """Compute saliency maps of each branch by integrated gradients.

    Integrated gradients (Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks") depend on no
    particular layer, and so treat every architecture alike. The baseline is an image of the mean colour, which is 0
    after normalisation (ours).

    Args:
        model: classifier in evaluation mode, on the device of the images. Gradients also pass through a frozen encoder.
        images: normalised images, (B, 3, S, S).
        classes: (B,): for each image the class whose logit is explained.

    Returns:
        For each image the maps of the non-emotional, the emotional and the regulated response; without an emotional
        branch, only of the last.

    Raises:
        UserError: captum is not installed.
    """
    with importing("captum", "saliency", "'emoreg[explain]'"):
        from captum.attr import IntegratedGradients

    branches: tuple[Branch, ...] = ("non_emotional", "emotional", "regulated") if model.encoder else ("regulated",)
    was_frozen, model.freeze_encoder = model.freeze_encoder, False  # freezing blocks gradients
    blank = torch.zeros_like(images[:1])

    def explain(branch: Branch, image: Tensor, chosen: int) -> SaliencyMap:
        def logits_of(batch: Tensor) -> Tensor:
            return getattr(model.respond(batch), "logits" if branch == "regulated" else branch)

        attributions = IntegratedGradients(logits_of).attribute(
            image, baselines=blank, target=chosen, n_steps=STEPS, internal_batch_size=BATCH_SIZE
        )
        with torch.no_grad():
            logit, blank_logit = logits_of(torch.cat([image, blank]))[:, chosen].tolist()
        values = attributions.detach().sum(dim=1)[0].float().cpu().numpy()
        return SaliencyMap(branch, values, logit - blank_logit, logit - blank_logit - float(values.sum()))

    try:
        pairs = zip(images.split(1), classes, strict=True)
        return [tuple(explain(branch, image, int(chosen)) for branch in branches) for image, chosen in pairs]
    finally:
        model.freeze_encoder = was_frozen


def agreement(first: SaliencyMap, second: SaliencyMap) -> float:
    """Pearson correlation of two maps over the pixels, in [-1, 1]; NaN if one of them is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(blurred(first.values).ravel(), blurred(second.values).ravel())[0, 1])


def blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur a map (S, S) for display: gradients of single pixels are noisy (Smilkov et al. 2017, "SmoothGrad")."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, sigma=max(BLUR * values.shape[0], 0.5)), np.float32)


def overlay(picture: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw a map over its image in grey: orange for evidence for the class, blue for evidence against it.

    Args:
        picture: uint8 (H, H, 3).
        values: (S, S). The strongest 1 % of the pixels get the full colour, so only places can be compared between
            maps, not strengths.

    Returns:
        uint8 (H, H, 3).
    """
    from PIL import Image

    side = picture.shape[0]
    scale = float(np.percentile(np.abs(values), 99)) or 1.0
    shown = np.clip(blurred(values) / scale, -1, 1)
    strength = np.asarray(Image.fromarray(shown).resize((side, side), Image.Resampling.BICUBIC))[..., None]
    strength = np.clip(strength, -1, 1)
    grey = picture.mean(axis=2, keepdims=True) * 0.45 + 0.55 * 160  # faded, so that both colours are visible
    colour = np.where(strength > 0, np.array((213.0, 94.0, 0.0)), np.array((0.0, 114.0, 178.0)))
    alpha = np.abs(strength) ** 0.7
    return np.clip(grey * (1 - alpha) + colour * alpha, 0, 255).astype(np.uint8)

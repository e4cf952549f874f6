"""Where both branches look: how much each pixel adds to a response, by integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoreg.errors import UserError
from emoreg.models.regulation import RegulatedClassifier

Branch = Literal["non_emotional", "emotional", "regulated"]
_FIELDS: dict[Branch, str] = {"non_emotional": "non_emotional", "emotional": "emotional", "regulated": "logits"}
STEPS = 32  # of the integral; Sundararajan et al. 2017 find 20 to 300 enough
AT_ONCE = 64  # images that go through the network together
BLUR = 1 / 40  # of the side: the width of the Gaussian over a map that is shown


@dataclass(frozen=True)
class Saliency:
    """How much each pixel adds to the logit of one class, compared with an image of nothing.

    Args:
        branch: whose logit.
        values: (S, S), float32, summed over the colours; positive speaks for the class.
        gained: the logit of the image minus that of nothing. The values add up to it but for `missed`.
        missed: what the steps of the integral leave out, in logits.
    """

    branch: Branch
    values: NDArray[np.float32]
    gained: float
    missed: float


def salient(model: RegulatedClassifier, images: Tensor, classes: Sequence[int]) -> list[tuple[Saliency, ...]]:
    """The saliency of each branch for each image, by integrated gradients (Sundararajan, Taly & Yan 2017, "Axiomatic
    attribution for deep networks"), which needs no particular layer and so treats every architecture alike.

    Nothing, where the integral begins, is an image of the mean colour: 0 after normalisation (ours).

    Args:
        model: in evaluation; on the device of the images. Gradients go through a frozen encoder too.
        images: normalised (B, 3, S, S).
        classes: whose logits are looked at, one an image.

    Returns:
        For each image the non-emotional, the emotional and the regulated branch; without an emotional one the last.

    Raises:
        UserError: captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise UserError("saliency needs captum: pip install 'emoreg[explain]'") from None

    branches: tuple[Branch, ...] = ("non_emotional", "emotional", "regulated") if model.encoder else ("regulated",)
    was_frozen, model.freeze_encoder = model.freeze_encoder, False  # it would keep gradients away from the pixels
    nothing = torch.zeros_like(images[:1])

    def look(branch: Branch, image: Tensor, chosen: int) -> Saliency:
        def logits_of(batch: Tensor) -> Tensor:
            return getattr(model.respond(batch), _FIELDS[branch])

        attributed = IntegratedGradients(logits_of).attribute(
            image, baselines=nothing, target=chosen, n_steps=STEPS, internal_batch_size=AT_ONCE
        )
        with torch.no_grad():
            full, empty = logits_of(torch.cat([image, nothing]))[:, chosen].tolist()
        values = attributed.detach().sum(dim=1)[0].float().cpu().numpy()
        return Saliency(branch, values, full - empty, full - empty - float(values.sum()))

    try:
        pairs = zip(images.split(1), classes, strict=True)
        return [tuple(look(branch, image, int(chosen)) for branch in branches) for image, chosen in pairs]
    finally:
        model.freeze_encoder = was_frozen


def agreement(first: Saliency, second: Saliency) -> float:
    """Pearson's correlation of two maps over the pixels, in [-1, 1]; NaN where one of them is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(blurred(first.values).ravel(), blurred(second.values).ravel())[0, 1])


def blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map (S, S) as it is shown: single pixels of gradients are noise (Smilkov et al. 2017, "SmoothGrad")."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, sigma=max(BLUR * values.shape[0], 0.5)), np.float32)


def overlay(picture: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map over its image in grey: orange speaks for the class, blue against it.

    Args:
        picture: (H, H, 3).
        values: (S, S). The strongest hundredth of its pixels has the full colour, so maps compare in place only.
    """
    from PIL import Image

    side = picture.shape[0]
    scale = float(np.percentile(np.abs(values), 99)) or 1.0
    shown = np.clip(blurred(values) / scale, -1, 1)
    strength = np.asarray(Image.fromarray(shown).resize((side, side), Image.Resampling.BICUBIC))[..., None]
    strength = np.clip(strength, -1, 1)
    grey = picture.mean(axis=2, keepdims=True) * 0.45 + 0.55 * 160  # faded, so that both colours show on it
    colour = np.where(strength > 0, np.array((213.0, 94.0, 0.0)), np.array((0.0, 114.0, 178.0)))
    alpha = np.abs(strength) ** 0.7
    return np.clip(grey * (1 - alpha) + colour * alpha, 0, 255).astype(np.uint8)

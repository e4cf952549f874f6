"""Calibration: ECE, Brier score and NLL, before and after temperature scaling (Guo et al. 2017).

The temperature divides z. It is fitted on images that are not scored: on the run's validation images if it has any
beside its test images, and otherwise on half of the images, so that the figures are of the other half.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.data.images.splits import at_most
from emoreg.errors import UserError
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.metrics import calibration_error, reliability
from emoreg.suites.options import CalibrationOptions
from emoreg.suites.subject import Outputs, Scored, Subject, checksum_of, refuse_changed_images

MAX_TEMPERATURE = 100.0  # its inverse is the minimum; at these limits outputs are almost one-hot or uniform
MIN_IMAGES = 4  # for two halves


def score(subject: Subject, options: CalibrationOptions) -> Scored:
    """Compute ECE, Brier score and NLL.

    Returns:
        ece, in [0, 1], with 15 bins of confidence (`stages.metrics.reliability`); brier, in [0, 2], the mean over
        images of Σ (p - y)² over the classes (Brier 1950); nll, the mean cross-entropy in nats; the same for
        z / temperature as ece_scaled, brier_scaled and nll_scaled; and temperature. These four are NaN if all images
        that would fit the temperature are classified correctly: their NLL only falls with it, so that none is the best.

    Raises:
        UserError: too few images; validation images that have changed, so that the run may have been trained on some.
    """
    if subject.held_out is not None:
        refuse_changed_images(subject.run, subject.recipe, subject.held_out, "validation")
    scored = subject.predict(subject.scored)
    if subject.held_out is not None:
        fitted = subject.predict(subject.held_out)
        images, where = f"{len(scored.labels):,} {subject.name}", f"{len(fitted.labels):,} validation images"
    else:
        fitted, scored = _halves(scored, options.seed)
        why = ", as the run has no validation images" if subject.is_tested else ""
        images = f"half of the {subject.name}, {len(scored.labels):,}"
        where = f"the other half, {len(fitted.labels):,}{why}"
    before = _figures(scored.logits, scored.labels)
    if fitted.accuracy < 1:
        temperature = fit_temperature(fitted.logits, fitted.labels)
        after = _figures(scored.logits / temperature, scored.labels)
        images += f"; temperature fitted on {where}"
    else:
        temperature, after = math.nan, dict.fromkeys(before, math.nan)
        images += f"; temperature not fitted, as no prediction is wrong on {where}"
    figures = before | {f"{name}_scaled": value for name, value in after.items()} | {"temperature": temperature}
    return Scored(figures, images, {subject.name: checksum_of(subject.scored)})


def _halves(outputs: Outputs, seed: int) -> tuple[Outputs, Outputs]:
    """Split the outputs into two halves, drawn by seed with the classes in proportion."""
    count = len(outputs.labels)
    if count < MIN_IMAGES:
        raise UserError(f"calibration needs at least {MIN_IMAGES} images, not {count}: half of them fit a temperature")
    rows = np.arange(count)
    chosen = at_most(rows, outputs.labels.numpy(), count // 2, derive_seed(seed, "temperature"))
    parts = (torch.from_numpy(part) for part in (chosen, np.setdiff1d(rows, chosen)))
    first, second = (Outputs(*(column[part] for column in outputs)) for part in parts)
    return first, second


def _figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """ECE, Brier score and NLL of logits (N, K)."""
    probabilities = logits.double().softmax(dim=1)
    truth = F.one_hot(labels, logits.shape[1])
    return {
        "ece": calibration_error(reliability(logits, labels)),
        "brier": (probabilities - truth).square().sum(dim=1).mean().item(),
        "nll": F.cross_entropy(logits.double(), labels).item(),
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature T in [0.01, 100] that minimises the NLL of logits / T, which is convex in 1 / T.

    Args:
        logits: (N, K).
        labels: int64 (N,).
    """
    from scipy.optimize import minimize_scalar

    z = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(z / math.exp(log_temperature), labels).item()

    limit = math.log(MAX_TEMPERATURE)
    return math.exp(float(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x))

"""How far confidence can be believed: ECE, Brier score and NLL, before and after temperature scaling (Guo et al. 2017).

The temperature divides z. It is fitted on images that are not scored: the run's validation images if it has any beside
its test images, else half of the scored ones, and the figures are then of the other half.
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
from emoreg.suites.scored import Scored
from emoreg.suites.subject import Answers, Subject, checksum_of

LARGEST = 100.0  # temperature; the least is its inverse. At the ends answers are all certain, or all alike
LEAST_IMAGES = 4  # to fit on a half and measure on the other


def score(subject: Subject, options: CalibrationOptions) -> Scored:
    """ECE, Brier score and NLL.

    Returns:
        ece, in [0, 1], of 15 bins of confidence (`stages.metrics.reliability`); brier, in [0, 2], the mean over images
        of Σ (p - y)² over the classes (Brier 1950); nll, the mean cross-entropy, nats; the same of z / temperature as
        ece_scaled, brier_scaled and nll_scaled; and temperature.

    Raises:
        UserError: too few images.
    """
    answers = subject.answers(subject.scored)
    if subject.held_out is not None:
        fitted = subject.answers(subject.held_out)
        images = (
            f"{len(answers.labels):,} {subject.name}; temperature fitted on {len(fitted.labels):,} validation images"
        )
    else:
        fitted, answers = _halves(answers, options.seed)
        why = ", as the run has no validation images" if subject.is_tested else ""
        images = (
            f"half of the {subject.name}, {len(answers.labels):,}; temperature fitted on the other half, "
            f"{len(fitted.labels):,}{why}"
        )
    temperature = fit_temperature(fitted.logits, fitted.labels)
    before = _figures(answers.logits, answers.labels)
    after = _figures(answers.logits / temperature, answers.labels)
    figures = before | {f"{name}_scaled": value for name, value in after.items()} | {"temperature": temperature}
    return Scored(figures, images, {subject.name: checksum_of(subject.scored)})


def _halves(answers: Answers, seed: int) -> tuple[Answers, Answers]:
    """Two halves, drawn by seed with the classes in proportion."""
    count = len(answers.labels)
    if count < LEAST_IMAGES:
        raise UserError(
            f"calibration needs at least {LEAST_IMAGES} images, not {count}: half of them fit a temperature"
        )
    rows = np.arange(count)
    chosen = at_most(rows, answers.labels.numpy(), count // 2, derive_seed(seed, "temperature"))
    parts = (torch.from_numpy(part) for part in (chosen, np.setdiff1d(rows, chosen)))
    first, second = (Answers(*(column[part] for column in answers)) for part in parts)
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
    """The temperature T in [0.01, 100] with the least NLL of logits / T; the NLL is convex in 1 / T.

    Args:
        logits: (N, K).
        labels: int64 (N,).
    """
    from scipy.optimize import minimize_scalar

    z = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(z / math.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=(-math.log(LARGEST), math.log(LARGEST)), method="bounded")
    return math.exp(float(found.x))

"""Metrics of multilabel tasks and regressions; `stages.metrics` has those of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from emoreg.models.tasks import task_loss
from emoreg.stages.affective_heads import concordance


def label_metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Metrics of a multilabel task.

    A label is measured if some images have it, others do not, and its logits are finite; means are over these labels.

    Args:
        logits: log-odds (N, K).
        labels: float32 (N, K), 1 for the labels that an image has, else 0.

    Returns:
        per_class, the average precision of each label (scikit-learn's; None if it is not measured);
        mean_average_precision, its mean; macro_f1, the mean of F1 at a probability of 0.5; majority_baseline, the mean
        average precision of a constant prediction; exact_match, the share of images whose labels are all right; loss,
        the mean binary cross-entropy in nats.
    """
    from sklearn.metrics import average_precision_score

    holds, predicted = labels > 0.5, logits > 0
    measured = holds.any(dim=0) & ~holds.all(dim=0) & logits.isfinite().all(dim=0)
    precision = [
        float(average_precision_score(holds[:, label].numpy(), logits[:, label].numpy())) if is_measured else None
        for label, is_measured in enumerate(measured.tolist())
    ]
    right = (holds & predicted).sum(dim=0)
    f1 = 2 * right / (holds.sum(dim=0) + predicted.sum(dim=0)).clamp(min=1)
    return {
        "mean_average_precision": _mean([value for value in precision if value is not None]),
        "macro_f1": _mean(f1[measured].tolist()),
        "majority_baseline": _mean(holds.double().mean(dim=0)[measured].tolist()),
        "exact_match": (holds == predicted).all(dim=1).double().mean().item(),
        "loss": task_loss(logits, labels, task="multilabel").item(),
        "per_class": precision,
    }


def value_metrics(values: Tensor, labels: Tensor, names: Sequence[str] = ()) -> dict[str, Any]:
    """Metrics of a regression.

    Args:
        values: outputs (N, K).
        labels: float32 (N, K).
        names: K names.

    Returns:
        ccc_<name>, the concordance correlation coefficient (Lin 1989) of each value whose labels differ, in [-1, 1], 0
        for constant outputs; ccc, its mean; mae and rmse, the mean absolute and the root mean squared error over all
        values; loss, the mean squared error.
    """
    differ = (labels != labels[:1]).any(dim=0).tolist()
    ccc = concordance(values, labels).tolist() if len(values) > 1 else []
    named = {f"ccc_{name}": value for name, value, has_spread in zip(names, ccc, differ, strict=False) if has_spread}
    errors = (values - labels).double()
    return {
        "ccc": _mean([value for value, has_spread in zip(ccc, differ, strict=False) if has_spread]),
        **named,
        "mae": errors.abs().mean().item(),
        "rmse": errors.square().mean().sqrt().item(),
        "loss": task_loss(values, labels, task="regression").item(),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")

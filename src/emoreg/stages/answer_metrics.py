"""Metrics of several labels and of values; `stages.metrics` has those of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emoreg.models.answers import answer_loss
from emoreg.stages.affective_heads import concordance


def label_metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Metrics of several labels an image.

    Args:
        logits: log-odds (N, K).
        labels: float32 (N, K), 1 where a label holds and else 0.

    Returns:
        mean_average_precision, the mean over the labels that some images have and others lack of per_class, the average
        precision (scikit-learn's); macro_f1, the mean over these labels of F1 where more likely than not is an answer;
        majority_baseline, the mean average precision of one answer to all images; exact_match, the share of images
        whose labels are all right; loss, the mean binary cross-entropy in nats. None for a label that is not measured,
        as one with an answer that is not finite; the loss is not finite then.
    """
    from sklearn.metrics import average_precision_score

    holds, answers = labels > 0.5, logits > 0
    measured = (holds.any(dim=0) & ~holds.all(dim=0) & logits.isfinite().all(dim=0)).tolist()
    precision = [
        float(average_precision_score(holds[:, label].numpy(), logits[:, label].numpy())) if is_measured else None
        for label, is_measured in enumerate(measured)
    ]
    right = (holds & answers).sum(dim=0)
    f1 = 2 * right / (holds.sum(dim=0) + answers.sum(dim=0)).clamp(min=1)
    kept = torch.tensor(measured)
    return {
        "mean_average_precision": _mean([value for value in precision if value is not None]),
        "macro_f1": _mean(f1[kept].tolist()),
        "majority_baseline": _mean(holds.double().mean(dim=0)[kept].tolist()),
        "exact_match": (holds == answers).all(dim=1).double().mean().item(),
        "loss": answer_loss(logits, labels, task="multilabel").item(),
        "per_class": precision,
    }


def value_metrics(values: Tensor, labels: Tensor, names: Sequence[str] = ()) -> dict[str, Any]:
    """Metrics of values.

    Args:
        values: answers (N, K).
        labels: float32 (N, K).
        names: K names.

    Returns:
        ccc, the mean over the values that differ between the images of the concordance correlation coefficient (Lin
        1989), in [-1, 1], 0 of constant answers, and for each such name ccc_<name>; mae and rmse, the mean absolute and
        the root mean squared error over all values;
        loss, the mean squared error.
    """
    differ = (labels != labels[:1]).any(dim=0).tolist()
    ccc = concordance(values, labels).tolist() if len(values) > 1 else []
    of_names = {f"ccc_{name}": value for name, value, has_spread in zip(names, ccc, differ, strict=False) if has_spread}
    errors = (values - labels).double()
    return {
        "ccc": _mean([value for value, has_spread in zip(ccc, differ, strict=False) if has_spread]),
        **of_names,
        "mae": errors.abs().mean().item(),
        "rmse": errors.square().mean().sqrt().item(),
        "loss": answer_loss(values, labels, task="regression").item(),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")

"""Metrics of a classifier: accuracy, loss, calibration, which images are right, and the cost of a forward pass."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.schema import Task
from emoreg.data.images.image_set import ImageSet
from emoreg.models.features import forward_flops
from emoreg.models.regulation import RegulatedClassifier
from emoreg.stages.confusion import (
    MAX_KEPT,
    TOP,
    class_metrics,
    confusion_matrix,
    count_classes,
    per_class_accuracy,
    top_accuracy,
)
from emoreg.stages.outputs import outputs_in_order
from emoreg.stages.task_metrics import label_metrics, value_metrics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKSUM_BYTES = 16
BINS = 15  # of confidence, as Guo et al. 2017, "On calibration of modern neural networks"


@torch.no_grad()
def measure(
    classifier: RegulatedClassifier,
    images: ImageSet,
    fabric: Fabric,
    rows: Tensor | None = None,
    each_image: bool = False,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure a classifier on labelled images.

    Args:
        classifier: on the device; left in evaluation mode.
        images: labelled, on the device.
        fabric: device and precision.
        rows: int64 (M,), on the CPU, indices of the images to measure; None for all, in order.
        each_image: also return which images are right.
        names: of the values of a regression.

    Returns:
        images, their number. For a classification, of the regulated response: accuracy, loss (mean cross-entropy,
        nats), ece (expected calibration error, Guo et al. 2017), per_class (see `per_class_accuracy`), reliability
        (see `reliability`) and the metrics of `class_metrics`; with more than five classes top5_accuracy; with at most
        100 classes confusion, the matrix of `confusion_matrix` as K lists of K. For the other tasks the metrics of
        `task_metrics`. With an emotional branch also the outcome of each response alone (accuracy_non_emotional and
        accuracy_emotional, or the like for the other tasks), and lambda, the mean λ over the images. With `each_image`
        also checksum, a digest of the images' pixels in order, and for a classification correct (see `packed`): two
        runs can be compared image by image if and only if their checksums are equal.
    """
    classifier.eval()
    has_classes, outcome = classifier.task == "classification", OUTCOMES[classifier.task].name
    logits, labels, lams = [], [], []
    # For each response whether it is right, or its outputs. Logits of many classes would fill the memory.
    responses: dict[str, list[Tensor]] = {outcome: [], f"{outcome}_non_emotional": [], f"{outcome}_emotional": []}
    checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    for pixels, truth, response in outputs_in_order(images, fabric, classifier.respond, rows):
        logits.append(response.logits.float())
        labels.append(truth)
        if response.emotional is not None and response.lam is not None:
            lams.append(response.lam.expand_as(response.logits).mean(dim=1).float())
        for parts, output in zip(responses.values(), response[:3], strict=True):
            if output is not None:
                parts.append(output.argmax(dim=1) == truth if has_classes else output.float())
        if each_image:
            checksum.update(pixels.permute(0, 2, 3, 1).cpu().numpy().tobytes())
    z, y = torch.cat(logits).cpu(), torch.cat(labels).cpu()
    metrics = _task_metrics(classifier.task, z, y, names) | {"images": len(y)}
    if lams:
        for name, parts in responses.items():
            alone = torch.cat(parts).cpu()
            metrics[name] = _share(alone) if has_classes else _task_metrics(classifier.task, alone, y)[outcome]
        metrics["lambda"] = torch.cat(lams).mean().item()
    if each_image and has_classes:
        metrics["correct"] = packed(torch.cat(responses[outcome]).cpu())
    if each_image:
        metrics["checksum"] = checksum.hexdigest()
    return metrics


def _task_metrics(task: Task, z: Tensor, y: Tensor, names: Sequence[str] = ()) -> dict[str, Any]:
    """Metrics of the outputs z (N, K) of all images."""
    match task:
        case "classification":
            return _classification_metrics(z, y)
        case "multilabel":
            return label_metrics(z, y)
        case "regression":
            return value_metrics(z, y, names)


def _classification_metrics(z: Tensor, y: Tensor) -> dict[str, Any]:
    """Metrics of logits (N, K) and labels (N,)."""
    predictions, classes = z.argmax(dim=1), z.shape[1]
    bins, counts = reliability(z, y), count_classes(predictions, y, classes)
    return {
        "accuracy": _share(predictions == y),
        **class_metrics(counts),
        **({"top5_accuracy": top_accuracy(z, y)} if classes > TOP else {}),
        "loss": F.cross_entropy(z, y).item(),
        "ece": calibration_error(bins),
        "per_class": per_class_accuracy(counts),
        "reliability": bins,
        **({"confusion": confusion_matrix(predictions, y, classes).tolist()} if classes <= MAX_KEPT else {}),
    }


def _share(correct: Tensor) -> float:
    return int(correct.sum()) / len(correct)


def packed(correct: Tensor) -> str:
    """Encode which of N images are right, bool (N,), as text: packed into bits (`numpy.packbits`), in base64."""
    return base64.b64encode(np.packbits(correct.numpy()).tobytes()).decode("ascii")


def reliability(logits: Tensor, labels: Tensor) -> dict[str, list[Any]]:
    """Compute a reliability diagram (Guo et al. 2017): accuracy against confidence, the highest probability.

    Args:
        logits: (N, K).
        labels: int64 (N,).

    Returns:
        For each of 15 bins of equal width from 0 to 1: confidence and accuracy, the means over its images (None for an
        empty bin), and count, their number.
    """
    confidence = logits.softmax(dim=1).amax(dim=1)
    edges = torch.linspace(0, 1, BINS + 1, device=logits.device)
    bins = (torch.bucketize(confidence, edges, right=True) - 1).clamp(max=BINS - 1)  # 1 belongs to the last bin
    counts = bins.bincount(minlength=BINS).tolist()

    def means(values: Tensor) -> list[float | None]:
        sums = bins.bincount(weights=values, minlength=BINS).tolist()
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    hits = logits.argmax(dim=1) == labels
    return {"confidence": means(confidence.double()), "accuracy": means(hits.double()), "count": counts}


def calibration_error(bins: Mapping[str, Sequence[Any]]) -> float:
    """Compute the expected calibration error, in [0, 1], from `reliability` (Guo et al. 2017, equation 3)."""
    filled = [bin for bin in zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True) if bin[2]]
    return sum(abs(confidence - accuracy) * count for confidence, accuracy, count in filled) / sum(bins["count"])


def count_flops(classifier: RegulatedClassifier, image_size: int, fabric: Fabric) -> int:
    """Count the FLOPs of the forward pass of one image in evaluation mode.

    Only matrix products, convolutions and attention are counted; the rest is small beside them. The classifier is left
    unchanged.

    Args:
        classifier: on the device.
        image_size: side of the square input, in pixels.
        fabric: device and precision.
    """
    images = torch.zeros(2, 3, image_size, image_size, device=fabric.device)  # two: some models squeeze a batch of one
    with fabric.autocast():
        return forward_flops(classifier, images.to(memory_format=torch.channels_last)) // 2

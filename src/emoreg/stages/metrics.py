"""Metrics of a classifier: accuracy, loss, calibration, accuracy per class, and the cost of a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.data.images.batches import evaluation_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.models.regulation import RegulatedClassifier

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BINS = 15  # of confidence, as Guo et al. 2017, "On calibration of modern neural networks"


@torch.no_grad()
def measure(classifier: RegulatedClassifier, images: ImageSet, fabric: Fabric) -> dict[str, Any]:
    """Metrics on all of `images`.

    Returns:
        Of the regulated response: accuracy, loss (mean cross-entropy, nats), ece (expected calibration error, Guo et
        al. 2017), per_class (see `per_class_accuracy`) and reliability (see `reliability`); images, their number. With
        an emotional branch also accuracy_non_emotional and accuracy_emotional, of each response alone, and lambda, the
        mean λ over the images.
    """
    classifier.eval()
    logits, labels, lams = [], [], []
    hits = dict.fromkeys(("accuracy", "accuracy_non_emotional", "accuracy_emotional"), 0.0)
    for batch, truth in evaluation_batches(images):
        with fabric.autocast():
            response = classifier.respond(batch)
        logits.append(response.logits.float())
        labels.append(truth)
        if response.emotional is not None and response.lam is not None:
            lams.append(response.lam.expand_as(response.logits).mean(dim=1).float())
        for key, answer in zip(hits, (response.logits, response.non_emotional, response.emotional), strict=True):
            if answer is not None:
                hits[key] += (answer.argmax(dim=1) == truth).sum().item()
    z, y = torch.cat(logits).cpu(), torch.cat(labels).cpu()
    bins = reliability(z, y)
    metrics: dict[str, Any] = {
        "accuracy": hits["accuracy"] / len(images),
        "loss": F.cross_entropy(z, y).item(),
        "ece": calibration_error(bins),
        "images": len(images),
        "per_class": per_class_accuracy(z, y),
        "reliability": bins,
    }
    if lams:
        metrics |= {key: hits[key] / len(images) for key in ("accuracy_non_emotional", "accuracy_emotional")}
        metrics["lambda"] = torch.cat(lams).mean().item()
    return metrics


def per_class_accuracy(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Accuracy on the images of each class, K values; None for a class without images.

    Args:
        logits: (N, K).
        labels: int64 (N,).
    """
    images = labels.bincount(minlength=logits.shape[1])
    hits = labels[logits.argmax(dim=1) == labels].bincount(minlength=logits.shape[1])
    return [hit / count if count else None for hit, count in zip(hits.tolist(), images.tolist(), strict=True)]


def reliability(logits: Tensor, labels: Tensor) -> dict[str, list[Any]]:
    """A reliability diagram (Guo et al. 2017): accuracy against confidence, the highest probability.

    Args:
        logits: (N, K).
        labels: int64 (N,).

    Returns:
        For each of 15 bins of equal width from 0 to 1: confidence and accuracy, the means over its images (None if it
        is empty), and count, their number.
    """
    confidence = logits.softmax(dim=1).amax(dim=1)
    edges = torch.linspace(0, 1, BINS + 1, device=logits.device)
    bins = (torch.bucketize(confidence, edges, right=True) - 1).clamp(max=BINS - 1)  # 1 belongs to the last one
    counts = bins.bincount(minlength=BINS).tolist()

    def means(values: Tensor) -> list[float | None]:
        sums = bins.bincount(weights=values, minlength=BINS).tolist()
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    hits = logits.argmax(dim=1) == labels
    return {"confidence": means(confidence.double()), "accuracy": means(hits.double()), "count": counts}


def calibration_error(bins: Mapping[str, Sequence[Any]]) -> float:
    """The expected calibration error in [0, 1] from the bins of `reliability` (Guo et al. 2017, equation 3)."""
    filled = [bin for bin in zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True) if bin[2]]
    return sum(abs(confidence - accuracy) * count for confidence, accuracy, count in filled) / sum(bins["count"])


@torch.no_grad()
def count_flops(classifier: RegulatedClassifier, image_size: int, fabric: Fabric) -> int:
    """Floating-point operations of the forward pass of one image in evaluation.

    A multiplication and an addition count as two. Only matrix products, convolutions and attention are counted, by
    PyTorch's counter; the rest is small beside them. The classifier is left unchanged.

    Args:
        classifier: on the device.
        image_size: side of the square input, in pixels.
        fabric: device and precision.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    count = 2  # a model may squeeze a batch of one away
    images = torch.zeros(count, 3, image_size, image_size, device=fabric.device).to(memory_format=torch.channels_last)
    before = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    # Fused attention kernels differ between devices, and not all of them are counted.
    with fabric.autocast(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        classifier.respond(images)
    for module, was_training in before:
        module.training = was_training
    return int(counter.get_total_flops()) // count

"""Metrics of a network: accuracy, loss, calibration, which images are right, and the cost of a forward pass."""

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
from emoreg.data.images.augment import normalise
from emoreg.data.images.image_set import ImageSet
from emoreg.models.regulation import RegulatedClassifier
from emoreg.stages.answer_metrics import label_metrics, value_metrics
from emoreg.stages.confusion import MAX_KEPT, TOP, class_metrics, confusion_matrix, per_class_accuracy, top_accuracy

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BATCH = 512  # images at a time
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
    """Metrics on `images`; of what is answered, the classifier's task says.

    Args:
        classifier: on the device; left in evaluation.
        images: labelled, on the device.
        fabric: device and precision.
        rows: int64 (M,), on the CPU, the numbers of the images to measure; None for all, in their order.
        each_image: also tell which images are right.
        names: of the values of a regression.

    Returns:
        Of several labels and of values what `answer_metrics` has, and images. Of the regulated response of a
        classification: accuracy, loss (mean cross-entropy, nats), ece (expected calibration error, Guo et
        al. 2017), per_class (see `per_class_accuracy`) and reliability (see `reliability`); the metrics of
        `class_metrics`; with more than five classes top5_accuracy; with at most 100 confusion, how many images of each
        class (row) got which answer (column), K lists of K; images, their number. With
        an emotional branch also accuracy_non_emotional and accuracy_emotional, of each response alone (or by the
        outcome of the other tasks), and lambda, the mean λ over the images. With `each_image` also checksum, a digest
        of the images' pixels in their order, and of classes correct (see `packed`): two runs can be compared image by
        image if and only if their checksums are the same.
    """
    classifier.eval()
    rows = torch.arange(len(images)) if rows is None else rows
    has_classes, outcome = classifier.task == "classification", OUTCOMES[classifier.task].name
    logits, labels, lams = [], [], []
    # Of each response: whether it is right, or its values. Logits of many classes would fill the memory.
    alone: dict[str, list[Tensor]] = {outcome: [], f"{outcome}_non_emotional": [], f"{outcome}_emotional": []}
    checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    for pixels, truth, _ in images.batches(rows, BATCH):
        with fabric.autocast():
            response = classifier.respond(normalise(pixels))
        logits.append(response.logits.float())
        labels.append(truth)
        if response.emotional is not None and response.lam is not None:
            lams.append(response.lam.expand_as(response.logits).mean(dim=1).float())
        for of_answer, answer in zip(alone.values(), response[:3], strict=True):
            if answer is not None:
                of_answer.append(answer.argmax(dim=1) == truth if has_classes else answer.float())
        if each_image:
            checksum.update(pixels.permute(0, 2, 3, 1).cpu().numpy().tobytes())
    z, y = torch.cat(logits).cpu(), torch.cat(labels).cpu()
    of_responses = {key: torch.cat(parts).cpu() for key, parts in alone.items() if parts}
    metrics = _of_task(classifier.task, z, y, names)
    metrics["images"] = len(rows)
    for key, answered in of_responses.items() if lams else ():
        metrics[key] = _share(answered) if has_classes else _of_task(classifier.task, answered, y)[outcome]
    if lams:
        metrics["lambda"] = torch.cat(lams).mean().item()
    if each_image:
        metrics |= {"correct": packed(of_responses[outcome])} if has_classes else {}
        metrics["checksum"] = checksum.hexdigest()
    return metrics


def _of_task(task: Task, z: Tensor, y: Tensor, names: Sequence[str] = ()) -> dict[str, Any]:
    """Metrics of the answers z (N, K) to all images."""
    match task:
        case "classification":
            return _of_classes(z, y)
        case "multilabel":
            return label_metrics(z, y)
        case "regression":
            return value_metrics(z, y, names)


def _of_classes(z: Tensor, y: Tensor) -> dict[str, Any]:
    """Metrics of logits (N, K) and labels (N,)."""
    answers = z.argmax(dim=1)
    bins, matrix = reliability(z, y), confusion_matrix(answers, y, z.shape[1])
    return {
        "accuracy": _share(answers == y),
        **class_metrics(matrix),
        **({"top5_accuracy": top_accuracy(z, y)} if z.shape[1] > TOP else {}),
        "loss": F.cross_entropy(z, y).item(),
        "ece": calibration_error(bins),
        "per_class": per_class_accuracy(matrix),
        "reliability": bins,
        **({"confusion": matrix.tolist()} if z.shape[1] <= MAX_KEPT else {}),
    }


def _share(correct: Tensor) -> float:
    return int(correct.sum()) / len(correct)


def packed(correct: Tensor) -> str:
    """Right or wrong for each of N images, bool (N,), as text: eight images a byte (`numpy.packbits`), in base64."""
    return base64.b64encode(np.packbits(correct.numpy()).tobytes()).decode("ascii")


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
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    classifier.eval().requires_grad_(False)  # the counter hooks gradients, and fails at a view of a parameter
    # Fused attention kernels differ between devices, and not all of them are counted.
    with fabric.autocast(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        classifier.respond(images)
    for parameter in trained:
        parameter.requires_grad = True
    for module, was_training in before:
        module.training = was_training
    return int(counter.get_total_flops()) // count

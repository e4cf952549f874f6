"""Which classes are taken for which, and the metrics that follow from that.

Written out, from one count of all pairs: scikit-learn's three functions take 146 ms for 10,000 images of 100 classes on
one core, after an import as long as PyTorch's, in every epoch; this takes 1 ms. The tests compare both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

TOP = 5  # answers that one of must be right; as on ImageNet (Russakovsky et al. 2015)
MAX_KEPT = 100  # classes up to which the matrix of a run is kept: above, most of its cells are 0, and it grows large


class Confusion(NamedTuple):
    """A pair of classes and how often one was taken for the other."""

    truth: str
    answer: str
    images: int
    of: int  # images of `truth`

    @property
    def described(self) -> str:
        """In words: "cat taken for dog: 12 of 100"."""
        return f"{self.truth} taken for {self.answer}: {self.images:,} of {self.of:,}"


def confusion_matrix(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many images of each class (row) got which answer (column), int64 (K, K).

    Args:
        answers: int64 (N,), class indices.
        labels: int64 (N,), the true ones.
        classes: K.
    """
    return (labels * classes + answers).bincount(minlength=classes**2).view(classes, classes)


def class_metrics(matrix: Tensor) -> dict[str, float | int]:
    """Metrics that do not let frequent classes hide rare ones.

    Args:
        matrix: of `confusion_matrix`, with at least one image.

    Returns:
        balanced_accuracy, the mean accuracy over the classes that have images (Brodersen et al. 2010); macro_f1, the
        mean over the classes that have images or answers of 2 · right / (images + answers); majority_baseline, the
        accuracy of the best constant answer, which is the share of the most frequent class; answered_classes, the
        number of classes that were answered at least once.
    """
    right, images, answers = matrix.diagonal().double(), matrix.sum(dim=1), matrix.sum(dim=0)
    occurs = images + answers > 0
    return {
        "balanced_accuracy": (right / images)[images > 0].mean().item(),
        "macro_f1": (2 * right / (images + answers))[occurs].mean().item(),
        "majority_baseline": (images.max() / images.sum()).item(),
        "answered_classes": int((answers > 0).sum()),
    }


def per_class_accuracy(matrix: Tensor) -> list[float | None]:
    """Accuracy on the images of each class, K values of a `confusion_matrix`; None for a class without images."""
    right, images = matrix.diagonal().tolist(), matrix.sum(dim=1).tolist()
    return [hits / count if count else None for hits, count in zip(right, images, strict=True)]


def top_accuracy(logits: Tensor, labels: Tensor, top: int = TOP) -> float:
    """Share of the images whose class is among the `top` most probable ones; logits (N, K), labels int64 (N,)."""
    return (logits.topk(top, dim=1).indices == labels[:, None]).any(dim=1).double().mean().item()


def frequent_confusions(matrix: Sequence[Sequence[int]], classes: Sequence[str], count: int = 5) -> list[Confusion]:
    """The pairs of different classes that were confused most often, at most `count`.

    Args:
        matrix: as nested lists (K, K).
        classes: K names.
        count: how many pairs.
    """
    pairs = [
        Confusion(classes[truth], classes[answer], images, sum(row))
        for truth, row in enumerate(matrix)
        for answer, images in enumerate(row)
        if images and answer != truth
    ]
    return sorted(pairs, key=lambda pair: -pair.images)[:count]


def remark_on_answers(metrics: Mapping[str, Any], classes: Sequence[str], what: str = "images") -> str | None:
    """A line on a classifier that gives all images one answer though their classes differ; None for any other.

    Args:
        metrics: of `metrics.measure`.
        classes: K names.
        what: the images are called.
    """
    if metrics.get("answered_classes") != 1 or metrics["majority_baseline"] == 1:
        return None
    # Only images of the class that is answered can be right, and all of them are.
    named = [name for name, accuracy in zip(classes, metrics["per_class"], strict=True) if accuracy == 1]
    answer = f"'{named[0]}'" if named else "one class, of which there are none"
    return (
        f"all {metrics['images']:,} {what} are answered {answer}, though their classes differ: the classifier tells "
        "nothing apart"
    )

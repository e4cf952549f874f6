from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from emoreg.stages.confusion import (
    class_metrics,
    confusion_matrix,
    count_classes,
    frequent_confusions,
    per_class_accuracy,
    remark_on_predictions,
    top_accuracy,
)


@pytest.mark.parametrize("classes", [2, 7, 30])  # of 30, some have no images or no answers
def test_metrics_of_unbalanced_classes_are_those_of_torchmetrics(classes: int) -> None:
    draw = torch.Generator().manual_seed(classes)
    labels = (classes * torch.rand(60, generator=draw) ** 3).long()
    logits = torch.randn(60, classes, generator=draw)
    answers = logits.argmax(dim=1)
    matrix = confusion_matrix(answers, labels, classes)
    assert matrix.equal(multiclass_confusion_matrix(answers, labels, classes))
    found = class_metrics(count_classes(answers, labels, classes))
    expected = multiclass_f1_score(answers, labels, classes, average="macro")
    assert found["macro_f1"] == pytest.approx(expected.item(), abs=1e-6)
    recalls = multiclass_accuracy(answers, labels, classes, average="none")[labels.unique()]
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean().item(), abs=1e-6)
    assert found["majority_baseline"] == pytest.approx(labels.bincount().max().item() / 60)
    assert found["answered_classes"] == len(answers.unique())
    if classes > 5:
        expected = multiclass_accuracy(logits, labels, classes, average="micro", top_k=5)
        assert top_accuracy(logits, labels) == pytest.approx(expected.item(), abs=1e-6)


def test_the_accuracy_of_a_class_is_that_of_its_images_and_none_without_any() -> None:
    answers, labels = torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 1, 1, 3, 3, 0])
    assert per_class_accuracy(count_classes(answers, labels, 4)) == [0.5, 0.5, None, 1.0]


def test_a_million_classes_are_counted_without_a_matrix() -> None:  # which would have 8 TB
    counts = count_classes(torch.tensor([3, 999_999, 5]), torch.tensor([3, 999_999, 7]), 1_000_000)
    assert counts.right.sum() == 2 and len(per_class_accuracy(counts)) == 1_000_000
    assert class_metrics(counts)["answered_classes"] == 3


def test_the_most_frequent_confusions_come_first_and_say_of_how_many_images() -> None:
    found = frequent_confusions([[5, 1, 0], [3, 6, 0], [0, 2, 8]], ("cat", "dog", "owl"), 2)
    assert [pair.described for pair in found] == ["dog taken for cat: 3 of 9", "owl taken for dog: 2 of 10"]
    assert frequent_confusions([[5, 0], [0, 6]], ("cat", "dog")) == []


@pytest.mark.parametrize(
    ("answers", "labels", "remark"),
    [
        ([1, 1, 1], [0, 1, 1], "all 3 images are predicted to be 'dog', though"),
        ([2, 2, 2], [0, 1, 1], "all 3 images are predicted to be a class that none of them has, though"),
        ([1, 1, 1], [1, 1, 1], None),  # as they should be
        ([1, 1, 0], [0, 1, 1], None),
    ],
)
def test_a_classifier_that_answers_one_class_only_is_remarked_unless_that_is_right(
    answers: list[int], labels: list[int], remark: str | None
) -> None:
    counts = count_classes(torch.tensor(answers), torch.tensor(labels), 3)
    metrics = {**class_metrics(counts), "per_class": per_class_accuracy(counts), "images": 3}
    found = remark_on_predictions(metrics, ("cat", "dog", "owl"))
    assert found is None if remark is None else found is not None and found.startswith(remark)


def test_metrics_of_runs_from_before_have_no_remark() -> None:
    assert remark_on_predictions({"accuracy": 0.1, "images": 3}, ("cat", "dog")) is None

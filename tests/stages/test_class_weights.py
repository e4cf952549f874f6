from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from emoreg.config.loss import ClassWeights
from emoreg.errors import SettingError
from emoreg.stages.class_weights import class_weights, describe_class_weights
from fake_gpu import GPU, AppleGPU

CLASSES = ("cat", "dog", "owl")
LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])


def test_balanced_weights_are_scikit_learns() -> None:
    found = class_weights("balanced", LABELS, CLASSES)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    assert found is not None and found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("asked", ["balanced", (1.0, 2.0, 10.0), {"owl": 10}])
def test_the_mean_over_the_training_images_is_one_so_that_the_learning_rate_keeps_its_meaning(
    asked: ClassWeights,
) -> None:
    found = class_weights(asked, LABELS, CLASSES)
    assert found is not None and found[LABELS].mean().item() == pytest.approx(1) and found.dtype == torch.float32


def test_weights_are_on_the_device_of_the_labels_which_may_have_no_double_precision() -> None:
    with AppleGPU():
        found = class_weights("balanced", LABELS.to(GPU), CLASSES)
    assert found is not None and found.device == GPU and found.dtype == torch.float32


def test_weights_by_name_leave_the_others_at_one() -> None:
    by_name, listed = (class_weights(asked, LABELS, CLASSES) for asked in ({"owl": 4.0}, (1.0, 1.0, 4.0)))
    assert by_name is not None and listed is not None and by_name.equal(listed)
    assert describe_class_weights(by_name, CLASSES) == "class weights from 0.625 (cat) to 2.5 (owl)"


def test_a_class_without_training_images_has_no_part_in_balanced_weights() -> None:
    found = class_weights("balanced", LABELS[:8], CLASSES)
    assert found is not None and found[2] == 0 and found[:2].isfinite().all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dgo": 2.0}, r"loss.class_weights: no class is called 'dgo' \(did you mean 'dog'\?\)"),
        ((1.0, 2.0), r"must have a weight for each of the 3 classes, not 2; or name those that differ, as {cat: 2}"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_refused(asked: ClassWeights, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        class_weights(asked, LABELS, CLASSES)


def test_no_weights_are_none() -> None:
    assert class_weights("none", LABELS, CLASSES) is None

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor
from torchmetrics.functional import concordance_corrcoef

from emoreg.stages.affective_heads import concordance
from emoreg.stages.task_metrics import label_metrics, value_metrics
from fake_gpu import GPU, AppleGPU


def answers(count: int = 40, outputs: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(count, outputs, generator=draw)
    return z, z + torch.randn(count, outputs, generator=draw)


def test_metrics_of_several_labels_are_those_of_scikit_learn() -> None:
    z, noisy = answers()
    labels = (noisy > 0.3).float()
    found = label_metrics(z, labels)
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(labels, z, average="macro"))
    assert found["per_class"] == pytest.approx([average_precision_score(labels[:, k], z[:, k]) for k in range(3)])
    assert found["macro_f1"] == pytest.approx(f1_score(labels, z > 0, average="macro"))
    assert found["majority_baseline"] == pytest.approx(
        average_precision_score(labels, torch.zeros_like(z), average="macro")
    )
    assert found["exact_match"] == ((z > 0) == (labels > 0)).all(dim=1).double().mean().item()
    assert found["loss"] == pytest.approx(torch.nn.BCEWithLogitsLoss()(z, labels).item())


def test_a_label_that_all_images_have_or_none_is_not_measured() -> None:
    z, noisy = answers()
    labels = (noisy > 0.3).float()
    labels[:, 0], labels[:, 1] = 1.0, 0.0
    found = label_metrics(z, labels)
    assert found["per_class"][:2] == [None, None] and found["mean_average_precision"] == found["per_class"][2]
    assert math.isnan(label_metrics(z, torch.ones_like(z))["mean_average_precision"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_labels_whose_outputs_are_not_finite_are_not_measured(value: float) -> None:
    z, noisy = answers()
    z[3, 0] = value
    found = label_metrics(z, (noisy > 0.3).float())
    assert found["per_class"][0] is None and None not in found["per_class"][1:] and not math.isfinite(found["loss"])


def test_metrics_of_values_are_what_their_names_say() -> None:
    z, y = answers(outputs=2)
    found = value_metrics(z, y, ("valence", "arousal"))
    expected = concordance_corrcoef(z, y).tolist()
    assert [found["ccc_valence"], found["ccc_arousal"]] == pytest.approx(expected, abs=1e-5)
    assert found["ccc"] == pytest.approx(sum(expected) / 2, abs=1e-5)
    assert found["mae"] == pytest.approx((z - y).abs().mean().item(), abs=1e-6)
    assert found["rmse"] ** 2 == pytest.approx(found["loss"]) == torch.nn.MSELoss()(z, y).item()


def test_a_constant_prediction_has_no_concordance() -> None:
    _, y = answers(outputs=1)
    assert value_metrics(torch.zeros_like(y), y)["ccc"] == 0


def test_concordance_is_computed_for_a_device_without_double_precision() -> None:
    z = torch.zeros(4, 2, device=GPU)
    with AppleGPU():
        assert concordance(z, z).tolist() == [0, 0]


def test_ratings_that_are_all_equal_are_not_measured() -> None:
    z, y = answers(outputs=2)
    y[:, 0] = 0.5
    found = value_metrics(z, y, ("valence", "arousal"))
    assert "ccc_valence" not in found and found["ccc"] == found["ccc_arousal"]
    assert math.isnan(value_metrics(z[:1], y[:1])["ccc"])

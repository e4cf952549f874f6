from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from emoreg.config.loss import LossWeights
from emoreg.config.schema import Task
from emoreg.errors import SettingError
from emoreg.models.regulation import RegulatedClassifier, Response, regulation_loss
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.tasks import disagreement, mix_probabilities, task_loss
from narrow import present
from tiny_backbone import TinyBackbone

K = 3
OTHERS: tuple[Task, ...] = ("multilabel", "regression")
LABELS = {"multilabel": torch.tensor([[0.0, 1, 1], [1, 0, 0]]), "regression": torch.tensor([[0.2, -1, 3], [1, 0, 0]])}
Anything: Any = RegulatedClassifier  # as users call it who do not check types


def answers() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, K), torch.randn(2, K)


def classifier(task: Task, **options: Any) -> RegulatedClassifier:
    torch.manual_seed(0)
    return RegulatedClassifier(TinyBackbone(6), TinyBackbone(9), K, task=task, **options).eval()


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_each_label_has_the_probability_of_the_mixture(lam: float) -> None:
    z_n, z_e = answers()
    mixed = mix_probabilities(z_n, z_e, torch.tensor([[lam]]).logit(), "multilabel").sigmoid()
    torch.testing.assert_close(mixed, (1 - lam) * z_n.sigmoid() + lam * z_e.sigmoid())


def test_several_labels_survive_confident_disagreement() -> None:
    sure = torch.tensor([[200.0, -200.0]])
    mixed = mix_probabilities(sure, -sure, torch.zeros(1, 1), "multilabel")
    torch.testing.assert_close(mixed, torch.zeros(1, 2), atol=1e-4, rtol=0)


def test_mixed_values_are_the_mean_of_the_mixture() -> None:
    z_n, z_e = answers()
    torch.testing.assert_close(mix_probabilities(z_n, z_e, torch.tensor(0.3).logit(), "regression"), z_n.lerp(z_e, 0.3))


def test_the_losses_are_those_of_pytorch() -> None:
    z, _ = answers()
    several, values = LABELS["multilabel"], LABELS["regression"]
    assert torch.equal(task_loss(z, several, task="multilabel"), torch.nn.BCEWithLogitsLoss()(z, several))
    smoothed = torch.nn.BCEWithLogitsLoss()(z, several * 0.8 + 0.1)
    torch.testing.assert_close(task_loss(z, several, 0.2, task="multilabel"), smoothed)
    assert torch.equal(task_loss(z, values, task="regression"), torch.nn.MSELoss()(z, values))


@pytest.mark.parametrize("task", ["classification", *OTHERS])
def test_mixtures_and_disagreements_of_rounded_outputs_are_not_rounded_again(task: Task) -> None:
    """As the loss of a plain network, which autocast computes in float32, so that arms differ in no rounding."""
    z_n, z_e = (z.bfloat16() for z in answers())
    log_odds = torch.tensor([[0.3]]).logit()
    with torch.autocast("cpu", torch.bfloat16):
        mixed, apart = mix_probabilities(z_n, z_e, log_odds, task), disagreement(z_n, z_e, task)
    assert torch.equal(mixed, mix_probabilities(z_n.float(), z_e.float(), log_odds, task))
    assert torch.equal(apart, disagreement(z_n.float(), z_e.float(), task))
    assert mix_probabilities(z_n.double(), z_e.double(), log_odds.double(), task).dtype == torch.float64


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
@pytest.mark.parametrize("granularity", ["scalar", "per_sample"])
def test_regulated_outputs_are_in_float32_in_mixed_precision(mix: str, granularity: str) -> None:
    model = classifier("classification", mix=mix, granularity=granularity)
    with torch.autocast("cpu", torch.bfloat16):
        response = model.respond(torch.randn(2, 3, 8, 8))
    assert response.non_emotional.dtype == torch.bfloat16
    assert response.logits.dtype == present(response.lam).dtype == torch.float32


def test_disagreement_of_several_labels_is_that_of_their_distributions() -> None:
    z_n, z_e = answers()
    n, e = Bernoulli(logits=z_n), Bernoulli(logits=z_e)
    torch.testing.assert_close(disagreement(z_n, z_e, "multilabel"), (kl_divergence(n, e) + kl_divergence(e, n)).mean())
    torch.testing.assert_close(disagreement(z_n, z_e, "regression"), 2 * (z_n - z_e).square().mean())


@pytest.mark.parametrize("task", OTHERS)
def test_each_side_of_the_disagreement_learns_from_the_other_alone(task: Task) -> None:
    z_n, z_e = (z.requires_grad_() for z in answers())
    disagreement(z_n, z_e, task).backward()
    # The gradient towards a fixed target points at it.
    assert (present(z_n.grad) * (z_n - z_e) >= 0).all() and (present(z_e.grad) * (z_e - z_n) >= 0).all()


@pytest.mark.parametrize("task", OTHERS)
@pytest.mark.parametrize("mix", ["probabilities", "logits"])
def test_with_equal_responses_a_matched_budget_gives_each_the_gradient_of_one_network(task: Task, mix: Any) -> None:
    """The premise of `gradient_budget` for these tasks."""
    model = classifier(task, mix=mix, lam=0.2)
    loss_of = RegulationLoss(model.train())
    z = answers()[0]
    alone = z.clone().requires_grad_()
    task_loss(alone, LABELS[task], task=task).backward()
    z_n, z_e = z.clone().requires_grad_(), z.clone().requires_grad_()
    rho = torch.tensor([[0.2]]).logit()
    mixed = mix_probabilities(z_n, z_e, rho, task) if mix == "probabilities" else z_n.lerp(z_e, 0.2)
    loss_of(Response(mixed, z_n, z_e, rho.sigmoid()), LABELS[task]).backward()
    scale = present(model.gradient_scale)
    torch.testing.assert_close(present(z_n.grad) * scale.non_emotional, present(alone.grad))
    torch.testing.assert_close(present(z_e.grad) * scale.emotional, present(alone.grad))


@pytest.mark.parametrize("task", OTHERS)
@pytest.mark.parametrize("mix", ["probabilities", "logits", "features"])
@pytest.mark.parametrize("granularity", ["scalar", "per_class", "per_sample"])
def test_every_network_of_a_task_trains_all_of_its_parameters(task: Task, mix: Any, granularity: Any) -> None:
    if (mix, granularity) == ("features", "per_class"):
        return
    model = classifier(task, mix=mix, granularity=granularity).train()
    response = model(torch.randn(2, 3, 8, 8), whole=True)
    assert response.logits.shape == (2, K)
    RegulationLoss(model)(response, LABELS[task]).backward()
    assert all(present(p.grad).isfinite().all() for p in model.parameters())


def test_a_network_alone_has_the_plain_loss() -> None:
    model = RegulatedClassifier(TinyBackbone(), None, K, mode="none", task="regression").eval()
    response = model(torch.randn(2, 3, 8, 8), whole=True)
    expected = torch.nn.MSELoss()(response.logits, LABELS["regression"])
    assert torch.equal(RegulationLoss(model)(response, LABELS["regression"]), expected)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (
            "regression",
            torch.tensor([1, 2]),
            r"labels: must be float \(2, 3\), values, in a regression, not int64",
        ),
        ("multilabel", torch.ones(2, 3).long(), r"not int64 \(2, 3\); give labels.float\(\)"),
        ("multilabel", torch.full((2, 3), 1.5), r"labels: must be from 0 \(absent\) to 1 \(present\) .*, not 1.5"),
        ("multilabel", torch.full((2, 3), -1.0), r"labels: must be from 0 .*, not -1"),
        ("regression", torch.full((2, 3), torch.nan), "labels: must be finite in a regression"),
        ("regression", torch.ones(2, 2), r"labels: must be float \(2, 3\)"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(task: Task, labels: Tensor, message: str) -> None:
    z, _ = answers()
    with pytest.raises(SettingError, match=message):
        regulation_loss(Response(z, z, None, None), labels, task=task)


def test_an_unknown_task_and_values_instead_of_shares_are_refused() -> None:
    z, values = answers()
    loss_of: Any = regulation_loss
    with pytest.raises(SettingError, match=r"task: .*'Regression'.*regression"):
        loss_of(Response(z, z, None, None), values, task="Regression")
    with pytest.raises(SettingError, match=r"labels: must be probabilities of the classes, not -.*task='regression'"):
        regulation_loss(Response(z, z, None, None), -values.abs())


def test_one_value_an_image_is_a_column() -> None:
    z = torch.zeros(2, 1)
    with pytest.raises(SettingError, match=r"give labels\[:, None\].float\(\)"):
        regulation_loss(Response(z, z, None, None), torch.ones(2), task="regression")


def test_what_has_no_meaning_in_a_task_is_refused() -> None:
    with pytest.raises(SettingError, match=r"task: .*'regresion'.*regression"):
        Anything(TinyBackbone(), None, K, mode="none", task="regresion")
    with pytest.raises(SettingError, match="task: must be classification in mode bel, not regression"):
        RegulatedClassifier(TinyBackbone(), None, K, mode="bel", task="regression")
    with pytest.raises(SettingError, match=r"label_smoothing: must be 0 in a regression, not 0\.1"):
        RegulationLoss(classifier("regression"), label_smoothing=0.1)
    with pytest.raises(SettingError, match="class_weights: must be None in a multilabel"):
        RegulationLoss(classifier("multilabel"), class_weights=torch.ones(K))


def test_an_ensemble_averages_values() -> None:
    model = classifier("regression", mode="fixed", lam=0.5)
    response = model(torch.randn(2, 3, 8, 8), whole=True)
    torch.testing.assert_close(response.logits, (response.non_emotional + present(response.emotional)) / 2)
    RegulationLoss(model, LossWeights(0, 1, 1))

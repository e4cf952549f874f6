from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.schema import RELATIVES, Relative
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.relative_loss import relative_loss
from emoreg.models.relatives.embp import EmBPHead
from emoreg.models.relatives.heads import RelativeHead, own_rules
from emoreg.training.optim import make_optimizer
from refusing import refusal
from tiny_backbone import TinyBackbone

IMAGES, LABELS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def classifier_of(mode: Relative) -> RegulatedClassifier:
    torch.manual_seed(0)
    return RegulatedClassifier(TinyBackbone(), None, 3, mode=mode)


@pytest.mark.parametrize("mode", RELATIVES)
def test_a_relative_is_a_head_on_backbones_own_weights(mode: Relative) -> None:
    torch.manual_seed(0)
    plain = RegulatedClassifier(TinyBackbone(), None, 3, mode="none")
    classifier = classifier_of(mode)
    for name, weight in plain.backbone.state_dict().items():
        assert torch.equal(weight, classifier.backbone.state_dict()[name])
    if isinstance(classifier.head, EmBPHead):
        assert torch.equal(classifier.head.linear.weight, plain.state_dict()["head.weight"])
    assert isinstance(classifier.head, RelativeHead)
    response = classifier.respond(IMAGES)
    assert response.logits.shape == (6, 3) and response.emotional is response.lam is None


@pytest.mark.parametrize("mode", RELATIVES)
def test_what_learns_by_its_own_rule_is_in_no_optimiser_and_in_no_clipped_group(mode: Relative) -> None:
    classifier = classifier_of(mode)
    local = own_rules(classifier)
    assert local and all(name.startswith("head.") for name in local)
    named = dict(classifier.named_parameters())
    assert local < named.keys()
    optimizer = make_optimizer(classifier, OptimizerSettings(), {}, 6)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    clipped = {id(parameter) for group in classifier.branches() for parameter in group}
    assert trained == clipped == {id(parameter) for name, parameter in named.items() if name not in local}
    assert not own_rules(RegulatedClassifier(TinyBackbone(), None, 3, mode="none"))


@pytest.mark.parametrize("mode", RELATIVES)
def test_the_loss_is_cross_entropy_and_trains_trunk_and_head(mode: Relative) -> None:
    classifier = classifier_of(mode).train()
    classifier.backbone.get_submodule("dropout").eval()
    loss_of = RegulationLoss(classifier)
    expected = loss_of(classifier(IMAGES, whole=True), LABELS)
    optimizer = make_optimizer(classifier, OptimizerSettings(lr=0.1), {}, 6)
    before = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    losses = []
    for _ in range(3):
        loss = relative_loss(classifier, IMAGES, LABELS, loss_of)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert isinstance(classifier.head, RelativeHead)
        classifier.head.learn()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(expected.item(), rel=1e-6) and losses[-1] < losses[0]
    unchanged = {name for name, parameter in classifier.named_parameters() if torch.equal(parameter, before[name])}
    assert unchanged <= {"head.mood.sensed"}


@pytest.mark.parametrize("mode", RELATIVES)
def test_labels_of_mixed_images_are_learned_too(mode: Relative) -> None:
    classifier = classifier_of(mode).eval()
    loss_of = RegulationLoss(classifier)
    mixed = torch.nn.functional.one_hot(LABELS, 3).float()
    one, other = (relative_loss(classifier, IMAGES, labels, loss_of) for labels in (LABELS, mixed))
    assert one.item() == pytest.approx(other.item(), rel=1e-6)


def test_combinations_without_meaning_are_refused() -> None:
    backbone: Any = TinyBackbone()
    encoder = refusal(lambda: RegulatedClassifier(backbone, TinyBackbone(), 3, mode="bel"))
    assert encoder.startswith("encoder: must be None in mode bel")
    for key, value in (("granularity", "per_class"), ("lam", 0.3)):
        given: dict[str, Any] = {key: value}
        made = partial(RegulatedClassifier, backbone, None, 3, "bel", **given)
        assert refusal(made).startswith(f"{key}: must be")
    plain = RegulatedClassifier(backbone, None, 3, mode="none")
    wrong = refusal(lambda: relative_loss(plain, IMAGES, LABELS, RegulationLoss(plain)))
    assert wrong.startswith("classifier: must be in mode embp, bel or liaenn, not none")


def test_modes_may_have_their_names_in_reports() -> None:
    given: Any = "LiAENN"
    assert RegulatedClassifier(TinyBackbone(), None, 3, mode=given).mode == "liaenn"


def test_a_network_without_images_has_no_anxiety_to_learn_by() -> None:
    head = EmBPHead(nn.Linear(2, 3))
    assert refusal(lambda: head(torch.zeros(4, 2), torch.zeros(4, 9))).startswith("images: must be images")

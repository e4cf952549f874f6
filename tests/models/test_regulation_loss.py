from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.parallel import DistributedDataParallel

from emoreg.config.loss import LossSettings, LossWeights
from emoreg.errors import SettingError, UserError
from emoreg.models.gradient_budget import UNSCALED, matched_scale
from emoreg.models.regulation import RegulatedClassifier, Response, regulation_loss
from emoreg.models.regulation_loss import RegulationLoss
from narrow import present
from tiny_backbone import TinyBackbone

Loss: Any = RegulationLoss  # as users call it who do not check types
K = 4
LABELS = torch.tensor([0, 1, 2, 3, 0])
LEFT_OUT = object()


def classifier(**options: Any) -> RegulatedClassifier:
    torch.manual_seed(0)
    return RegulatedClassifier(TinyBackbone(6), TinyBackbone(9), K, **options).eval()


def images() -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: present(p.grad).clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("mode", ["fixed", "random", "learned", "random_learned"])
@pytest.mark.parametrize("mix", ["probabilities", "logits", "features"])
def test_the_budget_is_that_of_the_classifiers_mode_and_start(mode: Any, mix: Any) -> None:
    weights = LossWeights(1.0, 0.0, 0.0)
    by_hand, model = (classifier(mode=mode, mix=mix, lam=0.2).train() for _ in range(2))
    start = 0.2 if mode in ("fixed", "learned") else 0.5
    scale = matched_scale(weights, start)
    torch.manual_seed(1)  # of dropout and of random λ
    regulation_loss(by_hand.respond(images(), scale=scale), LABELS, weights).backward()
    loss_of = RegulationLoss(model, weights)
    torch.manual_seed(1)
    loss_of(model(images(), whole=True), LABELS).backward()
    assert model.gradient_scale == scale
    for name, gradient in gradients(by_hand).items():
        assert torch.equal(gradient, present(model.get_parameter(name).grad)), name


def test_in_evaluation_gradients_are_not_scaled() -> None:
    """As saliency maps need them."""
    model = classifier(lam=0.2)
    model(images()).sum().backward()
    expected = gradients(model)
    RegulationLoss(model, LossWeights(1, 0, 0))
    model.zero_grad()
    model(images()).sum().backward()
    assert model.gradient_scale != UNSCALED
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(model).items())


def test_outputs_do_not_change_and_copies_keep_the_budget() -> None:
    model = classifier(lam=0.2)
    before = model(images())
    RegulationLoss(model, LossWeights(1, 0, 0))
    assert torch.equal(model(images()), before)
    assert copy.deepcopy(model).gradient_scale == model.gradient_scale != UNSCALED


@pytest.mark.parametrize(("budget", "other"), [("matched", "as_given"), ("as_given", "matched")])
def test_a_second_loss_does_not_change_the_gradients_of_the_first(budget: Any, other: Any) -> None:
    model, mixture = classifier(lam=0.2), LossWeights(1, 0, 0)
    RegulationLoss(model, mixture, budget=budget)
    scale = model.gradient_scale
    RegulationLoss(model, mixture, label_smoothing=0.1, budget=budget)  # the same budget
    with pytest.raises(SettingError, match=r"classifier: already has .* another budget.*gradient_scale = None"):
        RegulationLoss(model, mixture, budget=other)
    assert model.gradient_scale == scale is not None
    model.gradient_scale = None
    RegulationLoss(model, mixture, budget=other)
    assert model.gradient_scale != scale


def test_the_default_is_that_of_recipes_and_of_one_network_plain_cross_entropy() -> None:
    assert RegulationLoss(classifier()).weights == LossSettings().weights(has_two=True)
    plain = RegulatedClassifier(TinyBackbone(), None, K, mode="none").eval()
    loss_of = RegulationLoss(plain, label_smoothing=0.1)
    expected = nn.CrossEntropyLoss(label_smoothing=0.1)(plain(images()), LABELS)
    assert torch.equal(loss_of(plain(images(), whole=True), LABELS), expected)
    assert plain.gradient_scale == UNSCALED


def test_class_weights_apply_and_move_with_the_module() -> None:
    model, class_weights = classifier(), torch.tensor([1.0, 2.0, 0.5, 1.0])
    loss_of = RegulationLoss(model, class_weights=class_weights)
    response = model(images(), whole=True)
    assert torch.equal(loss_of(response, LABELS), regulation_loss(response, LABELS, class_weights=class_weights))
    assert present(loss_of.to("meta").class_weights).device.type == "meta" and not loss_of.state_dict()
    with pytest.raises(SettingError, match=r"class_weights: must be of shape \(4,\), not \(3,\)"):
        RegulationLoss(model, class_weights=class_weights[:3])


@pytest.mark.parametrize("given", [[1, 2, 0, 1], torch.tensor([1, 2, 0, 1]), torch.tensor([1.0, 2, 0, 1]).double()])
def test_class_weights_of_any_numbers_are_taken_as_float32(given: Any) -> None:
    model, weights = classifier(), torch.tensor([1.0, 2.0, 0.0, 1.0])
    loss_of = RegulationLoss(model, class_weights=given)
    assert (
        torch.equal(present(loss_of.class_weights), weights) and present(loss_of.class_weights).dtype == torch.float32
    )
    response = model(images(), whole=True)
    expected = regulation_loss(response, LABELS, class_weights=weights)
    assert torch.equal(loss_of(response, LABELS), expected)
    assert torch.equal(regulation_loss(response, LABELS, class_weights=given), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 1, -1, 1], "must be finite, at least 0 and not all 0"),
        (torch.zeros(4), "must be finite, at least 0 and not all 0"),
        ([1, 1, 1, float("nan")], "must be finite, at least 0 and not all 0"),
        ([1, 1, 1], r"must be of shape \(4,\), not \(3,\)"),
        ("balanced", "must be a number for each of 4 classes, not 'balanced'"),
        ([1, 1, 1, None], "must be a number for each of 4 classes"),
    ],
)
def test_invalid_class_weights_are_refused(given: Any, message: str) -> None:
    model = classifier()
    with pytest.raises(SettingError, match=f"class_weights: {message}"):
        RegulationLoss(model, class_weights=given)
    with pytest.raises(SettingError, match=f"class_weights: {message}"):
        regulation_loss(model.respond(images()), LABELS, class_weights=given)


def test_it_adds_nothing_to_a_module_that_holds_both() -> None:
    both = nn.ModuleDict({"model": classifier(), "loss": RegulationLoss(classifier())})
    assert not [name for name in both.state_dict() if name.startswith("loss")]
    assert "regulated=0.5" in repr(both["loss"])


def test_a_constant_lambda_of_one_is_trained_as_the_first_edition_did() -> None:
    model = classifier(mode="fixed", lam=1.0)
    loss = RegulationLoss(model, LossWeights(1, 0, 0), budget="as_given")(model(images(), whole=True), LABELS)
    assert loss.isfinite()


def test_wrapped_in_ddp_the_whole_response_comes_through_forward(tmp_path: Any) -> None:
    model = classifier().train()
    loss_of = RegulationLoss(model, LossWeights(1, 0, 0))
    torch.manual_seed(1)  # of dropout
    loss_of(model.respond(images()), LABELS).backward()
    expected = gradients(model)
    model.zero_grad()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        ddp = DistributedDataParallel(model, find_unused_parameters=True)
        torch.manual_seed(1)
        response = ddp(images(), whole=True)
        assert isinstance(response, Response)
        loss_of(response, LABELS).backward()
    finally:
        torch.distributed.destroy_process_group()
    for name, gradient in expected.items():
        torch.testing.assert_close(present(model.get_parameter(name).grad), gradient)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loss(TinyBackbone()), "classifier: must be a RegulatedClassifier, not a TinyBackbone; build"),
        (lambda: Loss(RegulatedClassifier), "not the class RegulatedClassifier"),
        (lambda: Loss(nn.DataParallel(classifier())), "before it is wrapped"),
        (lambda: Loss(classifier(), LossSettings()), "must be a LossWeights, not a LossSettings"),
        (lambda: Loss(classifier(), 1), r"must be a LossWeights\(a, a_n, a_e, m\), not 1"),
        (lambda: Loss(classifier(), LossWeights(-1, 0, 0)), "weights.regulated: .* at least 0"),
        (lambda: Loss(classifier(), LossWeights(0, 0, 0)), "nothing to train"),
        (lambda: Loss(classifier(), LossWeights(0, 1, 1)), "weights.regulated: must be positive in mode learned"),
        (lambda: Loss(classifier(mode="fixed"), LossWeights(0, 1, 0)), "loss.budget: cannot be matched"),
        (lambda: Loss(classifier(mode="fixed", lam=0.0)), r"lam: .* not 0: .*\(backbone, None, .*mode='none'\)"),
        (lambda: Loss(classifier(mode="E-Reg", lam=1)), r"lam: .* not 1: .*\(encoder, None, .*mode='none'\)"),
        (lambda: Loss(classifier(), label_smoothing=2), r"label_smoothing: must lie in \[0, 1\)"),
        (lambda: Loss(classifier(), budget="match"), r"budget: .*did you mean 'matched'"),
    ],
)
def test_invalid_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 3, 0], "must be a tensor, not a list"),
        (LABELS.float(), r"must be int64, not float32; give labels.long\(\)"),
        (LABELS.int(), "must be int64, not int32"),
        (LABELS[:, None], r"must be of shape \(5,\), not \(5, 1\)"),
        (LABELS[:3], r"must be class indices \(5,\) or probabilities \(5, 4\) of mixed images, not int64 \(3,\)"),
        (LABELS + 1, "must be 0 to 3, the indices of 4 classes, not 4"),
        (LABELS - 1, "must be 0 to 3, the indices of 4 classes, not -1"),
        (torch.full((5,), -100), r"are -100 \(no label\) in every image"),
    ],
)
def test_labels_that_pytorch_fails_at_are_refused(labels: Any, message: str) -> None:
    model = classifier()
    with pytest.raises(UserError, match=f"labels: {message}"):
        RegulationLoss(model)(model(images(), whole=True), labels)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, 1, 1, 1], "add up to 1, not to 4 as in row 3; several labels per image need task='multilabel'"),
        ([0.0, 0, 0, 0], "add up to 1, not to 0 as in row 3; several labels per image need task='multilabel'"),
        ([0.5, 0.5, 0.5, 0.5], "add up to 1, not to 2 as in row 3; divide each row by its sum"),
        ([1.5, -0.5, 0, 0], "probabilities of the classes, not -0.5 as in row 3; values need task='regression'"),
        ([float("nan"), 0, 0, 1], "must be finite, and row 3 is not"),
        ([float("inf"), 0, 0, 1], "must be finite, and row 3 is not"),
    ],
)
def test_a_row_of_labels_that_is_no_distribution_is_named(row: list[float], message: str) -> None:
    model, labels = classifier(), one_hot(LABELS, K).float()
    labels[3] = torch.tensor(row)
    with pytest.raises(SettingError, match=f"labels: .*{message}"):
        RegulationLoss(model)(model(images(), whole=True), labels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_mixed_and_smoothed_labels_of_any_precision_are_probabilities(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for classes in (2, 10, 1000):
        own, other = (torch.randint(classes, (64,), generator=generator) for _ in range(2))
        smoothed = [one_hot(rows, classes).to(dtype) * 0.9 + 0.1 / classes for rows in (own, other)]
        kept = torch.rand(64, 1, generator=generator).to(dtype)
        logits = torch.zeros(64, classes)
        regulation_loss(Response(logits, logits, None, None), smoothed[0] * kept + smoothed[1] * (1 - kept))


def test_labels_on_a_device_are_not_read() -> None:
    logits = torch.zeros(5, K, device="meta")  # reading a value of it is an error
    regulation_loss(Response(logits, logits, None, None), torch.ones(5, K, device="meta"))


def test_logits_are_refused_with_what_gives_a_response() -> None:
    model = classifier()
    with pytest.raises(
        SettingError, match=r"response: must be a Response, not logits; classifier\(images, whole=True\)"
    ):
        Loss(model)(model(images()), LABELS)


class HalfBySample(nn.Module):
    """A user-supplied regulation without attributes."""

    def forward(self, features: Tensor, emotional_features: Tensor) -> Tensor:
        return torch.zeros(len(features), 1)


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        ({}, "expected_start, gate, rho"),
        ({"expected_start": 0.5, "gate": None}, "rho"),
        ({"expected_start": 0.5, "rho": torch.zeros(1, 1)}, "gate"),
        ({"gate": nn.Identity()}, "expected_start"),
    ],
)
def test_a_user_supplied_regulation_that_is_incomplete_is_refused_with_what_it_lacks(
    attributes: dict[str, Any], missing: str
) -> None:
    model, regulation = classifier(), HalfBySample()
    for name, value in attributes.items():
        setattr(regulation, name, value)
    model.add_module("regulation", regulation)
    reason = f"^classifier: has a regulation, a HalfBySample, without {missing}; docs/extend.md"
    with pytest.raises(SettingError, match=reason):
        RegulationLoss(model)


def test_a_user_supplied_regulation_is_complete_with_a_gate_or_a_constant_lambda() -> None:
    for attributes in ({"gate": nn.Identity()}, {"gate": None, "lam": torch.full((1, 1), 0.5)}):
        model, regulation = classifier(), HalfBySample()
        for name, value in {"expected_start": 0.5, **attributes}.items():
            setattr(regulation, name, value)
        model.add_module("regulation", regulation)
        RegulationLoss(model)(model(images(), whole=True), LABELS).backward()
        assert model.lam is attributes.get("lam")


def regulated_by(output: object, mix: str = "probabilities", **attributes: Any) -> RegulatedClassifier:
    """A classifier with a user-supplied regulation, complete but for `attributes`, that gives `output`."""

    class Given(nn.Module):
        def forward(self, features: Tensor, emotional_features: Tensor) -> object:
            return output

    model, regulation = classifier(mix=mix), Given()
    for name, value in {"expected_start": 0.5, "gate": None, "rho": torch.zeros(1, 1), **attributes}.items():
        if value is not LEFT_OUT:
            setattr(regulation, name, value)
    model.add_module("regulation", regulation)
    return model


@pytest.mark.parametrize(
    ("attributes", "fault"),
    [
        ({"rho": torch.zeros(1)}, r"rho is of the shape \(1,\), not a tensor \(1, 1\) or \(1, K\)"),
        ({"rho": torch.zeros(1, 7)}, r"rho is of the shape \(1, 7\)"),
        ({"rho": 0.0}, r"rho is 0.0, not a tensor"),
        ({"rho": LEFT_OUT, "lam": 0.25}, r"lam is 0.25, not a tensor"),
        ({"rho": LEFT_OUT, "lam": torch.full((1, 1), 1.5)}, r"lam is \[1.5\], not in \[0, 1\]"),
        ({"rho": LEFT_OUT, "lam": torch.full((1, 1), torch.nan)}, r"lam is \[nan\], not in \[0, 1\]"),
        ({"expected_start": 2}, r"expected_start is 2, not a number in \[0, 1\]"),
        ({"expected_start": "half"}, r"expected_start is 'half', not a number in \[0, 1\]"),
    ],
)
def test_a_user_supplied_regulation_with_a_meaningless_attribute_is_refused(
    attributes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SettingError, match=f"^classifier: has a regulation, a Given, whose {fault}"):
        RegulationLoss(regulated_by(torch.zeros(1, 1), **attributes))


@pytest.mark.parametrize("mix", ["probabilities", "logits", "features"])
@pytest.mark.parametrize(
    ("output", "given"),
    [
        (torch.zeros(5), r"\(5,\)"),  # would be broadcast over the classes if there were as many
        (torch.zeros(1, 5), r"\(1, 5\)"),
        (torch.zeros(1, 7), r"\(1, 7\)"),
        (torch.zeros(3, 1), r"\(3, 1\)"),
        (torch.zeros(1, 1, dtype=torch.int64), "torch.int64"),
        ((torch.zeros(1, 1),), "a tuple"),
        (0.0, "a float"),
        (None, "a NoneType"),
    ],
)
def test_log_odds_that_do_not_fit_the_responses_are_refused(output: object, given: str, mix: str) -> None:
    model = regulated_by(output, mix, gate=nn.Identity())
    with pytest.raises(SettingError, match=rf"^regulation: must give log-odds of λ .*\(B, 1\), not {given}$"):
        model(images())


def test_a_regulation_without_forward_is_refused_unless_it_was_given_one() -> None:
    model = regulated_by(None)
    model.add_module("regulation", None)
    with pytest.raises(SettingError, match="a NoneType, without forward, expected_start, gate, rho;"):
        RegulationLoss(model)
    regulation = nn.Module()
    for name, value in {"expected_start": 0.5, "gate": None, "rho": torch.zeros(1, 1)}.items():
        setattr(regulation, name, value)
    model.add_module("regulation", regulation)
    with pytest.raises(SettingError, match="a Module, without forward;"):
        RegulationLoss(model)
    regulation.forward = lambda features, emotional_features: regulation.rho
    RegulationLoss(model)(model(images(), whole=True), LABELS)


def test_a_trained_lambda_may_have_its_start_beside_it() -> None:
    model = regulated_by(torch.zeros(1, 1), lam=0.25)
    RegulationLoss(model)
    assert model.lam == torch.full((1, 1), 0.5)

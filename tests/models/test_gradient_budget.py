"""A matched budget: at the start, each branch gets the gradient that the plain backbone gets."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from emoreg.config.loss import LossSettings, LossWeights
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import SINGLE, Mixing, Mode, RegulationSettings
from emoreg.errors import SettingError
from emoreg.models.gradient_budget import (
    UNSCALED,
    GradientScale,
    describe_budget,
    expected_start,
    gradient_shares,
    matched_scale,
    scale_gradient,
)
from emoreg.models.regulation import RegulatedClassifier, regulation_loss
from emoreg.models.regulation_loss import RegulationLoss
from narrow import present

K, WIDTH, LAM = 4, 6, 0.3
MIXED = [1, 0, 3, 2, 5, 4, 7, 6]  # the partner of each image
MODES = [mode for mode in get_args(Mode) if mode not in SINGLE]
MIXES = get_args(Mixing)
LOSSES = {
    "a loss each": LossWeights(0.5, 0.75, 0.75),
    "mixture": LossWeights(1, 0, 0),
    "ensemble": LossWeights(0, 1, 1),
    "own weights": LossWeights(0.3, 1.2, 0.1, mutual=0.7),
}
EVERYTHING = [  # a trained λ needs a loss
    (mode, mix, name)
    for mode, mix, name in itertools.product(MODES, MIXES, LOSSES)
    if not ("learned" in mode and name == "ensemble")
]


def check(found: Tensor | None, expected: Tensor | None) -> None:
    """Equal up to rounding: λ is stored in single precision, everything else in double."""
    assert_close(found, expected, rtol=1e-6, atol=1e-10)


class Trunk(nn.Module):
    """A backbone in double precision with γ = 1 and no dropout, so that rounding does not hide a wrong factor."""

    num_features = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(WIDTH)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm1(self.conv1(images)).relu()
        return (hidden + self.norm2(self.conv2(hidden))).relu().mean(dim=(2, 3))


def pair(mode: Mode, mix: Mixing, granularity: Any = "scalar") -> tuple[RegulatedClassifier, RegulatedClassifier]:
    """A classifier whose branches are copies of a plain one, λ held at its expected start, and the plain one."""
    torch.manual_seed(0)
    plain = RegulatedClassifier(Trunk(), None, K, mode="none").double()
    trunks = copy.deepcopy(plain.backbone), copy.deepcopy(plain.backbone)
    model = RegulatedClassifier(*trunks, K, mode, granularity, mix, LAM, seed=3).double()
    model.head.load_state_dict(plain.head.state_dict())
    if mix != "features":
        model.emotional_head.load_state_dict(plain.head.state_dict())
    model.get_submodule("regulation").eval()  # in mode random, use the mean of the draw
    if mode == "random_learned":  # set the λ that seed 3 drew to its expected start
        assert abs(model.get_parameter("regulation.rho").sigmoid().mean().item() - 0.5) > 0.05
        nn.init.zeros_(model.get_parameter("regulation.rho"))
    return model, plain


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 3, 6, 6, generator=generator).double(), torch.randint(K, (8,), generator=generator))
        for _ in range(count)
    ]


def trunks_and_heads(model: RegulatedClassifier) -> dict[str, tuple[str, str]]:
    """Map the names of a plain classifier's parameters to the names of their copies in both branches."""
    names = {f"backbone.{name}": (f"backbone.{name}", f"encoder.{name}") for name, _ in Trunk().named_parameters()}
    if model.mix != "features":  # there the head is shared
        names |= {f"head.{name}": (f"head.{name}", f"emotional_head.{name}") for name in ("weight", "bias")}
    return names


def gradients(
    model: RegulatedClassifier,
    weights: LossWeights,
    scale: GradientScale,
    smoothing: float = 0.0,
    mixed: bool = False,
    of_classes: torch.Tensor | None = None,
) -> None:
    ((images, labels),) = batches(1)
    if mixed:  # with its neighbour, as by mixup
        soft = torch.nn.functional.one_hot(labels, K).double()
        images, labels = images.lerp(images[MIXED], 0.3), soft.lerp(soft[MIXED], 0.3)
    model.zero_grad()
    regulation_loss(model.respond(images, scale=scale), labels, weights, smoothing, of_classes).backward()


@pytest.mark.parametrize(("mode", "mix", "loss"), EVERYTHING)
def test_matched_each_branch_gets_the_gradient_of_the_plain_backbone(mode: Mode, mix: Mixing, loss: str) -> None:
    model, plain = pair(mode, mix)
    weights = LOSSES[loss]
    scale = matched_scale(weights, model.regulation.expected_start)
    gradients(model, weights, scale, smoothing=0.1)
    gradients(plain, LossWeights(1, 0, 0), UNSCALED, smoothing=0.1)
    for name, copies in trunks_and_heads(model).items():
        expected = present(plain.get_parameter(name).grad)
        for own in copies:
            check(model.get_parameter(own).grad, expected)
    if mix == "features":
        expected = present(plain.get_parameter("head.weight").grad) * sum(weights[:3])
        check(model.get_parameter("head.weight").grad, expected)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mix", MIXES)
def test_matched_each_branch_gets_the_gradient_of_the_plain_backbone_with_class_weights_too(
    mix: Mixing, mixed: bool
) -> None:
    model, plain = pair("learned", mix)
    weights, of_classes = LOSSES["own weights"], torch.linspace(0.2, 3, K, dtype=torch.double)
    gradients(model, weights, matched_scale(weights, LAM), 0.1, mixed, of_classes)
    gradients(plain, LossWeights(1, 0, 0), UNSCALED, 0.1, mixed, of_classes)
    for name, copies in trunks_and_heads(model).items():
        for own in copies:
            check(model.get_parameter(own).grad, plain.get_parameter(name).grad)


@pytest.mark.parametrize("mix", MIXES)
def test_matched_each_branch_gets_the_gradient_of_the_plain_backbone_for_mixed_images_too(mix: Mixing) -> None:
    model, plain = pair("learned", mix)
    weights = LOSSES["own weights"]
    gradients(model, weights, matched_scale(weights, LAM), smoothing=0.1, mixed=True)
    gradients(plain, LossWeights(1, 0, 0), UNSCALED, smoothing=0.1, mixed=True)
    for name, copies in trunks_and_heads(model).items():
        for own in copies:
            check(model.get_parameter(own).grad, plain.get_parameter(name).grad)


@pytest.mark.parametrize(("mode", "mix", "loss"), EVERYTHING)
def test_as_given_the_branches_get_the_shares_of_the_loss(mode: Mode, mix: Mixing, loss: str) -> None:
    model, plain = pair(mode, mix)
    a, a_n, a_e, _ = weights = LOSSES[loss]
    gradients(model, weights, UNSCALED)
    gradients(plain, LossWeights(1, 0, 0), UNSCALED)
    lam = LAM if mode in ("fixed", "learned") else 0.5
    shares = a * (1 - lam) + a_n, a * lam + a_e
    assert gradient_shares(weights, model.regulation.expected_start) == pytest.approx(shares)
    for name, copies in trunks_and_heads(model).items():
        expected = present(plain.get_parameter(name).grad)
        for own, share in zip(copies, shares, strict=True):
            check(model.get_parameter(own).grad, expected * share)


@pytest.mark.parametrize("granularity", ["per_class", "per_sample"])
@pytest.mark.parametrize("mix", ["logits", "probabilities"])
def test_the_start_is_matched_with_a_lambda_per_class_or_sample_too(mix: Mixing, granularity: Any) -> None:
    model, plain = pair("learned", mix, granularity)
    weights = LOSSES["own weights"]
    gradients(model, weights, matched_scale(weights, LAM))
    gradients(plain, LossWeights(1, 0, 0), UNSCALED)
    for name, copies in trunks_and_heads(model).items():
        for own in copies:
            check(model.get_parameter(own).grad, plain.get_parameter(name).grad)


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(("mode", "mix", "loss"), EVERYTHING)
def test_matched_each_branch_moves_as_the_plain_backbone_does(
    mode: Mode, mix: Mixing, loss: str, optimiser: str
) -> None:
    """A step of SGD is equal; for 20 steps of AdamW, compare the relative movement of each branch."""
    model, plain = pair(mode, mix)
    weights = LOSSES[loss]
    scale = matched_scale(weights, model.regulation.expected_start)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    held = {id(parameter) for parameter in model.get_submodule("regulation").parameters()}
    ours = OPTIMISERS[optimiser]([p for p in model.parameters() if id(p) not in held])
    theirs = OPTIMISERS[optimiser](plain.parameters())
    for images, labels in batches(20 if optimiser == "adamw" else 1):
        ours.zero_grad()
        theirs.zero_grad()
        regulation_loss(model.respond(images, scale=scale), labels, weights).backward()
        regulation_loss(plain.respond(images), labels).backward()
        ours.step()
        theirs.step()
    names = trunks_and_heads(model)
    if optimiser == "sgd":
        for name, copies in names.items():
            for own in copies:
                check(model.get_parameter(own), plain.get_parameter(name))
    expected = movement(plain, {name: name for name in names}, before)
    for branch in (0, 1):
        found = movement(model, {name: copies[branch] for name, copies in names.items()}, before)
        assert found == pytest.approx(expected, rel=0.01)


@torch.no_grad()
def movement(model: nn.Module, names: dict[str, str], before: dict[str, Tensor]) -> float:
    """‖Δθ‖ / ‖θ‖ over the parameters of a branch."""
    start = torch.cat([before[name].flatten() for name in names])
    end = torch.cat([model.get_parameter(own).flatten() for own in names.values()])
    return ((end - start).norm() / start.norm()).item()


@pytest.mark.parametrize("a", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("granularity", ["scalar", "per_sample"])
@pytest.mark.parametrize("mix", MIXES)
def test_lambda_gets_the_gradient_of_the_mixture_with_weight_one(mix: Mixing, granularity: Any, a: float) -> None:
    model, _ = pair("learned", mix, granularity)
    nn.init.normal_(model.get_parameter("encoder.conv1.weight"))  # responses that differ, or λ has no gradient
    gradients(model, LossWeights(1, 0, 0), UNSCALED)
    expected = {name: present(p.grad).clone() for name, p in model.get_submodule("regulation").named_parameters()}
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    weights = LossWeights(a, 0.75, 0.75)
    gradients(model, weights, matched_scale(weights, LAM))
    for name, parameter in model.get_submodule("regulation").named_parameters():
        check(parameter.grad, expected[name])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("mix", MIXES)
def test_the_forward_pass_is_the_same_to_the_bit(mix: Mixing, autocast: bool) -> None:
    model, _ = pair("learned", mix)
    model.float()
    images = batches(1)[0][0].float()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain, scaled = (model.respond(images, scale=scale) for scale in (UNSCALED, GradientScale(0.3, 7.0, 2.0)))
        for one, other in zip(plain, scaled, strict=True):
            assert present(one).dtype == present(other).dtype and torch.equal(present(one), present(other))
        regulation_loss(scaled, torch.zeros(8, dtype=torch.long)).backward()
    assert all(torch.isfinite(present(p.grad)).all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scaled_gradient_is_that_of_the_identity_times_the_factor(dtype: torch.dtype) -> None:
    x = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    y = scale_gradient(x, 0.25)
    assert torch.equal(x, y) and y.dtype == dtype
    y.backward(torch.ones_like(x))
    assert torch.equal(present(x.grad), torch.full_like(x, 0.25))
    assert scale_gradient(x, 1.0) is x
    assert not scale_gradient(x.detach(), 0.5).requires_grad


def test_a_scaled_gradient_survives_compilation_in_one_graph() -> None:
    def double(x: Tensor) -> Tensor:
        return (scale_gradient(x, 0.25) * 2).sum()

    x = torch.randn(5, requires_grad=True)
    torch.compile(double, backend="aot_eager", fullgraph=True)(x).backward()
    assert torch.equal(present(x.grad), torch.full((5,), 0.5))


def test_gradients_of_each_sample_add_up_to_those_of_the_batch() -> None:
    model, _ = pair("learned", "probabilities")
    loss_of = RegulationLoss(model, LOSSES["mixture"])
    model.backbone.eval(), present(model.encoder).eval()  # statistics of a batch are not a sample's
    ((images, labels),) = batches(1)
    loss_of(model(images, whole=True), labels).backward()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss_of(torch.func.functional_call(model, parameters, (image[None],), {"whole": True}), label[None])

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    for name, parameter in model.named_parameters():
        check(found[name].mean(0), parameter.grad)


def test_a_compiled_classifier_has_the_gradients_of_the_plain_one() -> None:
    model, _ = pair("learned", "probabilities")
    weights = LOSSES["own weights"]
    scale = matched_scale(weights, LAM)
    gradients(model, weights, scale)
    expected = {name: present(p.grad).clone() for name, p in model.named_parameters()}
    ((images, labels),) = batches(1)
    model.zero_grad()
    loss_of = torch.compile(
        lambda pixels: regulation_loss(model.respond(pixels, scale=scale), labels, weights), backend="aot_eager"
    )
    loss_of(images).backward()
    for name, parameter in model.named_parameters():
        check(parameter.grad, expected[name])


def test_what_a_mode_draws_is_expected_in_the_middle() -> None:
    assert [expected_start(mode, 0.2) for mode in ("fixed", "learned")] == [0.2, 0.2]
    assert [expected_start(mode, 0.2) for mode in ("random", "random_learned")] == [0.5, 0.5]


def test_the_default_weights_are_matched_already_except_for_lambda() -> None:
    assert matched_scale(LossSettings().weights(has_two=True), 0.5) == GradientScale(1, 1, 2)
    assert matched_scale(LossWeights(0, 1, 1), 0.5) == UNSCALED


@pytest.mark.parametrize(
    ("weights", "lam", "name"),
    [(LossWeights(1, 0, 0), 1.0, "non_emotional"), (LossWeights(1, 0, 0), 0.0, "emotional"), ((0, 1, 0), 0.5, "emo")],
)
def test_a_branch_without_a_gradient_cannot_be_matched(weights: Any, lam: float, name: str) -> None:
    with pytest.raises(SettingError, match=f"cannot be matched.*loss.{name}") as caught:
        matched_scale(LossWeights(*weights), lam)
    assert caught.value.key == "loss.budget"


def test_a_budget_is_described_in_a_line() -> None:
    learned = TrainRecipe(regulation=RegulationSettings(mode="learned"))
    assert describe_budget(learned) == "matched: gradients at z_n and z_e divided by 1.00 and 1.00"
    mixture = LossSettings(regulated=1, non_emotional=0, emotional=0, budget="as_given")
    given = replace(learned, loss=mixture, regulation=RegulationSettings(mode="fixed", lam=0.2))
    assert describe_budget(given) == "as given: Backbone branch 0.80, encoder 0.20 of Backbone's gradient"
    adamw = replace(given, optimizer=OptimizerSettings(name="adamw"))
    assert describe_budget(adamw) == f"{describe_budget(given)}; adamw is insensitive to the scale of the loss"
    features = replace(learned, regulation=RegulationSettings(mode="learned", mix="features"))
    assert describe_budget(features) == (
        "matched: gradients at f(x) and P e(x) divided by 1.00 and 1.00; the shared head gets 2.00"
    )
    assert describe_budget(TrainRecipe()) == "one network: nothing to match"

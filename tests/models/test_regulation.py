from __future__ import annotations

from typing import Any, assert_type, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from emoreg.config.loss import LossWeights
from emoreg.config.schema import Granularity
from emoreg.errors import SettingError
from emoreg.models.regulation import Holdable, RegulatedClassifier, Response, regulation_loss
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.tasks import disagreement, mix_probabilities
from narrow import present
from tiny_backbone import TinyBackbone

MODES = ["fixed", "random", "learned", "random_learned"]
K = 4


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def classifier(**options: Any) -> RegulatedClassifier:
    torch.manual_seed(0)
    return RegulatedClassifier(TinyBackbone(6), TinyBackbone(options.pop("encoder_width", 9)), K, **options)


def emotional(model: RegulatedClassifier, images: Tensor) -> Tensor:
    """z_e: the emotional head's logits (B, K)."""
    return model.get_submodule("emotional_head")(model.get_submodule("encoder")(images))


@pytest.mark.parametrize("mode", MODES)
def test_logits_are_the_equation_in_every_mode(mode: Any, images: Tensor) -> None:
    model = classifier(mode=mode, lam=0.3, mix="logits").eval()
    answer = model.respond(images)
    z_n = model.head(model.backbone(images))
    z_e = emotional(model, images)
    lam = present(answer.lam)
    assert_close(answer.logits, (1 - lam) * z_n + lam * z_e)
    assert_close(model(images), answer.logits)
    assert answer.logits.shape == (5, K)


def test_lambda_zero_is_the_backbone_and_one_the_emotional_response(images: Tensor) -> None:
    for mix in ("logits", "probabilities", "features"):
        zero = classifier(mode="fixed", lam=0.0, mix=mix).eval().respond(images)
        one = classifier(mode="fixed", lam=1.0, mix=mix).eval().respond(images)
        assert_close(zero.logits.softmax(1), zero.non_emotional.softmax(1))
        assert_close(one.logits.softmax(1), present(one.emotional).softmax(1))
        assert present(zero.lam).item() == 0 and present(one.lam).item() == 1


def test_mode_none_is_a_plain_classifier(images: Tensor) -> None:
    model = RegulatedClassifier(TinyBackbone(), None, K, mode="none").eval()
    answer = model.respond(images)
    assert_close(answer.logits, model.head(model.backbone(images)))
    assert answer.emotional is None and answer.lam is None and model.lam is None
    assert not any("regulation" in name or "encoder" in name for name, _ in model.named_parameters())


def test_learned_starts_at_lam_and_random_learned_at_a_seeded_draw() -> None:
    assert present(classifier(mode="learned", lam=0.2).lam).item() == pytest.approx(0.2)
    draws = {round(present(classifier(mode="random_learned", seed=seed).lam).item(), 6) for seed in range(20)}
    assert len(draws) == 20 and all(0 < draw < 1 for draw in draws)
    assert min(draws) < 0.25 and max(draws) > 0.75  # U(0, 1), not something about 0.5
    assert classifier(mode="random_learned", seed=3).lam == classifier(mode="random_learned", seed=3).lam


def test_random_draws_one_lambda_a_sample_and_step_and_evaluates_at_the_mean(images: Tensor) -> None:
    model = classifier(mode="random").train()
    first, second = present(model.respond(images).lam), present(model.respond(images).lam)
    assert first.shape == (5, 1) and len(first.unique()) == 5
    assert not torch.equal(first, second)
    assert ((first >= 0) & (first <= 1)).all()
    many = torch.cat([model.regulation(torch.zeros(1000, 6), torch.zeros(1000, 9)).sigmoid() for _ in range(5)])
    assert many.mean().item() == pytest.approx(0.5, abs=0.02)
    assert many.var().item() == pytest.approx(1 / 12, abs=0.005)
    assert present(model.eval().respond(images).lam).item() == 0.5


@pytest.mark.parametrize(("granularity", "shape"), [("scalar", (1, 1)), ("per_class", (1, K)), ("per_sample", (5, 1))])
@pytest.mark.parametrize("mode", ["learned", "random_learned"])
def test_granularity_gives_lambda_its_shape(
    mode: Any, granularity: Any, shape: tuple[int, int], images: Tensor
) -> None:
    answer = classifier(mode=mode, granularity=granularity).respond(images)
    assert present(answer.lam).shape == shape
    assert answer.logits.shape == (5, K)


def test_per_sample_gate_starts_as_the_scalar_and_then_distinguishes_samples(images: Tensor) -> None:
    model = classifier(granularity="per_sample", lam=0.3).eval()
    assert_close(model.respond(images).lam, torch.full((5, 1), 0.3))
    nn.init.normal_(model.get_parameter("regulation.gate.weight"))
    assert len(present(model.respond(images).lam).unique()) == 5


@pytest.mark.parametrize("mix", ["logits", "probabilities", "features"])
@pytest.mark.parametrize("granularity", ["scalar", "per_class", "per_sample"])
def test_gradients_reach_everything_that_learns(mix: Any, granularity: Any, images: Tensor) -> None:
    if mix == "features" and granularity == "per_class":
        pytest.skip("refused, see test_meaningless_combinations_are_refused")
    model = classifier(mode="learned", mix=mix, granularity=granularity)
    regulation_loss(model.respond(images), torch.tensor([0, 1, 2, 3, 0])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("mode", MODES)
def test_only_the_learned_modes_have_a_lambda_that_trains(mode: Any) -> None:
    trained = {name for name, _ in classifier(mode=mode).named_parameters() if name.startswith("regulation")}
    assert trained == ({"regulation.rho"} if "learned" in mode else set())


def test_lambda_stays_in_bounds_however_far_it_is_driven(images: Tensor) -> None:
    for mix in ("logits", "probabilities", "features"):
        model = classifier(mode="learned", mix=mix)
        for value in (-200.0, 200.0):
            nn.init.constant_(model.get_parameter("regulation.rho"), value)
            answer = model.respond(images)
            assert 0 <= present(answer.lam).item() <= 1
            regulation_loss(answer, torch.zeros(5, dtype=torch.long)).backward()
            assert torch.isfinite(answer.logits).all()
            assert all(torch.isfinite(present(p.grad)).all() for p in model.parameters())


def test_frozen_encoder_gets_no_gradient_and_keeps_its_statistics(images: Tensor) -> None:
    model = classifier(freeze_encoder=True).train()
    encoder = present(model.encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    regulation_loss(model.respond(images), torch.zeros(5, dtype=torch.long)).backward()
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert model.backbone.training and model.get_parameter("backbone.conv.weight").grad is not None
    assert model.emotional_head.weight.grad is not None and model.get_parameter("regulation.rho").grad is not None


def test_an_encoder_that_is_frozen_in_part_stays_so() -> None:
    encoder = TinyBackbone()
    encoder.conv.requires_grad_(False)  # as under adapters
    RegulatedClassifier(TinyBackbone(), encoder, K)
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == ["norm.weight", "norm.bias"]


def test_a_classifier_can_be_built_around_an_encoder_that_is_frozen_and_thawed_later(images: Tensor) -> None:
    encoder = TinyBackbone().requires_grad_(False)
    model = RegulatedClassifier(TinyBackbone(), encoder, K)
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.requires_grad_(True)
    model(images).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_fine_tuned_encoder_moves_its_statistics(images: Tensor) -> None:
    model = classifier().train()
    before = model.get_buffer("encoder.norm.running_mean").clone()
    model(images)
    assert not torch.equal(before, model.get_buffer("encoder.norm.running_mean"))


def test_mixed_probabilities_are_the_mixture() -> None:
    z_n, z_e, lam = torch.randn(7, K), torch.randn(7, K) * 5, torch.tensor([[0.3]])
    mixed = mix_probabilities(z_n, z_e, lam.logit()).softmax(1)
    assert_close(mixed, 0.7 * z_n.softmax(1) + 0.3 * z_e.softmax(1))


def test_mixed_probabilities_survive_confident_disagreement() -> None:
    sure = torch.tensor([[1e4, 0.0, 0.0, 0.0]])
    mixed = mix_probabilities(sure, sure.flip(1), torch.tensor([[0.0]]))
    assert torch.isfinite(mixed[:, [0, 3]]).all()
    assert_close(mixed.softmax(1), torch.tensor([[0.5, 0, 0, 0.5]]))


def test_mixed_features_share_one_head_and_project_only_where_widths_differ(images: Tensor) -> None:
    same, other = classifier(mix="features", encoder_width=6), classifier(mix="features", encoder_width=9)
    assert isinstance(same.projection, nn.Identity) and isinstance(other.projection, nn.Linear)
    other.eval()
    answer = other.respond(images)
    f, e = other.backbone(images), other.projection(present(other.encoder)(images))
    assert_close(answer.logits, other.head(0.5 * f + 0.5 * e))
    assert_close(answer.emotional, other.head(e))
    assert not hasattr(other, "emotional_head")


def test_loss_is_the_three_terms() -> None:
    z, z_n, z_e, y = torch.randn(6, K), torch.randn(6, K), torch.randn(6, K), torch.randint(K, (6,))
    response = Response(z, z_n, z_e, torch.tensor([[0.5]]))
    for smoothing in (0.0, 0.1):
        ce = nn.CrossEntropyLoss(label_smoothing=smoothing)
        default = 0.5 * ce(z, y) + 0.75 * ce(z_n, y) + 0.75 * ce(z_e, y)
        assert_close(regulation_loss(response, y, label_smoothing=smoothing), default)
        expected = 0.2 * ce(z, y) + 0.3 * ce(z_n, y) + 0.7 * ce(z_e, y)
        assert_close(regulation_loss(response, y, LossWeights(0.2, 0.3, 0.7), smoothing), expected)


def test_the_loss_of_mixed_images_is_that_of_both_labels_in_their_shares() -> None:
    z, z_n, z_e = (torch.randn(6, K) for _ in range(3))
    y, other, share = torch.randint(K, (6,)), torch.randint(K, (6,)), torch.rand(6)
    of_one, of_other = (nn.functional.one_hot(labels, K).float() for labels in (y, other))
    soft = torch.lerp(of_other, of_one, share[:, None])
    response, weights = Response(z, z_n, z_e, torch.tensor([[0.5]])), LossWeights(0.2, 0.3, 0.7, 0.4)
    for smoothing in (0.0, 0.1):
        ce = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        expected = weights.mutual * disagreement(z_n, z_e)
        for weight, answer in zip(weights[:3], (z, z_n, z_e), strict=True):
            expected = expected + weight * (share * ce(answer, y) + (1 - share) * ce(answer, other)).mean()
        assert_close(regulation_loss(response, soft, weights, smoothing), expected)
    certain = nn.functional.one_hot(y, K).float()
    assert_close(regulation_loss(response, certain, weights, 0.1), regulation_loss(response, y, weights, 0.1))


def test_class_weights_multiply_each_images_loss_and_the_parts_of_a_batch_add_up_to_it() -> None:
    z, z_n, z_e = (torch.randn(6, K) for _ in range(3))
    y, of_classes = torch.randint(K, (6,)), torch.rand(K) + 0.1
    response, weights = Response(z, z_n, z_e, torch.tensor([[0.5]])), LossWeights(0.2, 0.3, 0.7)
    found = regulation_loss(response, y, weights, class_weights=of_classes)
    ce = nn.CrossEntropyLoss(reduction="none")
    answers = zip(weights[:3], (z, z_n, z_e), strict=True)
    assert_close(found, sum(weight * (of_classes[y] * ce(answer, y)).mean() for weight, answer in answers))
    soft = nn.functional.one_hot(y, K).float()
    for smoothing in (0.0, 0.1):  # a one-hot label equals its class
        whole, as_soft = (regulation_loss(response, labels, weights, smoothing, of_classes) for labels in (y, soft))
        assert_close(whole, as_soft)
        parts = [
            regulation_loss(Response(z[rows], z_n[rows], z_e[rows], None), y[rows], weights, smoothing, of_classes)
            for rows in (slice(0, 2), slice(2, 6))
        ]
        assert_close(whole, (2 * parts[0] + 4 * parts[1]) / 6)


def test_the_loss_of_one_response_is_plain_cross_entropy() -> None:
    z, z_n, y = torch.randn(6, K), torch.randn(6, K), torch.randint(K, (6,))
    plain, ce = Response(z, z_n, None, None), nn.CrossEntropyLoss()(z, y)
    assert torch.equal(regulation_loss(plain, y), ce)
    assert torch.equal(regulation_loss(plain, y, LossWeights(1, 0, 0.7)), ce)  # there is no second response


def test_mutual_learning_pulls_each_response_towards_the_detached_other() -> None:
    z_n, z_e = (torch.randn(6, K, requires_grad=True) for _ in range(2))
    y, p_n, p_e = torch.randint(K, (6,)), z_n.softmax(1), z_e.softmax(1)
    divergence = (p_e * (p_e / p_n).log()).sum(1).mean() + (p_n * (p_n / p_e).log()).sum(1).mean()
    response = Response(z_n, z_n, z_e, torch.tensor([[0.5]]))
    expected = nn.CrossEntropyLoss()(z_n, y) + 0.3 * divergence
    weights = LossWeights(1, 0, 0, mutual=0.3)
    assert_close(regulation_loss(response, y, weights), expected)
    disagreement(z_n, z_e).backward()
    # The gradient of KL(p_e ‖ p_n) with p_e fixed, and vice versa, is that of cross-entropy with a distribution.
    assert_close(z_n.grad, (p_n - p_e).detach() / 6)
    assert_close(z_e.grad, (p_e - p_n).detach() / 6)
    assert_close(regulation_loss(Response(z_n, z_n, None, None), y, weights), nn.CrossEntropyLoss()(z_n, y))
    with pytest.raises(ValueError, match="nothing to train"):  # D alone trains nothing
        regulation_loss(response, y, LossWeights(0, 0, 0, mutual=1))


def test_a_term_of_weight_zero_is_not_computed() -> None:
    z, y, never = torch.randn(6, K), torch.randint(K, (6,)), torch.full((6, K), torch.nan)  # 0 · nan is nan
    ce, lam = nn.CrossEntropyLoss()(z, y), torch.tensor([[0.5]])
    assert torch.equal(regulation_loss(Response(z, never, never, lam), y, LossWeights(1, 0, 0)), ce)
    assert torch.equal(regulation_loss(Response(never, z, never, lam), y, LossWeights(0, 1, 0)), ce)
    assert torch.equal(regulation_loss(Response(never, never, z, lam), y, LossWeights(0, 0, 1)), ce)


def test_the_two_responses_train_apart_without_the_regulated_loss(images: Tensor) -> None:
    """With a = 0 each response gets the gradient of its own loss only, like the members of an ensemble."""
    y = torch.tensor([0, 1, 2, 3, 0])
    model = classifier(mode="learned").eval()
    regulation_loss(model.respond(images), y, LossWeights(0, 1, 1)).backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    assert found.pop("regulation.rho") is None  # λ is no part of it
    model.zero_grad()
    nn.functional.cross_entropy(model.head(model.backbone(images)), y).backward()
    nn.functional.cross_entropy(emotional(model, images), y).backward()
    for name, gradient in found.items():
        assert gradient is not None and torch.equal(gradient, present(model.get_parameter(name).grad)), name


def test_a_loss_without_any_term_is_refused() -> None:
    z, y = torch.randn(6, K), torch.randint(K, (6,))
    for response in (Response(z, z, None, None), Response(z, z, z, torch.tensor([[0.5]]))):
        with pytest.raises(ValueError, match="nothing to train"):
            regulation_loss(response, y, LossWeights(0, 0, 0))
    with pytest.raises(ValueError, match="nothing to train"):
        regulation_loss(Response(z, z, None, None), y, LossWeights(0, 0, 1))


@pytest.mark.parametrize("mix", ["logits", "features"])
def test_branches_hold_every_parameter_once(mix: Any) -> None:
    model = classifier(mode="learned", granularity="per_sample", mix=mix)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    non_emotional, emotional, regulation = ([names.pop(id(p)) for p in branch] for branch in model.branches())
    assert not names
    assert {name.split(".")[0] for name in non_emotional} == {"backbone", "head"}
    own = "projection" if mix == "features" else "emotional_head"
    assert {name.split(".")[0] for name in emotional} == {"encoder", own}
    assert regulation == ["regulation.rho", "regulation.gate.weight"]


def test_one_network_has_one_branch_and_a_shared_trunk_belongs_to_the_first() -> None:
    plain = RegulatedClassifier(TinyBackbone(), None, K, mode="none")
    assert [len(branch) for branch in plain.branches()] == [len(list(plain.parameters())), 0, 0]
    shared = TinyBackbone()
    both = RegulatedClassifier(shared, shared, K)
    assert both.branches()[1] == list(both.emotional_head.parameters())
    with pytest.raises(SettingError, match=r"freeze_encoder: .* give copy.deepcopy"):  # both would be frozen
        RegulatedClassifier(shared, shared, K, freeze_encoder=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 1.2}, r"\[0, 1\]"),
        ({"lam": -0.1}, r"\[0, 1\]"),
        ({"mode": "learned", "lam": 0.0}, "strictly between"),
        ({"mode": "fixed", "granularity": "per_class"}, "granularity"),
        ({"mode": "random", "granularity": "per_sample"}, "granularity"),
        ({"mix": "features", "granularity": "per_class"}, "features"),
        ({"mode": "none"}, "takes no encoder"),
        ({"mode": "transfer"}, "one network"),
        ({"seed": -1}, "seed: must be at least 0, not -1"),
    ],
)
def test_meaningless_combinations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(**options)


@pytest.mark.parametrize("granularity", get_args(Granularity))
def test_a_held_lambda_keeps_its_value_and_gets_no_gradient(granularity: Granularity, images: Tensor) -> None:
    model, answers = classifier(granularity=granularity).train(), list[Tensor]()
    regulation = model.regulation
    assert isinstance(regulation, Holdable)
    for is_held in (True, False):
        model.zero_grad()
        regulation.hold(is_held)
        torch.manual_seed(0)  # of the dropout
        answers.append(model(images))
        answers[-1].square().sum().backward()
        for parameter in regulation.parameters():
            assert parameter.grad is not None and bool(parameter.grad.any()) != is_held
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(*answers)
    assert "regulation.pace" not in model.state_dict()


def test_a_script_of_a_user_is_typed_as_it_runs(images: Tensor) -> None:
    class AtMostHalf(nn.Module):
        gate, expected_start, rho = None, 0.25, torch.tensor([[0.25]]).logit()

        def forward(self, features: Tensor, emotional_features: Tensor) -> Tensor:
            return self.rho

    mode, budget = "Learn-E-Reg", "matched"  # plain str
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), K, mode)
    model.regulation = AtMostHalf()
    assert_type(model(images), Tensor)
    response = model(images, whole=True)
    assert_type(response, Response)
    loss = RegulationLoss(model, budget=budget)(response, torch.zeros(5, dtype=torch.long))
    assert_type(loss, Tensor)
    assert loss.ndim == 0 and response.lam is not None and response.lam.item() == pytest.approx(0.25)


def test_any_two_modules_work_when_their_widths_are_given(images: Tensor) -> None:
    f = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    e = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="feature_dims"):
        RegulatedClassifier(f, e, K)
    assert RegulatedClassifier(f, e, K, feature_dims=(7, 3))(images).shape == (5, K)


def test_it_memorises_one_batch_in_a_plain_loop(images: Tensor) -> None:
    model, y = classifier(), torch.tensor([0, 1, 2, 3, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), y).backward()
        optimizer.step()
    assert (model(images).argmax(1) == y).all()


def test_bf16_autocast_gives_the_same_answer_within_its_precision(images: Tensor) -> None:
    for mix in ("logits", "probabilities", "features"):
        model = classifier(mix=mix).eval()
        with torch.autocast("cpu", torch.bfloat16):
            low = model(images)
        assert_close(low.float(), model(images), atol=0.05, rtol=0.05)


def test_lambda_and_both_gates_are_exempt_from_weight_decay() -> None:
    exempt = {"regulation.rho", "regulation.gate.weight"}
    assert classifier(granularity="per_sample").no_weight_decay() == exempt


def test_a_constant_lambda_is_stored_as_itself_and_read_from_its_log_odds_too() -> None:
    for lam in (0.0, 0.25, 1.0):
        model = classifier(mode="fixed", lam=lam)
        assert model.get_submodule("regulation").state_dict() == {"lam": torch.tensor([[lam]])}
        assert model.lam is not None and model.lam.item() == lam
        other = classifier(mode="fixed", lam=0.5)
        old = {name.replace("regulation.lam", "regulation.rho"): value for name, value in model.state_dict().items()}
        old["regulation.rho"] = old["regulation.rho"].logit()  # as the first edition stored it
        other.load_state_dict(old)
        assert other.lam is not None and other.lam.item() == pytest.approx(lam)


def test_a_gate_has_no_single_lambda() -> None:
    assert classifier(mode="learned", granularity="per_sample").lam is None

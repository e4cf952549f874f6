from __future__ import annotations

import numpy as np
import pytest
from original_relatives import BEL, EmBPNetwork, LiAENN


def logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def one_neuron_per_layer(emotional: bool = True) -> EmBPNetwork:
    """One input, one hidden neuron, one output, with weights that are easy to compute with."""
    network = EmBPNetwork(1, 1, 1, rate=0.5, momentum=0.2, emotional=emotional)
    network.weights = [np.array([[1.0]]), np.array([[2.0]])]
    network.biases = [np.array([0.1]), np.array([-0.2])]
    network.emotions = [np.array([0.3 * emotional]), np.array([0.4 * emotional])]
    return network


def test_a_step_of_embp_follows_the_equations() -> None:
    network, x, t = one_neuron_per_layer(), 0.5, 1.0
    h = logistic(1.0 * x + 0.1 + 0.3 * x)  # Y, the mean of a pattern, is its only value
    y = logistic(2.0 * h - 0.2 + 0.4 * x)
    of_output = y * (1 - y) * (t - y)
    of_hidden = h * (1 - h) * 2.0 * of_output
    for array, value in zip(network.respond(np.array([x])), (h, y), strict=True):
        assert array.item() == pytest.approx(value)
    assert network.learn(np.array([x]), np.array([t])) == pytest.approx((t - y) ** 2)
    assert network.weights[1].item() == pytest.approx(2.0 + 0.5 * of_output * h)
    assert network.weights[0].item() == pytest.approx(1.0 + 0.5 * of_hidden * x)
    assert network.biases[1].item() == pytest.approx(-0.2 + 0.5 * of_output)
    assert network.emotions[1].item() == pytest.approx(0.4 + 1.0 * of_output * x)  # μ = 1 at first
    assert network.emotions[0].item() == pytest.approx(0.3 + 1.0 * of_hidden * x)


def test_a_later_step_uses_momentum_for_conventional_weights_and_confidence_for_emotional_ones() -> None:
    network, x, t = one_neuron_per_layer(), np.array([0.5]), np.array([1.0])
    network.learn(x, t)
    before = [np.array(parts) for parts in (network.weights, network.emotions)]
    changes = [network.changes[0][1].item(), network.changes[2][1].item()]
    network.mood.anxiety, network.mood.confidence = 0.6, 0.25
    hidden, output = network.respond(x)
    delta = (output * (1 - output) * (t - output)).item()
    network.learn(x, t)
    assert network.weights[1].item() == pytest.approx(before[0][1].item() + 0.5 * delta * hidden[0] + 0.2 * changes[0])
    assert network.emotions[1].item() == pytest.approx(before[1][1].item() + 0.6 * delta * 0.5 + 0.25 * changes[1])


def test_the_anxiety_of_embp_is_the_mean_of_the_patterns_plus_the_last_error() -> None:
    network = EmBPNetwork(4, 3, 2)
    patterns, targets = np.random.default_rng(0).random((6, 4)), np.eye(2)[[0, 1, 0, 1, 0, 1]]
    assert (network.mood.anxiety, network.mood.confidence) == (1, 0)
    first = network.iterate(patterns, targets)
    assert network.mood.anxiety == pytest.approx(patterns.mean() + first) and network.mood.confidence == 0
    second = network.iterate(patterns, targets)
    assert network.mood.confidence == pytest.approx(first - second)


def test_plain_back_propagation_has_no_emotional_weights() -> None:
    network = EmBPNetwork(4, 3, 2, emotional=False)
    network.iterate(np.random.default_rng(0).random((6, 4)), np.eye(2)[[0, 1, 0, 1, 0, 1]])
    assert not any(emotions.any() for emotions in network.emotions)


ONE, NONE = np.array([1.0]), np.array([0.0])


def felt(model: BEL, stimuli: list[float]) -> float:
    amygdala, cortex = model.respond(np.array(stimuli), thalamus=False)
    return float((amygdala - cortex).item())


def test_a_step_of_bel_follows_the_equations() -> None:
    model = BEL(2)
    model.v, model.w = np.array([[0.1, 0.2, 0.3]]), np.array([[0.4, 0.1]])
    amygdala, cortex = 0.1 * 1.0 + 0.2 * 0.5 + 0.3 * 1.0, 0.4 * 1.0 + 0.1 * 0.5  # 0.5 and 0.45; the thalamus has max S
    emotion = model.learn(np.array([1.0, 0.5]), NONE)
    assert emotion.item() == pytest.approx(amygdala - cortex)
    np.testing.assert_allclose(model.v, [[0.1, 0.2, 0.3]])  # without a reward the amygdala does not change
    np.testing.assert_allclose(model.w, [[0.4 + 0.8 * 0.05 * 1.0, 0.1 + 0.8 * 0.05 * 0.5]])
    missing = 1 - amygdala
    model.w[:] = 0.4, 0.1
    model.learn(np.array([1.0, 0.5]), ONE)
    np.testing.assert_allclose(model.v, [[0.1 + 0.2 * missing, 0.2 + 0.2 * missing * 0.5, 0.3 + 0.2 * missing]])
    np.testing.assert_allclose(model.w, 0)  # 0.4 + 0.8 · (0.05 - 1) is below 0, as is the other


def test_a_response_is_acquired_and_extinguished_while_the_amygdala_remembers() -> None:
    model = BEL(1)
    acquired = [model.learn(ONE, ONE, thalamus=False).item() for _ in range(20)]
    assert acquired[0] == 0 and np.all(np.diff(acquired) > 0) and felt(model, [1]) > 0.98
    learned = model.v.copy()
    for _ in range(20):
        model.learn(ONE, NONE, thalamus=False)
    assert felt(model, [1]) < 0.02
    np.testing.assert_array_equal(model.v, learned)
    model.learn(ONE, ONE, thalamus=False)
    assert felt(model, [1]) > 0.75  # reacquired in one presentation; at first it took seven


def test_a_stimulus_that_predicts_nothing_new_is_blocked() -> None:
    model = BEL(2)
    for _ in range(20):
        model.learn(np.array([1.0, 0.0]), ONE, thalamus=False)
    for _ in range(20):
        model.learn(np.array([1.0, 1.0]), ONE, thalamus=False)
    assert felt(model, [1, 0]) > 0.95 and felt(model, [0, 1]) < 0.05


PATTERN = np.array([0.6, 0.2])


def two_classes() -> LiAENN:
    """A network with two classes, whose output is too high for one and too low for the other."""
    network = LiAENN(2, 2, forgetting=0.1)
    network.v, network.w = np.array([[1.0, 0.5, 0.5], [0.2, 0.4, 0.1]]), np.array([[0.5, 0.0], [0.1, 0.1]])
    network.mood.anxiety, network.mood.confidence = 0.5, 0.25
    network.v_change[:], network.w_change[:] = 0.02, 0.04
    return network


@pytest.mark.parametrize("right", [0, 1])
def test_a_step_of_liaenn_follows_the_equations(right: int) -> None:
    network, target = two_classes(), np.eye(2)[right]
    v, w = network.v.copy(), network.w.copy()
    short = np.array([1.0 * 0.6 + 0.5 * 0.2, 0.2 * 0.6 + 0.4 * 0.2])  # A': 0.7 and 0.2
    amygdala = short + np.array([0.5, 0.1]) * 0.6  # A: 1.0 and 0.26
    cortex = np.array([0.3, 0.08])  # O
    outputs = network.respond(PATTERN)
    for ours, expected in zip(outputs, (amygdala, short, cortex), strict=True):
        np.testing.assert_allclose(ours, expected)
    reward = short - cortex  # R₀ of the wrong class: both are above 0
    reward[right] = max(short[right] - 1, 0) - cortex[right]
    error = network.learn(PATTERN, target)
    assert error == pytest.approx(((target - amygdala + cortex) ** 2).mean())
    grown = 0.5 * np.outer(np.maximum(target - amygdala, 0), [0.6, 0.2, 0.6]) + 0.25 * 0.02
    np.testing.assert_allclose(network.v, 0.9 * v + grown)
    np.testing.assert_allclose(network.w, 0.9 * w + 0.5 * np.outer(reward, PATTERN) + 0.25 * 0.04)


def test_the_anxiety_of_liaenn_is_the_mean_of_the_patterns_plus_the_last_error() -> None:
    network, patterns, targets = LiAENN(2, 2), np.array([[0.6, 0.2], [0.1, 0.7]]), np.eye(2)
    first = network.iterate(patterns, targets)
    assert network.mood.anxiety == pytest.approx(0.4 + first) and network.mood.confidence == 0
    second = network.iterate(patterns, targets)
    assert network.mood.confidence == pytest.approx(first - second) and second < first

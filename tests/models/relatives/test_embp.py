from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from emoreg.models.relatives.embp import EmBPHead, EmBPNetwork
from emoreg.models.relatives.mood import mean_pixel


def logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def one_of_each(emotional: bool = True) -> EmBPNetwork:
    """One input, one hidden neuron, one output, with weights that can be reckoned with."""
    network = EmBPNetwork(1, 1, 1, rate=0.5, momentum=0.2, emotional=emotional)
    network.weights = [np.array([[1.0]]), np.array([[2.0]])]
    network.biases = [np.array([0.1]), np.array([-0.2])]
    network.emotions = [np.array([0.3 * emotional]), np.array([0.4 * emotional])]
    return network


def test_a_step_is_that_of_the_equations() -> None:
    network, x, t = one_of_each(), 0.5, 1.0
    h = logistic(1.0 * x + 0.1 + 0.3 * x)  # the mean Y of a pattern of one value is that value
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


def test_a_later_step_has_the_momentum_of_conventional_weights_and_the_confidence_of_emotional_ones() -> None:
    network, x, t = one_of_each(), np.array([0.5]), np.array([1.0])
    network.learn(x, t)
    before = [np.array(parts) for parts in (network.weights, network.emotions)]
    changes = [network.changes[0][1].item(), network.changes[2][1].item()]
    network.mood.anxiety, network.mood.confidence = 0.6, 0.25
    hidden, output = network.respond(x)
    delta = (output * (1 - output) * (t - output)).item()
    network.learn(x, t)
    assert network.weights[1].item() == pytest.approx(before[0][1].item() + 0.5 * delta * hidden[0] + 0.2 * changes[0])
    assert network.emotions[1].item() == pytest.approx(before[1][1].item() + 0.6 * delta * 0.5 + 0.25 * changes[1])


def test_anxiety_is_the_patterns_mean_and_the_error_of_the_last_iteration() -> None:
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


def test_the_heads_emotional_weights_learn_by_anxiety_and_confidence() -> None:
    torch.manual_seed(0)
    head, features, images = EmBPHead(nn.Linear(2, 3)), torch.randn(4, 2), torch.randn(4, 3, 5, 5) / 9
    labels, targets = torch.tensor([0, 1, 2, 0]), torch.eye(3)[[0, 1, 2, 0]]
    y, last, first = mean_pixel(images), torch.zeros(3), None
    for share in (1.0, 0.5):
        logits = head(features, images)
        expected = head.linear(features) + y[:, None] * head.emotional
        torch.testing.assert_close(logits, expected)
        before, error = head.emotional.detach().clone(), targets - logits.detach().softmax(dim=1)
        (cross_entropy(logits, labels) + head.local_loss(features, images, logits, targets)).backward()
        head.learn(share)
        anxiety = y.mean() + error.square().mean()
        first = anxiety if first is None else first
        last = share * anxiety * (error * y[:, None]).mean(dim=0) + (first - anxiety) * last
        torch.testing.assert_close(head.emotional.detach(), before + last)
        assert head.emotional.grad is None and head.mood.sensed.grad is None

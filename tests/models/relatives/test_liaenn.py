from __future__ import annotations

import numpy as np
import pytest
import torch

from emoreg.models.relatives import liaenn
from emoreg.models.relatives.liaenn import LiAENN, LiAENNHead
from emoreg.models.relatives.limbic import SHARPNESS, stimuli_of
from emoreg.models.relatives.mood import mean_pixel

PATTERN = np.array([0.6, 0.2])


def model() -> LiAENN:
    """Two classes, one of which is answered by too much and one by too little."""
    made = LiAENN(2, 2, forgetting=0.1)
    made.v, made.w = np.array([[1.0, 0.5, 0.5], [0.2, 0.4, 0.1]]), np.array([[0.5, 0.0], [0.1, 0.1]])
    made.mood.anxiety, made.mood.confidence = 0.5, 0.25
    made.v_change[:], made.w_change[:] = 0.02, 0.04
    return made


@pytest.mark.parametrize("right", [0, 1])
def test_a_step_is_that_of_the_equations(right: int) -> None:
    network, target = model(), np.eye(2)[right]
    v, w = network.v.copy(), network.w.copy()
    short = np.array([1.0 * 0.6 + 0.5 * 0.2, 0.2 * 0.6 + 0.4 * 0.2])  # A': 0.7 and 0.2
    amygdala = short + np.array([0.5, 0.1]) * 0.6  # A: 1.0 and 0.26
    cortex = np.array([0.3, 0.08])  # O
    answered = network.respond(PATTERN)
    for ours, expected in zip(answered, (amygdala, short, cortex), strict=True):
        np.testing.assert_allclose(ours, expected)
    reward = short - cortex  # R₀ of a class that it is not: both are above 0
    reward[right] = max(short[right] - 1, 0) - cortex[right]
    error = network.learn(PATTERN, target)
    assert error == pytest.approx(((target - amygdala + cortex) ** 2).mean())
    grown = 0.5 * np.outer(np.maximum(target - amygdala, 0), [0.6, 0.2, 0.6]) + 0.25 * 0.02
    np.testing.assert_allclose(network.v, 0.9 * v + grown)
    np.testing.assert_allclose(network.w, 0.9 * w + 0.5 * np.outer(reward, PATTERN) + 0.25 * 0.04)


def test_anxiety_is_the_patterns_mean_and_the_error_of_the_last_iteration() -> None:
    network, patterns, targets = LiAENN(2, 2), np.array([[0.6, 0.2], [0.1, 0.7]]), np.eye(2)
    first = network.iterate(patterns, targets)
    assert network.mood.anxiety == pytest.approx(0.4 + first) and network.mood.confidence == 0
    second = network.iterate(patterns, targets)
    assert network.mood.confidence == pytest.approx(first - second) and second < first


def test_the_heads_step_is_that_of_the_equations_averaged_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liaenn, "FORGETTING", 0.25)  # its own would be lost in rounding
    torch.manual_seed(0)
    head, features, images = LiAENNHead(3, 4), torch.rand(5, 3), torch.randn(5, 3, 4, 4) / 9
    head.v.data.normal_()
    head.w.data.normal_()
    head.last_v.fill_(0.02)
    targets = torch.eye(4)[[0, 1, 2, 3, 0]]
    v, w, p = head.v.detach().clone(), head.w.detach().clone(), stimuli_of(features)
    through = torch.cat([p, p.amax(dim=1, keepdim=True)], dim=1)
    amygdala, short, cortex = through @ v.T, p @ v[:, :-1].T, p @ w.T
    reward = torch.where(targets > 0, (short - targets).clamp(min=0) - cortex, (short - cortex).clamp(min=0))
    logits = head(features, images)
    torch.testing.assert_close(logits, SHARPNESS * (amygdala - cortex))
    head.mood.first.fill_(9.0)
    loss = head.local_loss(features, images, logits, targets)
    loss.backward()
    head.learn(share=0.5)
    anxiety = mean_pixel(images).mean() + (targets - amygdala + cortex).square().mean()
    grown = torch.einsum("bk,bd->kd", (targets - amygdala).clamp(min=0), through) / 5
    v_change = 0.5 * anxiety * grown + (9.0 - anxiety) * 0.02
    w_change = 0.5 * anxiety * torch.einsum("bk,bd->kd", reward, p) / 5
    torch.testing.assert_close(head.v.detach(), (1 - 0.5 * 0.25) * v + v_change)
    torch.testing.assert_close(head.w.detach(), (1 - 0.5 * 0.25) * w + w_change)
    torch.testing.assert_close(head.last_v, v_change)
    assert loss.item() == 0

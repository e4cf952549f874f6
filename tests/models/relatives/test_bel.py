from __future__ import annotations

import numpy as np
import pytest
import torch

from emoreg.models.relatives.bel import BEL, BELHead
from emoreg.models.relatives.limbic import SHARPNESS

ONE, NONE = np.array([1.0]), np.array([0.0])


def felt(model: BEL, stimuli: list[float]) -> float:
    amygdala, cortex = model.respond(np.array(stimuli), thalamus=False)
    return float((amygdala - cortex).item())


def test_a_step_is_that_of_the_equations() -> None:
    model = BEL(2)
    model.v, model.w = np.array([[0.1, 0.2, 0.3]]), np.array([[0.4, 0.1]])
    amygdala, cortex = 0.1 * 1.0 + 0.2 * 0.5 + 0.3 * 1.0, 0.4 * 1.0 + 0.1 * 0.5  # 0.5 and 0.45; the thalamus has max S
    emotion = model.learn(np.array([1.0, 0.5]), NONE)
    assert emotion.item() == pytest.approx(amygdala - cortex)
    np.testing.assert_allclose(model.v, [[0.1, 0.2, 0.3]])  # without a reward the amygdala keeps what it has learned
    np.testing.assert_allclose(model.w, [[0.4 + 0.8 * 0.05 * 1.0, 0.1 + 0.8 * 0.05 * 0.5]])
    missing = 1 - amygdala
    model.w[:] = 0.4, 0.1
    model.learn(np.array([1.0, 0.5]), ONE)
    np.testing.assert_allclose(model.v, [[0.1 + 0.2 * missing, 0.2 + 0.2 * missing * 0.5, 0.3 + 0.2 * missing]])
    np.testing.assert_allclose(model.w, 0)  # 0.4 + 0.8 · (0.05 - 1) is below 0, as is the other


def test_a_response_is_acquired_and_extinguished_and_what_the_amygdala_learned_stays() -> None:
    model = BEL(1)
    acquired = [model.learn(ONE, ONE, thalamus=False).item() for _ in range(20)]
    assert acquired[0] == 0 and np.all(np.diff(acquired) > 0) and felt(model, [1]) > 0.98
    learned = model.v.copy()
    for _ in range(20):
        model.learn(ONE, NONE, thalamus=False)
    assert felt(model, [1]) < 0.02
    np.testing.assert_array_equal(model.v, learned)
    model.learn(ONE, ONE, thalamus=False)
    assert felt(model, [1]) > 0.75  # acquired anew in one presentation, where the first time took seven


def test_a_stimulus_that_tells_nothing_new_is_blocked() -> None:
    model = BEL(2)
    for _ in range(20):
        model.learn(np.array([1.0, 0.0]), ONE, thalamus=False)
    for _ in range(20):
        model.learn(np.array([1.0, 1.0]), ONE, thalamus=False)
    assert felt(model, [1, 0]) > 0.95 and felt(model, [0, 1]) < 0.05


def test_the_heads_step_is_that_of_the_equations_averaged_over_the_batch() -> None:
    head = BELHead(2, 3)
    torch.manual_seed(0)
    for weights in (head.v, head.w):
        weights.data.normal_(std=0.5)
    features, targets = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.eye(3)[[0, 2]]
    s = torch.tensor([[0.6, 0.8], [0.0, 1.0]])  # of length 1
    through = torch.cat([s, torch.tensor([[0.8], [1.0]])], dim=1)
    v, w = head.v.detach().clone(), head.w.detach().clone()
    amygdala, cortex = through @ v.T, s @ w.T
    emotion = amygdala - cortex
    logits = head(features, torch.zeros(2, 3, 4, 4))
    torch.testing.assert_close(logits, SHARPNESS * emotion)
    loss = head.local_loss(features, torch.zeros(2, 3, 4, 4), logits, targets)
    loss.backward()
    head.learn(share=0.5)
    grown = torch.einsum("bk,bd->kd", (targets - amygdala).clamp(min=0), through) / 2
    torch.testing.assert_close(head.v.detach(), v + 0.5 * 0.2 * grown)
    torch.testing.assert_close(head.w.detach(), w + 0.5 * 0.8 * torch.einsum("bk,bd->kd", emotion - targets, s) / 2)
    assert loss.item() == 0 and head.v.grad is None and head.w.grad is None


def test_the_trunk_learns_from_the_logits_and_the_head_does_not() -> None:
    head, features = BELHead(2, 3), torch.randn(4, 2, requires_grad=True)
    head.v.data.normal_()
    head(features, torch.zeros(4, 3, 4, 4)).logsumexp(dim=1).sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    assert head.v.grad is None and head.w.grad is None

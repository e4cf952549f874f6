from __future__ import annotations

import torch

from emoreg.models.relatives.bel import BELHead
from emoreg.models.relatives.limbic import SHARPNESS


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

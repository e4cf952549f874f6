from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from emoreg.models.relatives.embp import EmBPHead
from emoreg.models.relatives.mood import mean_pixel


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

from __future__ import annotations

import pytest
import torch

from emoreg.models.relatives import liaenn
from emoreg.models.relatives.liaenn import LiAENNHead
from emoreg.models.relatives.limbic import SHARPNESS, normalised_stimuli
from emoreg.models.relatives.mood import mean_pixel


def test_the_heads_step_is_that_of_the_equations_averaged_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liaenn, "FORGETTING", 0.25)  # its own would be lost in rounding
    torch.manual_seed(0)
    head, features, images = LiAENNHead(3, 4), torch.rand(5, 3), torch.randn(5, 3, 4, 4) / 9
    head.v.data.normal_()
    head.w.data.normal_()
    head.last_v.fill_(0.02)
    targets = torch.eye(4)[[0, 1, 2, 3, 0]]
    v, w, p = head.v.detach().clone(), head.w.detach().clone(), normalised_stimuli(features)
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

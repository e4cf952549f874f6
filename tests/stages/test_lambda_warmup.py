from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from emoreg.models.regulation import RegulatedClassifier
from emoreg.stages.lambda_warmup import warming_up
from tiny_backbone import TinyBackbone

LENGTH = 1000


def regulated() -> RegulatedClassifier:
    return RegulatedClassifier(TinyBackbone(), TinyBackbone(), 3, mode="learned")


def log_odds(model: RegulatedClassifier, make: Callable[[list[nn.Parameter]], Optimizer], warmup: float) -> list[float]:
    """ρ after each step, all of which would increase it."""
    optimizer = make([model.get_parameter("regulation.rho")])
    kept, features = list[float](), torch.zeros(1, 1)
    model.train()
    with warming_up(model, warmup) as prepare:
        for step in range(LENGTH):
            if prepare is not None:
                prepare(step / LENGTH, optimizer)
            optimizer.zero_grad()
            loss: Tensor = -model.regulation(features, features).sum()
            loss.backward()
            optimizer.step()
            kept.append(model.get_parameter("regulation.rho").item())
    return kept


@pytest.mark.parametrize("make", [lambda rho: SGD(rho, lr=0.1, momentum=0.9), lambda rho: AdamW(rho, lr=0.01)])
def test_lambda_starts_late_with_small_steps(make: Callable[[list[nn.Parameter]], Optimizer]) -> None:
    """Adam would count the steps before the first gradient, and then take too large ones."""
    at_once, late = (log_odds(regulated(), make, warmup) for warmup in (0.0, 0.75))
    usual, steps = (torch.tensor([0.0, *kept]).diff() for kept in (at_once, late))
    assert not steps[:750].any()
    assert (steps[750:] > 0).all() and (steps[750:] <= 1.05 * usual[:250]).all()


def test_lambda_is_let_go_when_a_training_is_stopped_while_it_is_held() -> None:
    model = regulated()
    with pytest.raises(KeyboardInterrupt), warming_up(model, 0.5) as prepare:
        assert prepare is not None
        prepare(0.1, SGD(model.parameters(), lr=0.1))
        assert model.get_buffer("regulation.pace").item() == 0
        raise KeyboardInterrupt
    assert model.get_buffer("regulation.pace").item() == 1


def test_without_a_warm_up_or_a_second_network_nothing_is_called() -> None:
    for model, warmup in ((regulated(), 0.0), (RegulatedClassifier(TinyBackbone(), None, 3, mode="none"), 0.5)):
        with warming_up(model, warmup) as prepare:
            assert prepare is None

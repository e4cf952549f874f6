from __future__ import annotations

import pytest
from torch import nn

from emoreg.models.evaluation import in_evaluation


def test_eval_is_only_called_on_a_network_in_training_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    network, calls = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), []
    monkeypatch.setattr(network, "eval", lambda: calls.append(network.train(False)))
    with in_evaluation(network):
        assert not any(module.training for module in network.modules()) and len(calls) == 1
    assert all(module.training for module in network.modules())
    network.train(False)
    with in_evaluation(network):
        assert len(calls) == 1

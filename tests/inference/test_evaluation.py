from __future__ import annotations

import pytest
from torch import nn

from emoreg.inference.evaluation import in_evaluation


def test_a_network_that_is_in_evaluation_already_is_not_put_there_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    network, walks = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), []
    monkeypatch.setattr(network, "eval", lambda: walks.append(network.train(False)))
    with in_evaluation(network):
        assert not any(module.training for module in network.modules()) and len(walks) == 1
    assert all(module.training for module in network.modules())
    network.train(False)
    with in_evaluation(network):
        assert len(walks) == 1

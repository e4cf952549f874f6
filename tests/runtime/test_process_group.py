from __future__ import annotations

import pytest
import torch
from torch import nn

from emoreg.config.schema import BackboneSettings
from emoreg.config.training import TrainingSettings
from emoreg.models.backbones import build_backbone
from emoreg.runtime.process_group import ProcessGroup, synchronised
from emoreg.training.fabric import make_fabric


def test_one_process_agrees_with_itself() -> None:
    group = ProcessGroup(make_fabric(TrainingSettings(device="cpu")))
    loss = torch.tensor(2.0)
    assert group.any(True) and not group.any(False)
    assert group.weighted(loss, 7, 7) is loss and group.mean(loss) is loss and group.gather("a") == ["a"]


@pytest.mark.parametrize("name", ["resnet8", "speednet", "densenet121"])
def test_synchronised_batch_norms_change_nothing_else_in_a_network(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(BackboneSettings(name=name), 32).eval()
    images = torch.randn(2, 3, 32, 32)
    answers, trained = network(images), {name for name, _ in network.named_parameters()}
    state = {name: value.clone() for name, value in network.state_dict().items()}

    network = synchronised(network)
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules())
    assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    assert {name for name, _ in network.named_parameters()} == trained
    assert network.state_dict().keys() == state.keys()
    torch.testing.assert_close(network(images), answers)

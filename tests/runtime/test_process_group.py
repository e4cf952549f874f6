from __future__ import annotations

import torch

from emoreg.config.training import TrainingSettings
from emoreg.runtime.process_group import ProcessGroup
from emoreg.training.fabric import make_fabric


def test_one_process_agrees_with_itself() -> None:
    group = ProcessGroup(make_fabric(TrainingSettings(device="cpu")))
    loss = torch.tensor(2.0)
    assert group.any(True) and not group.any(False)
    assert group.weighted(loss, 7, 7) is loss and group.mean(loss) is loss and group.gather("a") == ["a"]

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from emoreg.config.training import TrainingSettings
from emoreg.errors import UserError
from emoreg.training.fabric import make_fabric, resolve_precision


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_one_line(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"training\.device is {device}.*cpu") as caught:
        make_fabric(TrainingSettings(device=device))
    assert "\n" not in str(caught.value)


def test_auto_takes_the_processor_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    fabric = make_fabric(TrainingSettings())
    assert isinstance(fabric, Fabric) and fabric.device == torch.device("cpu")


def test_auto_precision_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    auto = TrainingSettings()
    resolved = [resolve_precision(auto, device) for device in ("cpu", "mps", "cuda")]
    assert resolved == ["32-true", "32-true", "bf16-mixed"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert resolve_precision(auto, "cuda") == "32-true"
    asked = TrainingSettings(precision="bf16-mixed", device="cpu")
    assert resolve_precision(asked, "cpu") == "bf16-mixed"
    assert make_fabric(asked)._precision.precision == "bf16-mixed"
    assert make_fabric(TrainingSettings(device="cpu"))._precision.precision == "32-true"

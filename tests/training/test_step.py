from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from emoreg.config.schema import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.training.step import compile_mode, make_objective


def test_what_is_compiled_on_a_gpu_is_replayed_as_cuda_graphs() -> None:
    gpu, asked = torch.device("cuda"), TrainingSettings(compile=True)
    assert compile_mode(asked, gpu) == "reduce-overhead"
    assert compile_mode(asked, torch.device("cpu")) == "default"
    assert compile_mode(TrainingSettings(), gpu) is None


def test_every_run_of_a_process_is_compiled_however_many_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, mode: compile_(module, backend="eager"))  # no code is made
    are_compiled: list[bool] = []

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        are_compiled.append(torch.compiler.is_compiling())
        return model(batch.images).square().mean()

    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))
    for width in range(1, 11):  # PyTorch's own limit is 8
        make_objective(nn.Sequential(nn.Flatten(), nn.Linear(192, width)), loss_of, "default")(batch)
    assert are_compiled == [True] * 10

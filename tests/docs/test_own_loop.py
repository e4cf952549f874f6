"""The examples of docs/own-loop.md run unchanged."""

from __future__ import annotations

import logging
import re
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import emoreg
from emoreg.models.gradient_budget import GradientScale

PAGE = (Path(__file__).parents[2] / "docs" / "own-loop.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python title=\"(.+?)\"\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def run(name: str) -> dict[str, Any]:
    """Run the page's preparation and one of its examples; return the names that they define."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for part in ("digits.py", name):
        exec(compile(BLOCKS[part], part, "exec"), space)
    return space


def check(model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Require that λ was trained without weight decay, and that gradients were matched."""
    assert isinstance(model, emoreg.RegulatedClassifier)
    assert model.gradient_scale == GradientScale(1, 1, 2)
    rho = model.get_parameter("regulation.rho")
    assert rho.item() != 0 and torch.isfinite(rho).all()
    (group,) = [group for group in optimizer.param_groups if any(p is rho for p in group["params"])]
    assert group["weight_decay"] == 0
    assert {other["weight_decay"] for other in optimizer.param_groups} == {0, 0.05}


@pytest.mark.parametrize("name", ["pytorch.py", "with_timm.py"])
def test_the_loops_of_pytorch_and_timm(name: str) -> None:
    space = run(name)
    check(space["model"], space["optimizer"])


def test_the_example_of_several_subjects() -> None:
    space = run("subjects.py")
    model = space["model"]
    assert model.widths == (64, 128) and all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_example_of_a_regression() -> None:
    space = run("values.py")
    model = space["model"]
    assert space["valence"].shape == (8,) and all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_loop_of_several_processes_runs_in_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ddp = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for key, value in ddp.items():
        monkeypatch.setenv(key, value)
    try:
        space = run("ddp.py")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    check(space["model"], space["optimizer"])


@pytest.mark.extra("lightning")
def test_the_loop_of_lightning() -> None:
    logging.getLogger("lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a loader without workers and a trainer without a logger
        space = run("with_lightning.py")
    module, trainer = space["module"], space["trainer"]
    check(module.model, trainer.optimizers[0])
    assert 0 < trainer.callback_metrics["lambda"] < 1


@pytest.mark.extra("diffusion")  # for transformers and accelerate
def test_the_trainer_of_hugging_face() -> None:
    space = run("with_trainer.py")
    check(space["model"], space["trainer"].optimizer)
    assert space["logits"].shape == (8, 10)


def test_every_example_of_the_page_is_tested_here() -> None:
    assert set(BLOCKS) == {
        "digits.py",
        "pytorch.py",
        "with_timm.py",
        "with_lightning.py",
        "with_trainer.py",
        "ddp.py",
        "subjects.py",
        "values.py",
    }
    assert PAGE.count("```python") == len(BLOCKS)

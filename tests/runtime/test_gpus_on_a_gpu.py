"""Processes that share the GPUs of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emoreg.runtime.gpus import FIRST_USE, PIPES, shared_gpus
from listening import Listening

SOURCE = Path(__file__).parents[2] / "src"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def test_processes_that_share_a_gpu_can_use_it_at_the_same_time() -> None:
    count = 2 * torch.cuda.device_count()
    with shared_gpus(count, listening := Listening()) as environments:
        print(*listening.lines)  # pytest -s shows how they are shared
        processes = [
            subprocess.Popen([sys.executable, "-c", FIRST_USE], env=os.environ | environment)
            for environment in environments
        ]
        assert [process.wait(120) for process in processes] == [0] * count
    assert len(listening.lines) == 1
    assert not any(PIPES in environment and Path(environment[PIPES]).exists() for environment in environments)


def test_a_process_that_only_plans_runs_takes_no_memory_of_a_gpu() -> None:
    """On a GPU in exclusive mode the service could not start otherwise."""
    code = """
import torch
from emoreg.study.machine import this_machine
assert this_machine().device == "cuda"
assert not torch._C._cuda_hasPrimaryContext(0)
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=True)

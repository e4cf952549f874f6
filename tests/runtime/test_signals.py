from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from emoreg.runtime.signals import SIGNALS, leave_to_parent


class Pids(Dataset[torch.Tensor]):
    """Each item is the process that it was loaded by."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> torch.Tensor:
        time.sleep(0.01)
        return torch.tensor(os.getpid())


@pytest.mark.parametrize("each", SIGNALS)
def test_workers_that_leave_requests_to_their_parent_go_on(each: signal.Signals) -> None:
    loader = DataLoader(Pids(), num_workers=1, worker_init_fn=leave_to_parent)
    loaded = iter(loader)
    worker = int(next(loaded))
    assert worker != os.getpid()
    # By a scheduler, that is by another process than the parent.
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker}, {int(each)})"], check=True)
    assert [int(pid) for pid in loaded] == [worker] * 39


LEAVES_A_LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from emoreg.runtime.signals import leave_to_parent
loaded = iter(DataLoader(TensorDataset(torch.arange(99)), num_workers=1, worker_init_fn=leave_to_parent))
next(loaded)
raise SystemExit(7)
"""


@pytest.mark.thorough
def test_a_process_that_ends_in_the_middle_of_an_epoch_does_not_wait_for_its_workers() -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES_A_LOADER], timeout=60, check=False)
    assert ended.returncode == 7

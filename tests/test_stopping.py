from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from emoreg.stopping import SIGNALS, leave_to_parent


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
    os.kill(worker, each)
    assert [int(pid) for pid in loaded] == [worker] * 39

"""Training that is asked to stop, as by Ctrl-C, or cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from emoreg.runtime.process_group import ProcessGroup
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import Stopped


@contextlib.contextmanager
def stopped(at: int) -> Iterator[None]:
    """Within, training asks after each step and each epoch whether it is to stop; at this time, from 0, it is."""
    asked = iter(range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroup, "any", lambda *_: next(asked) == at)
        with pytest.raises(Stopped):
            yield


class CutOff(Progress):
    """Cuts a training off, with an InterruptedError, at the line of its first epoch, which follows the checkpoint."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def detail(self, line: str) -> None:
        if line.startswith("epoch 1/"):
            raise InterruptedError

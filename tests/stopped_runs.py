"""Ways to stop or interrupt training at a given point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from emoreg.runtime.process_group import ProcessGroup
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import Stopped


@contextlib.contextmanager
def stopped(at: int) -> Iterator[None]:
    """Within the context, stop training as Ctrl-C does, at its check number `at` (from 0).

    Training checks after each step and each epoch whether it should stop.
    """
    checks = iter(range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroup, "any", lambda *_: next(checks) == at)
        with pytest.raises(Stopped):
            yield


class CutOff(Progress):
    """Raises InterruptedError at the line of the first epoch, which is printed after its checkpoint was written."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def detail(self, line: str) -> None:
        if line.startswith("epoch 1/"):
            raise InterruptedError

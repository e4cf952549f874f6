"""Training that is asked to stop, as by Ctrl-C."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from emoreg.runtime.process_group import ProcessGroup
from emoreg.runtime.signals import Stopped


@contextlib.contextmanager
def stopped(at: int) -> Iterator[None]:
    """Within, training asks after each step and each epoch whether it is to stop; at this time, from 0, it is."""
    asked = iter(range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroup, "any", lambda *_: next(asked) == at)
        with pytest.raises(Stopped):
            yield

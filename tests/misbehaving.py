"""Runs that fail, die or hang in the worker process of a study."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from emoreg.errors import UserError
from emoreg.runtime.main_module import NO_GUARD
from emoreg.runtime.progress import Progress
from emoreg.study.plan import PlannedRun


def misbehaving(run: PlannedRun, how: str) -> PlannedRun:
    """A copy of the run that misbehaves in a worker. `how` is a key of WAYS."""
    return dataclasses.replace(run, name=_Name(run.name, how))


class _Name(str):
    """A run's name. Unpickling it, as a worker does, replaces the stages by an entry of WAYS."""

    how: str

    def __new__(cls, name: str, how: str) -> _Name:
        self = super().__new__(cls, name)
        self.how = how
        return self

    def __reduce__(self) -> tuple[Callable[[str, str], str], tuple[str, str]]:
        return _arrive, (str(self), self.how)


def _arrive(name: str, how: str) -> str:
    import emoreg.stages.classify
    import emoreg.stages.pretrain

    def stage(recipe: object, out: Path, progress: Progress) -> None:
        WAYS[how](progress)
        out.mkdir(parents=True, exist_ok=True)
        scores = {"accuracy": 0.5, "ece": 0.1}
        (out / "final.json").write_text(json.dumps({"test": scores, "validation": scores, "seconds": 1.0}))

    emoreg.stages.pretrain.pretrain = emoreg.stages.classify.train = stage  # type: ignore[assignment]
    return name


def _raise(_: Progress) -> None:
    raise UserError("the loss is not finite")


def _ignore_signals(progress: Progress) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    progress.say("deaf")
    time.sleep(600)


WAYS: dict[str, Callable[[Progress], Any]] = {
    "raises": _raise,
    "exits": lambda _: sys.exit(3),
    "exits at once": lambda _: os._exit(3),
    "is killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "crashes": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "is stopped": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "imports a script without a guard": lambda _: os._exit(NO_GUARD),
    "tells its environment": lambda progress: progress.say(f"told: {os.environ.get('EMOREG_TEST')}"),
    # The following finish their run, but their process does not end.
    "leaves a thread": lambda _: threading.Thread(target=time.sleep, args=(600,)).start(),
    "blocks the exit": lambda _: Finalize(None, time.sleep, (600,), exitpriority=1),
    "ignores signals": _ignore_signals,
}

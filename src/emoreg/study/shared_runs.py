"""Runs that another study is doing in a folder of runs that both share: others come first, then it is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from emoreg.runtime.lock import LOCK, Holder, holder
from emoreg.runtime.progress import Progress
from emoreg.study.run_one import Job

LOOKED_EVERY = 2.0  # seconds: looking opens a file of each run, perhaps on another machine
TOLD_EVERY = 60.0  # seconds


class SharedRuns:
    """Knows which runs are being done elsewhere, and says so.

    A run is found finished when the other process has finished it. If that process dies, the system takes its lock
    away, and the run is begun here, from its checkpoint.

    Args:
        progress: for people.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.holders: dict[str, Holder] = {}  # by run id
        self.looked = self.told = -float("inf")

    def free(self, ready: Sequence[Job], most: int) -> Iterator[Job]:
        """The first runs that nobody does.

        Args:
            ready: runs that can be begun, in order.
            most: how many are wanted.
        """
        now = time.monotonic()
        looks_again = now - self.looked >= LOOKED_EVERY
        if looks_again:
            self.looked = now
        for run in ready:
            if most <= 0:
                return
            if run.id in self.holders and not looks_again:
                continue
            other = holder(run.folder)
            if other is None:
                self.holders.pop(run.id, None)
                most -= 1
                yield run
                continue
            if run.id not in self.holders:
                self.progress.say(f"{run.name}: is being done elsewhere, by {other}; the others come first")
            self.holders[run.id] = other

    def wait(self, ready: Sequence[Job]) -> None:
        """Wait a while for runs that are all being done elsewhere, and say now and then for which."""
        now = time.monotonic()
        if now - self.told >= TOLD_EVERY:
            self.told = now
            run = ready[0]
            other = self.holders.get(run.id, Holder())
            more = f" (and {len(ready) - 1} more)" if len(ready) > 1 else ""
            gone = f"; if it is gone for good, delete {run.folder / LOCK}" if other.host and not other.is_here else ""
            self.progress.say(
                f"waiting for {run.name}{more}, which is being done by {other}{gone}; Ctrl-C stops waiting, and the "
                "same command goes on later"
            )
        time.sleep(LOOKED_EVERY / 2)

"""Runs that another study is doing in a shared folder of runs: do other runs first, then wait for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from emoreg.runtime.lock import LOCK, Holder, holder
from emoreg.runtime.progress import Progress
from emoreg.study.run_one import Job

CHECKED_EVERY = 2.0  # seconds: a check opens a file of each run, perhaps on another machine
REPORTED_EVERY = 60.0  # seconds


class SharedRuns:
    """Keeps track of the runs that other processes are doing, and reports them.

    When another process has finished a run, the run is found finished here. If that process dies, the system releases
    its lock, and the run is resumed here from its checkpoint.

    Args:
        progress: for reports.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.holders: dict[str, Holder] = {}  # by run id
        self.checked = self.reported = -float("inf")

    def free(self, ready: Sequence[Job], most: int) -> Iterator[Job]:
        """Yield the first jobs that no other process is doing.

        Args:
            ready: jobs that can be started, in order.
            most: the largest number to yield.
        """
        now = time.monotonic()
        checks_again = now - self.checked >= CHECKED_EVERY
        if checks_again:
            self.checked = now
        for run in ready:
            if most <= 0:
                return
            if run.id in self.holders and not checks_again:
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
        """Wait a while for jobs that other processes are doing, and report now and then which."""
        now = time.monotonic()
        if now - self.reported >= REPORTED_EVERY:
            self.reported = now
            run = ready[0]
            other = self.holders.get(run.id, Holder())
            more = f" (and {len(ready) - 1} more)" if len(ready) > 1 else ""
            gone = f"; if it is gone for good, delete {run.folder / LOCK}" if other.host and not other.is_here else ""
            self.progress.say(
                f"waiting for {run.name}{more}, which is being done by {other}{gone}; Ctrl-C stops waiting, and the "
                "same command continues later"
            )
        time.sleep(CHECKED_EVERY / 2)

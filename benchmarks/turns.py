"""Run the arms of a benchmark in turn: each in a process of its own, one at a time, round by round.

If the speed of the machine drifts, all arms of a round slow down alike, so ratios within a round stay valid. Each arm
has its own process because memory allocation and threads are settings of a process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[[], float]  # does one round and returns how much was done per second
Arm = tuple[Callable[..., Work], tuple[Any, ...]]  # a function that makes the work in the arm's process; its arguments


@dataclass(frozen=True)
class Figures:
    """How much each arm did per second, round by round, or how many seconds it took."""

    rounds: dict[str, list[float]]

    def median(self, arm: str) -> float:
        return statistics.median(self.rounds[arm])

    def ratio(self, arm: str, to: str) -> tuple[float, float, float]:
        """Return the median, the lower and the upper quartile of arm / to over the rounds."""
        ratios = [a / b for a, b in zip(self.rounds[arm], self.rounds[to], strict=True)]
        lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, lower, upper


def take_turns(arms: Mapping[str, Arm], rounds: int, warm_up: int = 1) -> Figures:
    """Measure all arms, after `warm_up` rounds that do not count. Raise SystemExit if an arm fails."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    figures: dict[str, list[float]] = {name: [] for name in arms}
    with contextlib.ExitStack() as stack:
        for name, (make, arguments) in arms.items():
            ends[name], theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, make, arguments), daemon=False)
            process.start()
            theirs.close()  # so that the pipe closes with the process
            stack.callback(process.join)
            stack.callback(ends[name].close)  # called first; it ends the process
            _receive(name, ends[name])  # wait until it is ready, so that the next one starts on a quiet machine
        for number in range(warm_up + rounds):
            for name, end in ends.items():
                end.send(True)
                figure = _receive(name, end)
                if number >= warm_up:
                    figures[name].append(figure)
    return Figures(figures)


def _receive(name: str, end: Connection) -> Any:
    try:
        return end.recv()
    except EOFError:
        raise SystemExit(f"the arm {name} has failed; its error is above") from None


def serve(end: Connection, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    """Run in the process of an arm: do a round of work for each request, until the pipe closes."""
    work = make(*arguments)
    end.send(True)
    with contextlib.suppress(EOFError):
        while end.recv():
            end.send(work())

"""Arms of a benchmark take turns: each in a process of its own, one at a time, round by round.

A machine whose speed drifts then slows all arms of a round alike, and ratios within a round stay true. Own
processes, because memory allocation and threads are settings of a process, and an arm must not inherit another's.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[[], float]  # one round; gives what was done per second
Arm = tuple[Callable[..., Work], tuple[Any, ...]]  # makes the work, in the process of the arm; its arguments


@dataclass(frozen=True)
class Figures:
    """What each arm did per second, round by round."""

    rounds: dict[str, list[float]]

    def median(self, arm: str) -> float:
        return statistics.median(self.rounds[arm])

    def ratio(self, arm: str, to: str) -> tuple[float, float, float]:
        """Quartiles over the rounds of arm / to: middle, lower, upper."""
        ratios = [a / b for a, b in zip(self.rounds[arm], self.rounds[to], strict=True)]
        lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, lower, upper


def take_turns(arms: Mapping[str, Arm], rounds: int, warm_up: int = 1) -> Figures:
    """Measure all arms, after `warm_up` rounds that do not count."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    for name, (make, arguments) in arms.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, make, arguments), daemon=False)
        process.start()
        ours.recv()  # it is ready: the next one starts on a quiet machine
        ends[name] = ours
        processes.append(process)
    figures: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warm_up + rounds):
        for name, end in ends.items():
            end.send(True)
            figure = end.recv()
            if number >= warm_up:
                figures[name].append(figure)
    for end in ends.values():
        end.send(False)
    for process in processes:
        process.join()
    return Figures(figures)


def serve(end: Connection, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    work = make(*arguments)
    end.send(True)
    while end.recv():
        end.send(work())

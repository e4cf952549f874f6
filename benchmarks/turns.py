"""Arms of a benchmark take turns: each in a process of its own, one at a time, round by round.

A machine whose speed drifts then slows all arms of a round alike, and ratios within a round stay true. Own
processes, because memory allocation and threads are settings of a process, and an arm must not inherit another's.
"""

from __future__ import annotations

import contextlib
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
    """Measure all arms, after `warm_up` rounds that do not count. SystemExit if one of them fails."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    figures: dict[str, list[float]] = {name: [] for name in arms}
    with contextlib.ExitStack() as stack:
        for name, (make, arguments) in arms.items():
            ends[name], theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, make, arguments), daemon=False)
            process.start()
            theirs.close()  # so that the pipe ends with the process
            stack.callback(process.join)
            stack.callback(ends[name].close)  # first, which ends the process
            _answer(name, ends[name])  # it is ready: the next one starts on a quiet machine
        for number in range(warm_up + rounds):
            for name, end in ends.items():
                end.send(True)
                figure = _answer(name, end)
                if number >= warm_up:
                    figures[name].append(figure)
    return Figures(figures)


def _answer(name: str, end: Connection) -> Any:
    try:
        return end.recv()
    except EOFError:
        raise SystemExit(f"the arm {name} has failed; what it told is above") from None


def serve(end: Connection, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    """An arm's process: works whenever it is told, until nobody is there who tells."""
    work = make(*arguments)
    end.send(True)
    with contextlib.suppress(EOFError):
        while end.recv():
            end.send(work())

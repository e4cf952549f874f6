from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from emoreg.data.images import threads
from emoreg.data.images.threads import ahead, in_threads
from emoreg.errors import UserError
from emoreg.runtime.cores import usable_cores


def test_parts_come_in_order_and_only_a_few_are_computed_ahead() -> None:
    begun: list[int] = []

    def work(rows: range) -> int:
        begun.append(rows.start)
        return sum(rows)

    for done, (rows, result) in enumerate(in_threads(work, range(5, 1000), 3)):
        assert result == sum(rows) and rows.start == 5 + 3 * done
        assert len(begun) <= done + 2 + 4 * (usable_cores())
    assert rows.stop == 1000


def test_slow_work_uses_threads_and_fast_work_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads_of(seconds: float) -> set[int]:
        def work(rows: range) -> int:
            time.sleep(seconds)
            return threading.get_ident()

        return {result for _, result in in_threads(work, range(20), 1)}

    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert threads_of(0) == {threading.get_ident()}
    assert len(threads_of(0.02) - {threading.get_ident()}) == 2


def test_an_error_in_a_part_stops_the_rest() -> None:
    begun: list[int] = []

    def work(rows: range) -> None:
        begun.append(rows.start)
        if rows.start == 3:
            raise UserError("no")

    with pytest.raises(UserError):
        list(in_threads(work, range(100_000), 1))
    assert len(begun) < 1000


@pytest.mark.parametrize("name", ["ahead", "in_threads"])
def test_closing_an_unfinished_iterator_does_not_wait_for_its_threads(name: str) -> None:
    released = threading.Event()

    def work(item: int) -> None:
        time.sleep(0.02)  # longer than a switch of threads
        if item > 3:
            released.wait(10)

    of_parts = in_threads(lambda rows: work(rows.start), range(100), 1)
    iterator = of_parts if name == "in_threads" else ahead(work, range(100), workers=2)
    for _ in range(4):
        next(iterator)
    assert isinstance(iterator, Generator)
    begun = time.monotonic()
    iterator.close()
    assert time.monotonic() - begun < 5
    released.set()

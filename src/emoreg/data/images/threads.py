"""Process image sets in threads: Pillow and NumPy release the GIL while they decode, resize and copy."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from emoreg.runtime.cores import usable_cores

A = TypeVar("A")
T = TypeVar("T")


def in_threads(work: Callable[[range], T], rows: range, step: int) -> Iterator[tuple[range, T]]:
    """Yield (part, work(part)) for consecutive parts of `rows`, in order, computed by one thread per usable core.

    If a part takes less time than Python's interval for switching threads, all work is done in the calling thread:
    other threads would only wait for the GIL. Only a few parts are computed ahead, so that results do not pile up.

    Args:
        work: called with one part; its exceptions are raised here.
        rows: row numbers.
        step: length of a part.
    """
    parts = [rows[start : start + step] for start in range(0, len(rows), step)]
    seconds = math.inf
    for part in parts[:3]:  # take the fastest: the first may include imports
        start_time = time.perf_counter()
        result = work(part)
        seconds = min(seconds, time.perf_counter() - start_time)
        yield part, result
    parts = parts[3:]
    is_fast = seconds < sys.getswitchinterval()
    results = map(work, parts) if is_fast else ahead(work, parts, usable_cores(), per_worker=3)
    yield from zip(parts, results, strict=True)


def ahead(work: Callable[[A], T], items: Sequence[A], workers: int = 1, per_worker: int = 1) -> Iterator[T]:
    """Yield work(item) for each item, in order, while threads work on the next items.

    Args:
        work: called with one item; its exceptions are raised here.
        items: arguments of `work`.
        workers: number of threads.
        per_worker: number of items computed ahead per thread.
    """
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > workers * per_worker:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Without waiting: Python may close an unfinished iterator when it collects garbage, at any point of any thread.
        # If another thread is just starting, and holds a lock that joining a thread needs, waiting would never end.
        pool.shutdown(wait=False, cancel_futures=True)

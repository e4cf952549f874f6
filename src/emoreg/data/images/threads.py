"""Work on image sets in threads: Pillow and NumPy release the interpreter lock while they decode, resize and copy."""

from __future__ import annotations

import contextlib
import itertools
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
    """(part, work(part)) for consecutive parts of `rows`, in order, computed by one thread per usable core.

    Work that takes less time than Python needs to switch threads is done in the calling thread: other threads would
    only wait for the interpreter lock. Only a few parts are computed ahead, so that results do not pile up.

    Args:
        work: called with one part; its exceptions are raised here.
        rows: row numbers.
        step: length of a part.
    """
    parts = iter([rows[start : start + step] for start in range(0, len(rows), step)])
    seconds = math.inf
    for part in itertools.islice(parts, 3):  # the quickest counts: the first may include imports
        begun = time.perf_counter()
        done = work(part)
        seconds = min(seconds, time.perf_counter() - begun)
        yield part, done
    if seconds < sys.getswitchinterval():
        for part in parts:
            yield part, work(part)
        return
    workers = usable_cores()
    waiting: deque[tuple[range, Future[T]]] = deque()
    with _pool(workers) as pool:
        for part in parts:
            waiting.append((part, pool.submit(work, part)))
            if len(waiting) > 3 * workers:
                oldest, result = waiting.popleft()
                yield oldest, result.result()
        for part, result in waiting:
            yield part, result.result()


def ahead(work: Callable[[A], T], items: Sequence[A], workers: int = 1) -> Iterator[T]:
    """work(item) for each item, in order; threads work on the next ones meanwhile, as many items as there are threads.

    Args:
        work: called with one item; its exceptions are raised here.
        items: in order.
        workers: number of threads.
    """
    coming: deque[Future[T]] = deque()
    with _pool(workers) as pool:
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are not waited for at the end; what they have not begun is dropped.

    An iterator that is left unfinished ends when Python collects it, at any point of any thread. That may be within the
    start of another thread, which holds a lock that joining a thread needs: it would wait for ever.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

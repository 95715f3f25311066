"""Runs jobs over processes, in their order, a bounded number at a time."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")

AHEAD = 4
"""Jobs in hand per worker: enough to keep them busy, few enough to stop soon."""


def in_order(
    function: Callable[[Job], Done], jobs: Iterable[Job], *, workers: int
) -> Generator[Done, None, None]:
    """``function(job)`` for every job, in the order of ``jobs``, whatever ``workers`` is.

    0 workers run in this process. Others are processes that begin from a clean server (no threads of
    ours are forked) and leave Ctrl-C to this one; closing the iterator drops the jobs not begun.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"), initializer=_leave_interrupts)
    waiting: deque[Future[Done]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

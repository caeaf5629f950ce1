"""A table of measured figures, and how they are measured: seconds of the best run, peak memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Row = tuple[str, ...]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """Figures as a reader sees them; the first column names what was measured."""

    title: str
    about: str
    columns: Row
    rows: tuple[Row, ...]


def best_seconds(
    work: Callable[[], object], rounds: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Least of `rounds` runs, after one that compiles and fills caches.

    Args:
        clock: `time.process_time` for what one core does, whoever else is at work on the machine.
    """
    work()
    return min(once_seconds(work, clock) for _ in range(rounds))


def once_seconds(
    work: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one run, with whatever is done for the first time."""
    start = clock()
    work()
    return clock() - start


def alone(work: Callable[..., Result], *arguments: object) -> tuple[Result, float]:
    """What `work` returns in a process of its own, and the most memory it held, in GiB.

    Python and its libraries take about 0.2 GiB of it.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_with_peak, work, arguments).result()


def _with_peak(work: Callable[..., Result], arguments: tuple[object, ...]) -> tuple[Result, float]:
    result = work(*arguments)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

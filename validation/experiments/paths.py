"""One replication over time under several policies, thinned to what a page can show: plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 600
"""Points of a line."""

Points = tuple[float, ...]


@dataclass(frozen=True)
class RunPath:
    """What happened under one policy until the measured window ends.

    Attributes:
        time_s: Points of time, shape (k,).
        waiting_requests, kv_share: Then: requests that wait, KV in use ÷ capacity.
        completed_at_s, completed: Completions so far, shape (l,).
    """

    time_s: Points
    waiting_requests: Points
    kv_share: Points
    completed_at_s: Points
    completed: Points


@dataclass(frozen=True)
class WatchedRun:
    """The same replication under each of several policies.

    Attributes:
        replication: Its number, from 0.
        end_s: When the measured window ends.
        arrived_at_s, arrived: Arrivals so far.
        paths: One per policy, in their order.
    """

    replication: int
    end_s: float
    arrived_at_s: Points
    arrived: Points
    paths: tuple[RunPath, ...]


def counted(times_s: NDArray[np.float64], end_s: float) -> tuple[Points, Points]:
    """Thinned points of a count: how many of the times have passed, until the end."""
    times_s = np.sort(times_s[times_s <= end_s])
    return thinned(times_s), thinned(np.arange(1.0, len(times_s) + 1))


def thinned(values: NDArray[np.float64]) -> Points:
    """At most `MOST_POINTS` of the values, evenly spread, both ends among them."""
    if len(values) > MOST_POINTS:
        values = values[np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int)]
    return tuple(values.tolist())

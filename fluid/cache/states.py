"""The states that a server with a prefix cache can settle in (THEORY 10.4).

φ(T_c) = what the cache would hold − what residents leave it. Where it rises through 0 a state is
stable; where it falls through 0 two states part. T_c = 0 with full memory, *saturation*, is a state
as well where φ(0) > 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fluid.cache.kinds import kinds_of
from fluid.cache.point import SATURATED_S, Cached, Point
from fluid.server import Server
from fluid.steady.intake import Method, chosen_method, require_mean_rates
from fluid.workload import Workload

Floats = NDArray[np.float64]

_GRID = 96
_SHORTEST = 1e-4
"""First survival time of the grid, as a share of the last."""

_SCALE_ACCURACY = 1e-5


@dataclass(frozen=True, eq=False)
class States:
    """All states of a workload on a server with a prefix cache, at its own rates.

    Attributes:
        settled: Stable states by falling survival time.
        parting: Unstable ones between them, alike.
        saturates: Whether memory that has filled stays full: T_c = 0, and a queue that grows.
    """

    cached: Cached
    settled: tuple[Point, ...]
    parting: tuple[Point, ...]
    saturates: bool

    @property
    def from_empty(self) -> Point | None:
        """The state that a large server reaches from empty: the one with the most hits."""
        return self.settled[0] if self.settled else None

    @property
    def count(self) -> int:
        """How many stable states there are, saturation among them."""
        return len(self.settled) + self.saturates

    @cached_property
    def edge(self) -> tuple[float, Point]:
        """α*, the largest multiple of the rates with a state, and the point there."""
        return _edge(self.cached)

    @property
    def max_scale(self) -> float:
        """α* with hits."""
        return self.edge[0]

    @cached_property
    def saturation_scale(self) -> float:
        """The multiple of the rates from which on saturation is a state: α* without reuse."""
        return _scale_of(self.cached, SATURATED_S)

    @cached_property
    def band(self) -> tuple[float, float] | None:
        """From which to which multiple of the rates there are two states or more, if anywhere.

        The lower end is where a second one appears as the rates grow.
        """
        near = self.max_scale * (1 - 10 * _SCALE_ACCURACY)
        first = _largest(lambda scale: _states(self.cached, scale).count < 2, near)
        return None if first >= near else (first, self.max_scale)


@lru_cache(maxsize=16)
def cache_states(
    workload: Workload, server: Server, method: Method | None = None, servers: int = 1
) -> States:
    """All states of a workload on a server that caches prefixes.

    Args:
        servers: Each turn of a conversation goes to one of so many, and this is one of them.

    Raises:
        InputError: As `fluid.steady.intake.intake`.
    """
    require_mean_rates(workload)
    kinds = kinds_of(workload, server, servers)
    cached = Cached(kinds, server, chosen_method(server, method))
    return _states(cached, 1.0)


def _states(cached: Cached, scale: float) -> States:
    settled, parting = [], []
    known = _excesses(cached, scale)
    for (low_s, low), (high_s, high) in itertools.pairwise(known):
        if low <= 0 < high:
            settled.append(_root(cached, scale, low_s, high_s))
        elif low > 0 >= high:
            parting.append(_root(cached, scale, high_s, low_s))
    return States(cached, tuple(settled[::-1]), tuple(parting[::-1]), known[0][1] > 0)


def _excess(cached: Cached, survive_s: float, scale: float) -> float:
    """φ(T_c) in tokens; infinite where work is too much."""
    found = cached.at(survive_s, scale)
    return math.inf if found is None else found.excess_tokens


def _survival_times(cached: Cached, scale: float) -> Floats:
    """Saturation, 0, a grid up to a cache surely too small, both sides of fixed think times."""
    kinds = cached.kinds
    once = float(kinds.left.tokens_per_s[kinds.left.steps == 0].sum())
    longest_s = 1.01 * cached.server.usable_kv_tokens / (scale * once)
    thinks_s = kinds.fixed_think_s[kinds.fixed_think_s < longest_s]
    grid = np.geomspace(_SHORTEST * longest_s, longest_s, _GRID)
    saturated = np.array([SATURATED_S, 0.0])
    return np.unique(np.concatenate([saturated, grid, thinks_s, np.nextafter(thinks_s, 0)]))


def _excesses(cached: Cached, scale: float) -> list[tuple[float, float]]:
    """(T_c, φ) on the grid, and at the least φ between its points where that is above 0.

    Near α* two states lie closer than the grid is wide: what parts them from none is that point.
    """
    from scipy.optimize import minimize_scalar

    grid = _survival_times(cached, scale)
    known = [(float(one), _excess(cached, one, scale)) for one in grid]
    lowest = []
    for (low_s, before), (_, here), (high_s, after) in zip(
        known[:-2], known[1:-1], known[2:], strict=True
    ):
        if 0 < here <= min(before, after) and math.isfinite(here):
            found = minimize_scalar(
                lambda one: min(_excess(cached, one, scale), 1e300),
                bounds=(low_s, high_s),
                method="bounded",
                options={"xatol": 1e-6 * high_s},
            )
            lowest.append((float(found.x), float(found.fun)))
    return sorted(known + lowest)


def _root(cached: Cached, scale: float, below_s: float, above_s: float) -> Point:
    """The point with φ = 0, from the side where φ ≤ 0, which `below_s` is on."""
    for _ in range(200):
        middle_s = (below_s + above_s) / 2
        if abs(above_s - below_s) <= 1e-9 * middle_s or middle_s in (below_s, above_s):
            break
        if _excess(cached, middle_s, scale) <= 0:
            below_s = middle_s
        else:
            above_s = middle_s
    found = cached.at(below_s, scale)
    assert found is not None
    return found


def _edge(cached: Cached) -> tuple[float, Point]:
    """α* and the point there.

    The rates grow until the cache of one survival time no longer fits, then those of the time that
    leaves most room at these rates, and so on: Newton's method from below for the least φ over all
    times, as φ rises with the rates at each of them. The best time is then sought between its
    neighbours, since near the limit of compute φ rises much faster at some times than at others.
    """
    from scipy.optimize import minimize_scalar

    survive_s, scale = SATURATED_S, 0.0
    while (grown := _scale_of(cached, survive_s, scale)) > scale * (1 + _SCALE_ACCURACY):
        scale = grown
        survive_s = min(_excesses(cached, scale), key=lambda known: known[1])[0]
    grid = _survival_times(cached, scale)
    around = int(np.searchsorted(grid, survive_s))
    best = minimize_scalar(
        lambda one: -_scale_of(cached, one),
        bounds=(grid[max(around - 2, 0)], grid[min(around + 2, len(grid) - 1)]),
        method="bounded",
        options={"xatol": 1e-4 * survive_s},
    )
    if -best.fun > scale:
        scale, survive_s = -float(best.fun), float(best.x)
    found = cached.at(survive_s, scale)
    assert found is not None
    return scale, found


def _scale_of(cached: Cached, survive_s: float, least: float = 0.0) -> float:
    """The largest multiple, `least` or more, at which a cache of this survival time fits."""
    start = 1.01 * least or 1.0
    return _largest(lambda one: _excess(cached, survive_s, one) <= 0, math.inf, least, start)


def _largest(
    holds: Callable[[float], bool], most: float, low: float = 0.0, high: float = 1.0
) -> float:
    """The largest multiple up to `most` at which something holds that holds for small ones.

    Args:
        low: Where it is known to hold.
        high: The first one that is asked.
    """
    high = min(most, high)
    while high < most and holds(high):
        low, high = high, min(2 * high, most)
    if high == most and math.isfinite(most) and holds(high):
        return most
    while low == 0 and not holds(high / 2):
        high /= 2
        if high < 1e-12:
            return 0.0
    low = max(low, high / 2) if low == 0 else low
    while high - low > _SCALE_ACCURACY * high:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low

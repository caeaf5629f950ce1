"""Cuts and thresholds together as paths of a graph.

A state is a length h at which a segment is entered and its threshold n; an arc leads to the next
segment, entered at h' > h with n' < n and p n < n' (THEORY 4.3). Waiting, tokens, work and KV of
whole thresholds on any cuts are sums over the arcs of a path (`requirement`), so that for weights
of these four the best cuts *and* thresholds are a shortest path. Only the iteration time, which the
objective takes as a whole, and the memory limit couple the arcs: Lagrangian weights for both give a
bound on every design at once (`bounds`), and a best-first search on several such bounds proves the
optimum (`optimum`).

Where thresholds may be large a state stands for an interval of them, and its arcs cost the least
that any threshold inside could.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.nested.segments import Lengths

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST_ARCS = 3_000_000
"""Pairs of states that are kept at once: 24 MB of 1/θ, some 10 ms a pass."""

_LEAST_STATES = 6


@dataclass(frozen=True)
class Graph:
    """What segments of all pairs of lengths h ≤ i take per unit of their threshold; (m, m).

    Attributes:
        wait_s: Seconds of waiting that a request meets on average, beside the queues.
        tokens: Tokens computed; work_s: seconds on top of f; memory: KV tokens.
        survival: p of the boundary at which h' is entered from h, at [h, h'].
        boundary: KV of a request that waits to enter, (m,).
        queue_wait_s: Seconds of mean latency for one request in a boundary queue.
    """

    lengths: Lengths
    wait_s: Floats
    tokens: Floats
    work_s: Floats
    memory: Floats
    survival: Floats
    boundary: Floats
    queue_wait_s: float

    @cached_property
    def arcs(self) -> tuple[Any, ...]:
        """As the kernels read it."""
        return self.survival, self.queue_wait_s, self.boundary

    @cached_property
    def parts(self) -> Floats:
        """The four resources, (4, m, m)."""
        return np.array([self.wait_s, self.tokens, self.work_s, self.memory])

    def spans(self, weights: Floats) -> Floats:
        """Their weighted sum, (m, m)."""
        return np.asarray(np.tensordot(weights, self.parts, axes=1))


def graph_of(lengths: Lengths, counts_waiting: bool) -> Graph:
    """The graph of a workload's lengths.

    Args:
        counts_waiting: Whether waiting is among the resources: it is only for the mean latency.
    """
    m = len(lengths.outputs)
    first, last = np.triu_indices(m)
    spans = lengths.spans(first, last)
    tau, rates = lengths.server.iteration_time, lengths.rates_per_s
    wait_s = (1 / rates[0]) if counts_waiting else 0.0

    def square(values: Floats) -> Floats:
        full = np.zeros((m, m))
        full[first, last] = values
        return full

    tokens = square(spans.decode_requests)
    work_s = square(
        tau.per_decode_request_s * spans.decode_requests + tau.per_kv_token_s * spans.kv_tokens
    )
    tokens[0] += lengths.prefill_tokens
    work_s[0] += tau.per_prefill_token_s * lengths.prefill_tokens
    work_s[0] += tau.per_prefill_token_sq_s * lengths.prefill_tokens_sq
    return Graph(
        lengths=lengths,
        wait_s=square(wait_s * (spans.mean_stages - 1)),
        tokens=tokens,
        work_s=work_s,
        memory=square(spans.memory_tokens),
        survival=rates[None, :] / rates[:, None],
        boundary=lengths.boundary_tokens.astype(float),
        queue_wait_s=wait_s,
    )


@dataclass(frozen=True)
class Grid:
    """States by length: intervals of thresholds, ascending.

    Attributes:
        first: The states of length h are first[h] … first[h + 1] − 1, (m + 1,).
        low, high: The whole thresholds of each, (states,).
        arcs: As the kernels read it.
    """

    first: Integers
    low: Floats
    high: Floats
    arcs: tuple[Any, ...]

    @property
    def is_exact(self) -> bool:
        """Whether every state is one threshold."""
        return bool((self.low == self.high).all())

    @property
    def largest(self) -> int:
        """The largest threshold of any state."""
        return int(self.high.max())

    @property
    def starts(self) -> tuple[Floats, Floats]:
        """Intervals of n_1."""
        return self.low[: self.first[1]], self.high[: self.first[1]]

    def index(self) -> Integers:
        """The state of each threshold at each length, −1 where there is none; (m, N + 1)."""
        found = np.full((len(self.first) - 1, self.largest + 1), -1, dtype=np.int64)
        for h in range(len(found)):
            for s in range(self.first[h], self.first[h + 1]):
                found[h, int(self.low[s]) : int(self.high[s]) + 1] = s
        return found


def most_states(m: int) -> int:
    """States of each length that keep the graph of m lengths within bounds."""
    pairs = max(m * (m - 1) / 2, 1.0)
    return max(int((_MOST_ARCS / pairs) ** 0.5), _LEAST_STATES)


def whole_grid(graph: Graph, largest: int) -> Grid:
    """All thresholds up to `largest` at every length."""
    m = len(graph.boundary)
    return _grid(graph, [[(1.0, float(max(largest, 1)))]] * m)


def refined(graph: Graph, grid: Grid, kept: NDArray[np.bool_]) -> Grid | None:
    """The thresholds of the states that are kept, in finer intervals; None where n_1 has none.

    Args:
        kept: Shape (states,).
    """
    intervals: list[list[tuple[float, float]]] = []
    for h in range(len(grid.first) - 1):
        merged: list[tuple[float, float]] = []
        for s in range(grid.first[h], grid.first[h + 1]):
            if not kept[s]:
                continue
            if merged and merged[-1][1] + 1 == grid.low[s]:
                merged[-1] = (merged[-1][0], float(grid.high[s]))
            else:
                merged.append((float(grid.low[s]), float(grid.high[s])))
        intervals.append(merged)
    return _grid(graph, intervals) if intervals[0] else None


def _grid(graph: Graph, intervals: list[list[tuple[float, float]]]) -> Grid:
    from thresholds.solvers.nested import graph_kernel as kernel  # numba is slow to import

    m = len(intervals)
    cells = [_cells(one, most_states(m)) for one in intervals]
    first = np.concatenate([[0], np.cumsum([len(one) for one in cells])]).astype(np.int64)
    low = np.array([a for one in cells for a, _ in one])
    high = np.array([b for one in cells for _, b in one])
    sizes = np.diff(first)
    pairs = np.triu(np.outer(sizes, sizes), k=1)
    ends = np.cumsum(pairs.ravel())
    place = (ends - pairs.ravel()).reshape(m, m).astype(np.int64)
    inverse = np.empty(int(ends[-1]))
    kernel.fill_inverse(graph.survival, first, low, high, place, inverse)
    return Grid(first, low, high, (first, low, high, place, inverse))


def _cells(intervals: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """The intervals cut at most so often, in steps of one ratio, the smallest that is possible."""
    for ratio in (1.0, *np.geomspace(1.004, 4.0, 60), np.inf):
        found: list[tuple[float, float]] = []
        for low, high in intervals:
            while low <= high and len(found) <= most:
                end = min(high, max(low, np.floor(low * ratio)))
                found.append((low, float(end)))
                low = end + 1
        if len(found) <= most:
            return found
    return intervals

"""Realisable regions: rates that a threshold rule with whole thresholds provably carries.

For literal WAIT these are the rates with some n ∈ {1, 2, …}^m that satisfies drift strictly and
M(n) ≤ C (THEORY 3.2). The least such n exists (`FullBatch.least_thresholds`) and grows with the
rates, so that along a mix the region is an interval and bisection finds its end. For affine servers
it lies inside the fluid region, well inside where n*_j < 1: a class needs one request at each of
its stages.

For Nested WAIT, which does not know lengths, they are the rates with some whole n that satisfies
drift and the chain of THEORY 4.3 and whose memory with the safety buffer of Theorem 2 fits. The
chain does not depend on the total rate, so that the end along a mix is the largest n_1/(Λ_1 ΔT(n)).
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.steady.region import DIRECTIONS, StabilityRegion, mixed
from thresholds.solvers.nested.requirement import STRICT, log_term
from thresholds.solvers.nested.search import aim_of, best_whole, chains
from thresholds.solvers.nested.segments import distinct_lengths
from thresholds.solvers.wait.batch import full_batch

Floats = NDArray[np.float64]

_TOLERANCE = 1e-6
"""Width, as a share of the fluid boundary, of the final bracket."""

_MOST_LENGTHS = 8
"""Up to so many distinct output lengths all cuts into segments are tried."""


def wait_reach(region: StabilityRegion, edge_per_s: ArrayLike) -> float:
    """The largest multiple of a point of the fluid boundary that whole thresholds carry.

    At most 1 for affine servers; a little more is possible on others, as full batches are not
    random while the fluid boundary counts Poisson prompts (THEORY 2.5). 0 where not even
    n = (1, …, 1) fits into memory. Found from below within 1e-6.

    Args:
        edge_per_s: Rates on the fluid boundary, shape (m,).

    Raises:
        InputError: No rate is positive.
    """
    holds = full_batch(mixed(region.workload, edge_per_s), region.server).carries

    low, high = 0.0, 1.0
    if not holds(low):
        return 0.0
    while holds(high):
        low, high = high, 2 * high
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def wait_boundary(region: StabilityRegion, directions: int = DIRECTIONS) -> Floats:
    """Ends of the realisable region of two classes along mixes, shape (directions − 2, 2), per s.

    The two axes are left out: there a class disappears and with it the need for its n_j ≥ 1, so
    that the boundary jumps.
    """
    edge = region.boundary(directions)[1:-1]
    return np.array([wait_reach(region, one) * one for one in edge])


def nested_reach(
    region: StabilityRegion,
    edge_per_s: ArrayLike,
    overflow_probability: float = 0.01,
    horizon_s: float = 3600.0,
) -> float:
    """The largest multiple of a point of the fluid boundary that Nested WAIT provably carries.

    With the best of all cuts into segments; for that no overflow within the horizon has probability
    1 − `overflow_probability` at least. 0 where no whole thresholds fit. Thresholds are found by
    descent, from below.

    Args:
        edge_per_s: Rates on the fluid boundary, shape (m,).

    Raises:
        InputError: No rate is positive, or more than 8 distinct output lengths.
    """
    lengths = distinct_lengths(mixed(region.workload, edge_per_s), region.server)
    last = len(lengths.outputs) - 1
    if last >= _MOST_LENGTHS:
        raise InputError("classes", last + 1, f"at most {_MOST_LENGTHS} distinct output lengths")
    overhead_s = region.server.iteration_time.overhead_s
    best = 0.0
    for count in range(last + 1):
        log = log_term(count + 1, horizon_s, overhead_s, overflow_probability)
        for inner in itertools.combinations(range(last), count):
            segments = lengths.segments([*inner, last])
            _, load = best_whole(aim_of("slack", segments, log), chains(segments))
            best = max(best, (1 - STRICT) / load)
    return best


def nested_boundary(
    region: StabilityRegion,
    directions: int = DIRECTIONS,
    overflow_probability: float = 0.01,
    horizon_s: float = 3600.0,
) -> Floats:
    """Ends of the region of Nested WAIT of two classes, as `wait_boundary`, (directions − 2, 2)."""
    edge = region.boundary(directions)[1:-1]
    return np.array(
        [nested_reach(region, one, overflow_probability, horizon_s) * one for one in edge]
    )

"""Realisable regions: rates that a threshold rule with whole thresholds provably carries.

For literal WAIT these are the rates with some n ∈ {1, 2, …}^m that satisfies drift strictly and
M(n) ≤ C (THEORY 3.2). The least such n exists (`FullBatch.least_thresholds`) and grows with the
rates, so that along a mix the region is an interval and bisection finds its end. For affine servers
it lies inside the fluid region, well inside where n*_j < 1: a class needs one request at each of
its stages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.region import DIRECTIONS, StabilityRegion, mixed
from thresholds.batch import full_batch

Floats = NDArray[np.float64]

_TOLERANCE = 1e-6
"""Width, as a share of the fluid boundary, of the final bracket."""


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
    batch = full_batch(mixed(region.workload, edge_per_s), region.server)

    def holds(scale: float) -> bool:
        least = batch.least_thresholds(scale)
        return least is not None and bool(batch.memory(least) <= region.server.usable_kv_tokens)

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

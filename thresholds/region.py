"""Realisable regions: rates that a threshold rule with whole thresholds provably carries.

For literal WAIT these are the rates with some n ∈ {1, 2, …}^m that satisfies drift strictly and
M(n) ≤ C (THEORY 3.2). The least such n exists (`FullBatch.least_thresholds`) and grows with the
rates, so that along a mix the region is an interval and bisection finds its end. It lies inside the
fluid region, well inside where n*_j < 1: a class needs one request at each of its stages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.region import StabilityRegion, mixed
from thresholds.batch import full_batch

Floats = NDArray[np.float64]

_TOLERANCE = 1e-6
"""Relative width of the final bracket."""


def wait_reach(region: StabilityRegion, mix: ArrayLike) -> float:
    """The largest multiple of `mix`, shape (m,), that whole literal-WAIT thresholds carry.

    0 where not even n = (1, …, 1) fits into memory. Found from below within 1e-6.

    Raises:
        InputError: A rate is negative, or all are 0.
    """
    high = region.reach(mix)
    batch = full_batch(mixed(region.workload, mix), region.server)

    def holds(scale: float) -> bool:
        least = batch.least_thresholds(scale)
        return least is not None and bool(batch.memory(least) <= region.server.usable_kv_tokens)

    low = 0.0
    if not holds(low):
        return 0.0
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def wait_boundary(region: StabilityRegion, mixes: ArrayLike) -> Floats:
    """Ends of the realisable region along each mix, shape (k, m) as `mixes`, requests per second.

    At the ends of the axes a class disappears and with it the need for its n_j ≥ 1, so that the
    boundary jumps there.
    """
    directions = np.asarray(mixes, dtype=float)
    return np.array([wait_reach(region, one) * one for one in directions])

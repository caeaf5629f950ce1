"""Loops of the dynamic program of `design`, compiled.

All kernels read the same tables, over the lengths 0 … m − 1; a row speaks of requests that enter a
segment at that length and are as long or longer:

    n           threshold n of a segment entered there, shape (m,)
    depth       −ln of the share of requests that enter there, shape (m,)
    prompts     prompt that memory counts, shape (m,)
    low, high   first stage of a segment entered there, last of one that ends there, shape (m,)
    boundary    KV of a request that waits to enter there, shape (m,)
    inverse     K/θ over −ln p, `nodes` nodes per unit from 0 on
    sums   Σ_{t ≤ i} of t rounded up to blocks
"""

from __future__ import annotations

import numpy as np

from fluid.compiled import compiled

# mypy: disable-error-code="no-untyped-def"


@compiled(from_python=False, error_model="numpy")
def segment_cost(h, i, n, depth, prompts, low, high, boundary, inverse, nodes, sums):
    """Cost of the segment of lengths h … i with the boundary behind it; infinite if not allowed."""
    filled = n[h] * (sums[prompts[h] + high[i]] - sums[prompts[h] + low[h] - 1])
    if i == n.size - 1:
        return filled if n[h] >= 1.0 else np.inf
    place = (depth[i + 1] - depth[h]) * nodes
    node = int(place)
    exceeded = inverse[node] + (place - node) * (inverse[node + 1] - inverse[node])
    cost = filled + boundary[i + 1] * (n[i + 1] + exceeded)
    return cost if n[h] - n[i + 1] >= 1.0 else np.inf


@compiled(error_model="numpy")
def least_sums(n, depth, prompts, low, high, boundary, inverse, nodes, sums, most):
    """Least sum over lengths 0 … i − 1 cut into k segments, shape (m + 1, most + 1)."""
    values = np.full((n.size + 1, most + 1), np.inf)
    values[0, 0] = 0.0
    before = np.empty(most + 1)
    # Pushing from h reads the tables in order of i, which is several times faster than pulling.
    for h in range(n.size):
        before[:] = values[h]
        for i in range(h, n.size):
            cost = segment_cost(h, i, n, depth, prompts, low, high, boundary, inverse, nodes, sums)
            row = values[i + 1]
            for k in range(most):
                candidate = before[k] + cost
                row[k + 1] = candidate if candidate < row[k + 1] else row[k + 1]
    return values


@compiled()
def best_ends(n, depth, prompts, low, high, boundary, inverse, nodes, sums, values, count):
    """Ends of the best `count` segments, read backwards from `least_sums`."""
    ends = np.empty(count, dtype=np.int64)
    i = n.size - 1
    for k in range(count, 0, -1):
        ends[k - 1] = i
        best, chosen = np.inf, 0
        for h in range(i + 1):
            cost = segment_cost(h, i, n, depth, prompts, low, high, boundary, inverse, nodes, sums)
            if values[h, k - 1] + cost < best:
                best, chosen = values[h, k - 1] + cost, h
        i = chosen - 1
    return ends

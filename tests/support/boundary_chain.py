"""Boundary queues of Nested WAIT, simulated step by step: oracle of the laws in `memory_law`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.nested.segments import Segments


def largest_kv(
    thresholds: tuple[int, ...],
    segments: Segments,
    horizon_s: float,
    paths: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Most KV in an iteration with full stages, from an empty start, shape (paths,).

    M(n) + Σ b_k (Q_k − n_k), less a token for each of those that pause (blocks of one token).

    A path has as many iterations as its Poisson arrivals within the horizon allow. A run of segment
    k takes n_k requests in; those that are longer than its cut stand at the next boundary δ_k runs
    later.
    """
    n, held = np.array(thresholds), segments.waiting_tokens
    arrivals = rng.poisson(segments.rates_per_s[0] * horizon_s, paths)
    iterations = arrivals // n[0]
    depth = segments.stages.astype(int)
    inside = [np.zeros((paths, one), dtype=int) for one in depth]
    runs = np.zeros((paths, segments.count), dtype=int)
    queues = np.zeros((paths, segments.count - 1), dtype=int)
    everyone = np.arange(paths)
    most = np.zeros(paths)
    for iteration in range(int(iterations.max())):
        alive = iteration < iterations
        gates = np.column_stack([alive, queues >= n[1:]])
        running = np.logical_and.accumulate(gates, axis=1)
        tokens = queues @ held - ~running[:, 1:] @ (n[1:] * depth[1:])
        most = np.where(alive, np.maximum(most, tokens), most)
        for k in range(segments.count - 1):
            runs_now = running[:, k]
            if k > 0:
                queues[runs_now, k - 1] -= n[k]
            place = runs[:, k] % depth[k]
            passed = rng.binomial(n[k], segments.survivals[k], paths)
            inside[k][everyone[runs_now], place[runs_now]] = passed[runs_now]
            runs[runs_now, k] += 1
        queues[running[:, -1], -1] -= n[-1]
        for k in range(segments.count - 1):
            # The batch that has now made δ_k runs leaves; its place is the next to be filled.
            leaves = running[:, k] & (runs[:, k] >= depth[k])
            place = runs[:, k] % depth[k]
            queues[leaves, k] += inside[k][everyone[leaves], place[leaves]]
    full = n @ segments.memory_tokens
    return np.asarray(full - n[1:] @ held + most)

"""Small instances of Nested WAIT, and every whole threshold vector of one."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import Workload
from tests.support.builders import workload
from thresholds.solvers.nested.requirement import log_term
from thresholds.solvers.nested.segments import Segments, distinct_lengths


def random_instance(seed: int, lengths: int) -> tuple[Workload, Server]:
    """Random affine server and so many distinct outputs, at 20–90 % of the stability limit."""
    rng = np.random.default_rng(seed)
    outputs = rng.choice(np.arange(1, 40), lengths, replace=False)
    load = workload(
        *((float(rng.uniform(0.3, 5)), int(rng.integers(1, 200)), int(one)) for one in outputs)
    )
    server = Server(
        name="random",
        source="test",
        kv_capacity_tokens=int(rng.integers(20_000, 200_000)),
        block_tokens=int(rng.choice([1, 16])),
        first_token=("prefill", "decode")[int(rng.integers(2))],
        iteration_time=IterationTime.affine(
            rng.uniform(1e-3, 3e-2), rng.uniform(1e-6, 1e-4), rng.uniform(1e-8, 2e-6)
        ),
    )
    return load.scaled(equilibrium(load, server).max_scale * rng.uniform(0.2, 0.9)), server


def finest(load: Workload, server: Server) -> Segments:
    lengths = distinct_lengths(load, server)
    return lengths.segments(np.arange(len(lengths.outputs)))


def log_of(segments: Segments, horizon_s: float = 3600.0, probability: float = 0.01) -> float:
    overhead_s = segments.server.iteration_time.overhead_s
    return log_term(segments.count, horizon_s, overhead_s, probability)


def decreasing(segments: int, largest: int) -> NDArray[np.float64]:
    """All strictly decreasing whole vectors with n_1 ≤ `largest`, shape (k, segments)."""
    found = itertools.combinations(range(largest, 0, -1), segments)
    return np.array(list(found), dtype=float)

"""Instances of WAIT: that of THEORY 3.2, a staircase, and random small ones."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import Slo, Workload
from tests.support import builders
from tests.support.builders import workload
from thresholds.solvers.wait.batch import FullBatch
from thresholds.table import ThresholdTable

# THEORY 3.2: 45 µs per prefill token on top of Eq. (1), paper convention.
PAPER_TAU = IterationTime.affine(0.0114, per_kv_token_s=0.43e-6, per_prefill_token_s=45.43e-6)
STAIRS = IterationTime(
    tokens_knots=(0.0, 64.0, 64.0, 256.0, 256.0, 1024.0),
    seconds_knots=(0.009, 0.010, 0.012, 0.020, 0.025, 0.070),
    per_kv_token_s=3e-7,
)
TWO = workload((14.0, 512, 20), (6.0, 512, 50))


def server(tau: IterationTime, capacity: int = 137_000, first_token: str = "decode") -> Server:
    """A server in the paper's convention unless told otherwise."""
    return builders.server(tau, first_token, capacity)


def thresholds_of(table: ThresholdTable) -> list[int]:
    return [int(one.threshold) for one in table.thresholds]


def limited(load: Workload, index: int, **seconds: float) -> Workload:
    """The workload with limits on means of one class."""
    classes = list(load.classes)
    slo = Slo.model_validate({**seconds, "quantile": "mean"})
    classes[index] = classes[index].model_copy(update={"slo": slo})
    return load.model_copy(update={"classes": tuple(classes)})


@st.composite
def instances(draw: st.DrawFn, max_classes: int = 3) -> tuple[Workload, Server]:
    """Random affine servers with short requests, loaded to 50–95 % of their boundary."""
    tau = IterationTime.affine(
        draw(st.floats(1e-3, 3e-2)), draw(st.floats(1e-6, 1e-4)), draw(st.floats(1e-7, 1e-5))
    )
    classes = draw(
        st.lists(
            st.tuples(st.floats(0.1, 10.0), st.integers(1, 200), st.integers(1, 7)),
            min_size=1,
            max_size=max_classes,
        )
    )
    convention = draw(st.sampled_from(["prefill", "decode"]))
    machine = server(tau, draw(st.integers(5_000, 60_000)), convention)
    load = workload(*classes)
    scale = equilibrium(load, machine).max_scale
    return load.scaled(scale * draw(st.floats(0.5, 0.95))), machine


def all_whole(batch: FullBatch, at_most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every feasible whole threshold vector up to `at_most`, shape (k, m)."""
    memory = np.floor(batch.server.usable_kv_tokens / batch.memory_tokens)
    ranges = [range(1, int(top) + 1) for top in np.minimum(at_most, memory)]
    grid = np.array(list(itertools.product(*ranges)), dtype=float)
    return grid[batch.feasible(grid)]

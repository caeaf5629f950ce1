"""Loads of which it is known how many requests are in service, and what of memory they move."""

from __future__ import annotations

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import class_stages
from fluid.workload import RequestClass, Workload
from validation.simulator.model import Model, poisson_model
from validation.simulator.state import DAY, REQUEST, RESIDENT, SCALARS

OVERHEAD_S, PER_KV_TOKEN_S = 0.0114, 0.43e-6
PROMPT, OUTPUT = 128, 200


def model_with(residents: float, capacity_tokens: int = 4_000_000) -> Model:
    """Poisson arrivals of one class that keep so many requests in service on average.

    With λ = N/(S d0 + N w) the balance ΔT* = d0/(1 − λw) holds λ S ΔT* = N of them (THEORY 2.2).
    """
    server = Server(
        name="bench",
        source="benchmark",
        kv_capacity_tokens=capacity_tokens,
        iteration_time=IterationTime.affine(OVERHEAD_S, 0.0, PER_KV_TOKEN_S),
    )
    one = RequestClass(name="chat", rate_per_s=1.0, prefill_tokens=PROMPT, decode_tokens=OUTPUT)
    stages = class_stages(one, server).count
    read = sum(PROMPT + stage for stage in range(1, stages))
    rate_per_s = residents / (stages * OVERHEAD_S + residents * PER_KV_TOKEN_S * read)
    load = one.model_copy(update={"rate_per_s": rate_per_s})
    return poisson_model(Workload(name="bench", classes=(load,)), server)


SUMS_BYTES, COUNT_BYTES = 8, 4

BYTES_PER_REQUEST = (
    # Its draws written; read and laid out; read and written until it is parked, and when it ends.
    7 * REQUEST.itemsize
    + RESIDENT.itemsize  # written until it is parked
    + 2 * 4 * DAY.itemsize  # its end and its phase, entered and struck out
    + 2 * 3 * (3 * SUMS_BYTES + COUNT_BYTES)  # latency, TTFT and TPOT in sums and histograms
)
"""What a request moves in all where decoders are not touched, each record once at a time."""

BYTES_PER_ITERATION = 2 * SCALARS.itemsize
"""What an iteration moves whoever is in service."""

"""One of each result of `fluid`, for the contract that all results keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fluid.cache.result import prefix_cache
from fluid.cache.routing import routing
from fluid.conversation import Conversation
from fluid.overload.bounded_queue import bounded_queue
from fluid.overload.fixed_clients import fixed_clients
from fluid.overload.impatience import Patience, impatience
from fluid.overload.queue_for_limit import queue_for_limit
from fluid.result import Result
from fluid.server import Server, ServerList
from fluid.steady.bounds import bounds
from fluid.steady.capacity import capacity
from fluid.steady.equilibrium import equilibrium
from fluid.steady.fluctuation import fluctuation
from fluid.steady.fluid_sweep import fluid_sweep
from fluid.steady.full_memory.stability import full_memory
from fluid.steady.latency_by_rate import latency_by_rate
from fluid.steady.phase import phase
from fluid.steady.prediction import predict
from fluid.steady.queries import QUERIES
from fluid.steady.stability import stability
from fluid.traces.summarise import summarise_trace
from fluid.transient.admission import Admission
from fluid.transient.inflow import Burst
from fluid.transient.metastable import Criterion, equilibria, recovery_map
from fluid.transient.path import simulate_fluid
from fluid.transient.saturated import predicted_loss
from fluid.workload import Requests, Slo, Workload
from tests.support.trace_samples import DATA

PAIR = Workload.of(
    "chat-and-a-long-name-of-what-else-comes",
    chat=Requests(2.0, prompt=512, output=200),
    **{"reports-that-take-a-long-while": Requests(0.5, prompt=512, output=1000)},
)
TALK = Workload.of(
    "talks-and-a-long-name-of-what-else-comes",
    **{
        "talks-that-take-a-long-while": Requests(
            4.3, 0, 200, conversation=Conversation(turns=5.0, think_time_s=8.0, new_tokens=200)
        )
    },
)
ENGINE, PAPER = Server.named("engine-long-decode"), Server.named("paper-long-decode")
A100 = Server.named("a100-80gb-llama-2-7b")
GREEDY = Admission(watermark=0.01)


ONE_LENGTH = Workload.of(only=Requests(1.0, prompt=512, output=300))


def _there(result: Result | None) -> Result:
    assert result is not None
    return result


def _path() -> Result:
    return simulate_fluid(
        PAIR, PAPER, horizon_s=20.0, bursts=[Burst(5.0, 20.0)], snapshots_s=[1.0, 6.0, 19.0]
    )


def _map() -> Result:
    criterion = Criterion(horizon_s=60.0, hold_s=30.0)
    return recovery_map(PAIR, PAPER, [1.0, 2.5], [0.0, 20.0], criterion, GREEDY)


FLUID_RESULTS: dict[str, Callable[[], Result]] = {
    "prefix cache": lambda: prefix_cache(TALK, PAPER),
    "equilibrium with a prefix cache": lambda: equilibrium(TALK, PAPER),
    "routing": lambda: routing(TALK, PAPER, 2),
    "capacity with a prefix cache": lambda: capacity(TALK, PAPER, "rate"),
    "equilibrium": lambda: equilibrium(PAIR, A100),
    "equilibrium-unstable": lambda: equilibrium(PAIR.scaled(100), PAPER),
    "equilibrium-evictions": lambda: equilibrium(PAIR, PAPER, evictions=0.01),
    "latency-by-rate": lambda: latency_by_rate(PAIR, PAPER, shares=(0.3, 0.95)),
    "prediction": lambda: predict(PAIR, A100, "vllm-v1"),
    "prediction-refused": lambda: predict(PAIR.scaled(2.0), PAPER),
    "stability": lambda: stability(PAIR, A100),
    "stability-affine": lambda: stability(PAIR.scaled(100), PAPER),
    **{
        f"capacity-{query}": lambda query=query: capacity(
            PAIR, PAPER, query, "chat" if query == "output" else None
        )
        for query in QUERIES
    },
    "fluctuation": lambda: fluctuation(PAIR, PAPER),
    "bounds": lambda: bounds(PAIR, A100, batch_tokens=2048),
    "phase": lambda: phase(PAIR, ENGINE, rate=np.arange(1, 21), kv_tokens=[500, 50_000]),
    "sweep": lambda: fluid_sweep(PAIR, PAPER, rate=[2, 40], kv_tokens=[900, 90_000]),
    "full-memory": lambda: full_memory(PAIR, ENGINE),
    "full-memory-one-length": lambda: full_memory(ONE_LENGTH, PAPER),
    "predicted-loss": lambda: _there(predicted_loss(PAIR, PAPER, {"limits": GREEDY})),
    "equilibrium-loss": lambda: equilibrium(PAIR, PAPER, loss=True),
    "bounded-queue": lambda: bounded_queue(PAIR.at_rate(30.0), ENGINE, requests=20),
    "bounded-queue-tokens": lambda: bounded_queue(
        PAIR.at_rate(30.0), A100, prompt_tokens=9_000, servers=2
    ),
    "queue-for-limit": lambda: queue_for_limit(
        PAIR.model_copy(update={"slo": Slo(ttft_s=9.0)}), ENGINE
    ),
    "impatience": lambda: impatience(PAIR.at_rate(30.0), ENGINE, Patience(20.0)),
    "fixed-clients": lambda: fixed_clients(PAIR, A100, 30, think_s=2.0),
    "fixed-clients-full": lambda: fixed_clients(ONE_LENGTH, PAPER, 400),
    "path": _path,
    "recovery-map": _map,
    "equilibria": lambda: equilibria(PAIR, PAPER, GREEDY, settle_s=50.0, measure_s=50.0),
    "trace": lambda: summarise_trace(DATA / "azure-2024.csv"),
    "trace-snapshot": lambda: summarise_trace(DATA / "metrics.prom", rate_per_s=2.0),
    "servers": ServerList.builtin,
}
"""Factories by name."""

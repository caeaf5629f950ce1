"""What every solver needs to put its result into a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium
from fluid.workload import Workload
from thresholds.fields import (
    SCHEMA_VERSION,
    Condition,
    EngineFlags,
    Memory,
    Predicted,
    Price,
    Scheduler,
    SolverReport,
    Threshold,
    ValidFor,
    created_by,
)
from thresholds.table import ThresholdTable

FOLLOWED_BY = "the scheduler class for vLLM follows it (export to vllm)"
"""Where tables with segments can be served, for their notes."""


def solved_table(
    policy: str,
    workload: Workload,
    server: Server,
    *,
    params: dict[str, int | float],
    thresholds: Sequence[int | float],
    memory: Memory,
    predicted: Predicted,
    max_rate_per_s: float,
    certificate: tuple[Condition, ...],
    solver: SolverReport,
    notes: tuple[str, ...],
    cuts: Sequence[int] | None = None,
    min_rate_per_s: float = 0.0,
    prices: tuple[Price, ...] = (),
    scheduler: Scheduler = "greedy",
) -> ThresholdTable:
    """A table of a policy, not yet validated; `Solver.solve` adds engines' flags.

    One threshold per class, or per segment where `cuts` says at which output lengths they end.

    Drift and memory conditions that hold at some rates of a mix hold at all smaller ones, so that
    the table is valid from rate 0 on unless a limit on a delay says otherwise.
    """
    if cuts is None:
        named = zip(workload.classes, thresholds, strict=True)
        entries = ({"name": one.name, "threshold": value} for one, value in named)
    else:
        entries = (
            {"name": f"segment {k}", "threshold": value, "up_to_tokens": cut}
            for k, (value, cut) in enumerate(zip(thresholds, cuts, strict=True), start=1)
        )
    return ThresholdTable(
        schema_version=SCHEMA_VERSION,
        created_by=created_by(),
        workload=workload,
        server=server,
        workload_sha256=workload.sha256(),
        server_sha256=server.sha256(),
        policy=policy,
        params=params,
        thresholds=Threshold.many(entries),
        memory=memory,
        predicted=predicted,
        validated=None,
        valid_for=ValidFor(
            min_rate_per_s=min_rate_per_s, max_rate_per_s=max_rate_per_s, until=None
        ),
        certificate=certificate,
        solver=solver,
        engine_flags=EngineFlags(vllm={}, sglang={}, trtllm={}),
        notes=notes,
        scheduler=scheduler,
        prices=prices,
    )


def predicted(
    found: Equilibrium, policy_latency_s: float | None, policy_ttft_s: float | None = None
) -> Predicted:
    """The equilibrium's figures, with latency and TTFT under the table's policy.

    Times are of first order; `thresholds.prediction` puts the laws' in their place.
    """
    times = found.first_order
    return Predicted(
        utilisation=found.utilisation,
        max_scale=found.max_scale,
        binding=found.binding,
        iteration_time_s=found.iteration_time_s,
        kv_tokens=found.kv_tokens,
        latency_s=None if times is None else times.latency_s,
        ttft_s=None if times is None else times.ttft_s,
        tpot_s=None if times is None else times.tpot_s,
        throughput_tokens_per_s=found.throughput_tokens_per_s,
        policy_latency_s=policy_latency_s,
        policy_ttft_s=policy_ttft_s,
    )


def rounded_down(value: float, digits: int = 3) -> float:
    """`value` > 0 to so many significant digits, never above it: safe to follow as advice."""
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return float(f"{math.floor(value / unit) * unit:.{digits}g}")


def rounded_up(value: float, digits: int = 3) -> float:
    """`value` > 0 to so many significant digits, never below it: safe to follow as advice."""
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return float(f"{math.ceil(value / unit) * unit:.{digits}g}")

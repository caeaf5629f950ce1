"""How the margin of a workload changes with everything it depends on (THEORY 2.3, 2.5)."""

from __future__ import annotations

from typing import Any

from fluid.errors import InputError
from fluid.server import Server
from fluid.stages import memory_sums, stage_sums
from fluid.steady.stability import Stability, stability
from fluid.workload import Workload

_STEP = 1e-3
"""Relative step of central differences."""

_CACHED_STEP = 1e-2
"""The same where hits move too, and boundaries are found by search."""


def margin_derivatives(workload: Workload, server: Server) -> tuple[dict[str, float], str]:
    """∂margin/∂(quantity) of a workload on a server, and how they were found.

    Those of coefficients and overhead are analytic for every server. Those of rates and memory are
    analytic for affine ones, otherwise central differences (relative step 0.1 %). Where prefixes
    are cached there are only those two.
    """
    if workload.has_prefixes:
        by_rate = [_rate_difference(workload, server, k) for k in range(len(workload.classes))]
        found = {
            f"rate_per_s[{one.name}]": value
            for one, value in zip(workload.classes, by_rate, strict=True)
        }
        found["kv_tokens"] = _memory_difference(workload, server)
        return found, "central differences, hits included"
    here = stability(workload, server)
    sums = work_sums(workload, server)
    coefficients = {"overhead_s": -1 / best_intake_s(here, workload)} | {
        name: -one for name, one in sums.items()
    }
    if here.half_space_per_s is not None:
        tokens = server.usable_kv_tokens
        held = float(workload.rates_per_s @ memory_sums(workload, server))
        by_rate = (-here.half_space_per_s).tolist()
        by_memory = float(server.iteration_time.overhead_s * held / tokens**2)
        method = "analytic"
    else:
        by_rate = [_rate_difference(workload, server, k) for k in range(len(workload.classes))]
        by_memory = _memory_difference(workload, server)
        method = "analytic; rates and memory by central differences"
    rates = {
        f"rate_per_s[{one.name}]": value
        for one, value in zip(workload.classes, by_rate, strict=True)
    }
    return rates | {"kv_tokens": by_memory} | coefficients, method


def work_sums(workload: Workload, server: Server) -> dict[str, float]:
    """A_q per coefficient: what the linear terms of τ count, per second of arrivals."""
    sums, rates = stage_sums(workload, server), workload.rates_per_s
    counts = {
        "per_token_s": sums.prefill_tokens + sums.decodes,
        "per_kv_token_s": sums.kv_read_tokens,
        "per_prefill_token_s": sums.prefill_tokens,
        "per_decode_request_s": sums.decodes,
        "per_prefill_token_sq_s": sums.prefill_tokens**2,
    }
    return {name: float(rates @ count) for name, count in counts.items()}


def best_intake_s(found: Stability, workload: Workload) -> float:
    """y*, the intake at the boundary."""
    return float(found.boundary_per_stage[0] / workload.classes[0].rate_per_s)


def _rate_difference(workload: Workload, server: Server, index: int) -> float:
    rate = workload.classes[index].rate_per_s
    step = _CACHED_STEP if workload.has_prefixes else _STEP

    def margin(factor: float) -> float:
        changed = with_class(workload, index, rate_per_s=rate * factor)
        return stability(changed, server).margin

    return (margin(1 + step) - margin(1 - step)) / (2 * step * rate)


def _memory_difference(workload: Workload, server: Server) -> float:
    """Over whole blocks; one-sided where one block less would not hold a request."""
    block, tokens = server.block_tokens, server.usable_kv_tokens
    share = _CACHED_STEP if workload.has_prefixes else _STEP
    step = max(1, round(share * tokens / block)) * block

    def margin(capacity_tokens: int) -> float:
        changed = server.model_copy(update={"kv_capacity_tokens": capacity_tokens})
        return stability(workload, changed).margin

    try:
        lower, below = margin(tokens - step), step
    except InputError:
        lower, below = margin(tokens), 0
    return (margin(tokens + step) - lower) / (step + below)


def with_class(workload: Workload, index: int, **changes: Any) -> Workload:
    """The workload with some fields of one class changed."""
    classes = list(workload.classes)
    classes[index] = classes[index].model_copy(update=changes)
    return workload.model_copy(update={"classes": tuple(classes)})

"""Where each inverse query is answered: what the fluid model needs, or allows, at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server, require_fits
from fluid.steady.certain import Having
from fluid.steady.derivatives import best_intake_s, with_class, work_sums
from fluid.steady.intake import intake
from fluid.steady.stability import stability
from fluid.workload import Workload

_LEAST_OVERHEAD = 1e-6
"""Share of today's overhead below which none is looked for."""

_BOUNDLESS_TOKENS = 10**15
_ROUNDING = 1e-12
_NEWTON_STEPS = 50


class Reached(NamedTuple):
    """Where an answer is reached, and the workload and server that have this or another value."""

    value: float
    unit: str
    today: float
    having: Having


def _rate(workload: Workload, server: Server, _: str | None) -> Reached:
    value = stability(workload, server).max_scale * workload.rate_per_s

    def having(rate_per_s: float) -> tuple[Workload, Server]:
        return workload.at_rate(rate_per_s), server

    return Reached(value, "requests/s", workload.rate_per_s, having)


def _kv_tokens(workload: Workload, server: Server, _: str | None) -> Reached:
    block = server.block_tokens

    def having(tokens: float) -> tuple[Workload, Server]:
        return workload, server.model_copy(update={"kv_capacity_tokens": int(tokens)})

    if workload.has_prefixes:
        blocks = _least(lambda one: having(block * one), server.usable_kv_tokens // block)
        return Reached(block * blocks, "tokens", server.usable_kv_tokens, having)
    curve = intake(workload, server)
    least_s = curve.least_balance_s()
    if least_s is None:
        boundless = server.model_copy(update={"kv_capacity_tokens": _BOUNDLESS_TOKENS})
        raise _infeasible(workload, boundless, "no memory is enough")
    largest = float(curve.sums.last_held_tokens.max())
    needed = max(least_s * curve.kv_tokens_per_s * (1 - _ROUNDING), largest)
    value = math.ceil(needed / block) * block
    return Reached(value, "tokens", server.usable_kv_tokens, having)


def _overhead_s(workload: Workload, server: Server, _: str | None) -> Reached:
    """Newton's method on L(δ) = min over y of (T(y) + δ)/y, concave in the shift δ of f.

    Tangents lie above L, so that their roots climb from next to nothing to the largest shift.
    """
    _without_prefixes(workload, "overhead_s")
    shift = -server.iteration_time.overhead_s * (1 - _LEAST_OVERHEAD)
    found = stability(workload, _shifted(server, shift))
    if found.margin <= 0:
        raise _infeasible(workload, _shifted(server, shift), "no overhead > 0 is small enough")
    for _step in range(_NEWTON_STEPS):
        step = found.margin * best_intake_s(found, workload)
        shift += step
        found = stability(workload, _shifted(server, shift))
        if abs(found.margin) <= _ROUNDING:
            break
    today = server.iteration_time.overhead_s

    def having(overhead_s: float) -> tuple[Workload, Server]:
        return workload, _shifted(server, overhead_s - today)

    return Reached(today + shift, "s", today, having)


def _bandwidth(workload: Workload, server: Server, _: str | None) -> Reached:
    _without_prefixes(workload, "bandwidth")
    read = work_sums(workload, server)["per_kv_token_s"]
    if read == 0:
        raise InputError("query", "bandwidth", "a workload with decode stages, which read KV")
    boundless = _with(server, per_kv_token_s=0.0)
    free = stability(workload, boundless).margin
    if free <= 0:
        raise _infeasible(workload, boundless, "no memory bandwidth is enough")
    value = free / read

    def having(per_kv_token_s: float) -> tuple[Workload, Server]:
        return workload, _with(server, per_kv_token_s=per_kv_token_s)

    return Reached(value, "s per KV token", server.iteration_time.per_kv_token_s, having)


def _servers(workload: Workload, server: Server, _: str | None) -> Reached:
    load = 1 / stability(workload, server).max_scale
    value = max(1, math.ceil(load * (1 - _ROUNDING)))

    def having(servers: float) -> tuple[Workload, Server]:
        return workload.scaled(1 / servers), server

    return Reached(value, "servers", 1, having)


def _output(workload: Workload, server: Server, class_name: str | None) -> Reached:
    """Bisection over whole lengths: a longer output never frees anything."""
    names = [one.name for one in workload.classes]
    if class_name is None and len(names) == 1:
        class_name = names[0]
    if class_name not in names:
        raise InputError("class", class_name, "one of " + ", ".join(names))
    index = names.index(class_name)

    def holds(tokens: int) -> bool:
        try:
            return stability(_with_output(workload, index, tokens), server).stable
        except InputError:
            return False

    if not holds(1):
        shortest = _with_output(workload, index, 1)
        require_fits(shortest, server)
        raise _infeasible(shortest, server, f"no output of {class_name} is short enough")
    low, high = 1, server.usable_kv_tokens + 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)

    def having(output: float) -> tuple[Workload, Server]:
        return _with_output(workload, index, int(output)), server

    today = workload.classes[index].decode_tokens
    return Reached(low, f"output tokens of {class_name}", today, having)


def _without_prefixes(workload: Workload, query: str) -> None:
    """Refuse a query whose answer follows from a sum over stages, which hits change."""
    if workload.has_prefixes:
        allowed = "rate, kv_tokens, servers or output where the workload has prefixes"
        raise InputError("query", query, allowed)


def _least(having: Callable[[float], tuple[Workload, Server]], today: int) -> int:
    """The least whole number with which the load is stable, by bisection."""

    def holds(number: int) -> bool:
        try:
            return stability(*having(number)).stable
        except InputError:
            return False

    low, high = 0, max(today, 1)
    while not holds(high):
        low, high = high, 2 * high
        if high > _BOUNDLESS_TOKENS:
            raise _infeasible(*having(high), "no memory is enough")
    while high - low > max(1, high >> 14):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


QUERIES: dict[str, Callable[[Workload, Server, str | None], Reached]] = {
    "rate": _rate,
    "kv_tokens": _kv_tokens,
    "overhead_s": _overhead_s,
    "bandwidth": _bandwidth,
    "servers": _servers,
    "output": _output,
}
"""All queries by name; the class is only for "output"."""


def _with_output(workload: Workload, index: int, tokens: int) -> Workload:
    return with_class(workload, index, decode_tokens=tokens)


def _with(server: Server, **coefficients: Any) -> Server:
    tau = server.iteration_time.model_copy(update=coefficients)
    return server.model_copy(update={"iteration_time": tau})


def _shifted(server: Server, shift_s: float) -> Server:
    """The server with f moved by so many seconds, not below 0."""
    knots_s = server.iteration_time.seconds_knots
    return _with(server, seconds_knots=tuple(max(0.0, one + shift_s) for one in knots_s))


def _infeasible(workload: Workload, server: Server, what: str) -> InfeasibleError:
    """The error of a query; `workload` and `server` are as good as the query can make them."""
    found = stability(workload, server)
    return InfeasibleError(
        f"workload {workload.name} on server {server.name}: {what}",
        found.binding,
        f"multiply all rates by less than {found.max_scale:.4g}",
        found.max_scale,
    )

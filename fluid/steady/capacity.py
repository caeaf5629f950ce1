"""Inverse queries: how much of one thing a workload needs, or allows, all else equal.

Everything follows from the boundary load L = 1/α* = T(y*)/y*, the share of the boundary that a
workload takes (THEORY 2.3, 2.5; `fluid.steady.stability`): stable ⇔ L ≤ 1, margin = 1 − L. With the
sums per second of arrivals A_q = Σ λ_j q_j (q: tokens, KV read, …; X: KV held)

- L grows by Δc·A_q when the coefficient c of q grows by Δc, at every intake y, so that the largest
  c follows in one step for any server;
- L grows by Δd0/y* (at least) when the overhead grows, and the best y* moves: Newton's method;
- the least memory is M* = ΔT*·X (THEORY 2.2), the fewest servers ⌈1/α*⌉, as T depends on λ·y.

Derivatives of the margin follow the same way with y* held fixed, because y* maximises α. For affine
servers y* = C/X and they are those of 1 − Σ λ_j (w_j + d0·m_j/C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server, require_fits
from fluid.stages import class_stages, memory_sums
from fluid.steady.certain import Having, certain_value
from fluid.steady.intake import intake
from fluid.steady.packing import packing
from fluid.steady.stability import Binding, Stability, stability
from fluid.workload import Workload

Floats = NDArray[np.float64]

_STEP = 1e-3
"""Relative step of central differences."""

_LEAST_OVERHEAD = 1e-6
"""Share of today's overhead below which none is looked for."""

_BOUNDLESS_TOKENS = 10**15
_SEARCH_ACCURACY = 1e-5
"""A margin closer to 0 is none: with several jumps in f, α* has rival maxima beside each of them,
and the search for it is good to a few times 1e-6."""

_ROUNDING = 1e-12
_NEWTON_STEPS = 50


@dataclass(frozen=True, repr=False)
class CapacityAnswer(Result):
    """Answer of one inverse query.

    Attributes:
        workload, server: What was asked about, unchanged.
        query: A name in `QUERIES`.
        value: The largest (or least) value with which the workload is still stable, in `unit`.
        today: The same quantity as the workload and the server have it.
        binding: "compute" or "memory": what stops it, at the answer (see `fluid.steady.stability`).
        margin: 1 − 1/α* at the answer: 0 but for whole numbers, where it is what rounding leaves.
        derivatives: ∂margin/∂(quantity) at the answer, by name with units: ``rate_per_s[NAME]``,
            ``kv_tokens``, ``overhead_s``, ``per_kv_token_s``, …; ``per_token_s`` is the slope of f.
            For "servers" the rates are those of one server.
        derivative_method: "analytic", or which of them are central differences.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(20.0, prompt=512, output=120))
    >>> found = fw.capacity(load, fw.Server.named("engine-long-decode"), "servers")
    >>> found.value, found.today
    (2, 1)
    """

    workload: Workload
    server: Server
    query: str
    value: float
    unit: str
    today: float
    binding: Binding
    margin: float
    derivatives: dict[str, float]
    derivative_method: str
    having: Having = field(repr=False, compare=False)

    @cached_property
    def certain_value(self) -> float | None:
        """What is reached for certain, where that is more than 1 % away from `value`; else None.

        `value` is that of the fluid model, which averages the memory: it is necessary. Whole
        requests may not pack as well, and periodic schedules of them are known to reach this.
        """
        unit = {"kv_tokens": self.server.block_tokens, "servers": 1, "output": 1}.get(self.query)
        upwards = self.query in ("kv_tokens", "servers")
        if self.query == "rate":
            # One packing serves all rates of a mix, and says the rate itself.
            found = packing(*self.having(self.value))
            return self.value * found.inner_scale if found.matters else None
        return certain_value(self.having, self.value, unit, upwards)

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each derivative."""
        return {
            "per_unit_of": list(self.derivatives),
            "margin_change": list(self.derivatives.values()),
        }

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"Change of the margin at the answer, {self.workload.name} on {self.server.name}",
            ("per unit of", "∂margin"),
            tuple((name, number(value)) for name, value in self.derivatives.items()),
        )
        yield f"Derivatives: {self.derivative_method}."
        yield self.sentence
        if self.certain_value is not None:
            yield self.bracket

    @property
    def bracket(self) -> str:
        """Between which values the answer lies, where few requests share the memory."""
        certain, value = self.certain_value, number(self.value)
        if certain is None:
            return f"{value} {self.unit}: the bounds agree within 1 %."
        if certain in (0, math.inf):
            return (
                f"CAUTION: few requests fit at once, so that {value} {self.unit} is only necessary;"
                " no value is known to be enough."
            )
        if self.query in ("kv_tokens", "servers"):
            bounds = f"{value} necessary, {number(certain)} enough"
        else:
            bounds = f"{number(certain)} certain, {value} the fluid bound"
        return (
            f"CAUTION: few requests fit at once, and whole requests may not fill the memory: "
            f"{bounds} ({self.unit}); in between nothing is known."
        )

    @property
    def sentence(self) -> str:
        """The answer in one sentence, with its cause."""
        text = _SENTENCES[self.query].format(
            value=number(self.value),
            unit=self.unit,
            today=number(self.today),
            server=self.server.name,
        )
        if self.query == "bandwidth" and self.today > 0:
            share = percent(self.today / self.value)
            text += f", so that {share} of today's memory bandwidth would do"
        return f"{text[0].upper()}{text[1:]}; {self.binding} binds there."

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "query": self.query,
            "value": self.value,
            "unit": self.unit,
            "certain_value": self.certain_value,
            "today": self.today,
            "binding": self.binding,
            "margin": self.margin,
            "derivatives": dict(self.derivatives),
            "derivative_method": self.derivative_method,
        }


_SENTENCES = {
    "rate": "this mix is stable up to {value} {unit} on {server} (today {today})",
    "kv_tokens": "at least {value} {unit} of KV memory are needed on {server} (today {today})",
    "overhead_s": "an iteration of {server} may cost up to {value} {unit} without work"
    " (today {today})",
    "bandwidth": "reading KV on {server} may cost up to {value} {unit} (today {today})",
    "servers": "{unit} like {server} that carry the load, split evenly: {value}",
    "output": "up to {value} {unit} fit on {server} (today {today})",
}


class Reached(NamedTuple):
    """Where an answer is reached, and the workload and server that have this or another value."""

    value: float
    unit: str
    today: float
    having: Having


def capacity(
    workload: Workload, server: Server, query: str, class_name: str | None = None
) -> CapacityAnswer:
    """Answer an inverse query (THEORY 2.3, 2.5).

    Args:
        query: "rate" (largest total rate of this mix), "kv_tokens" (least KV memory, whole
            blocks), "overhead_s" (largest d0), "bandwidth" (largest c_kv), "servers" (fewest
            identical ones with the mix split evenly), "output" (longest output of a class).
        class_name: The class that "output" asks about; may be left out where there is only one.

    Raises:
        InputError: Unknown query or class, or a request that does not fit (but for "kv_tokens").
        InfeasibleError: No value makes the workload stable; with the cause and the nearest change.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> print(fw.capacity(load, fw.Server.named("engine-long-decode"), "rate").sentence)
    This mix is stable up to 19.43 requests/s on engine-long-decode (today 7); compute binds there.
    """
    if query not in QUERIES:
        raise InputError("query", query, "one of " + ", ".join(QUERIES))
    if class_name is not None and query != "output":
        raise InputError("class", class_name, "only with query output")
    if query not in ("kv_tokens", "output"):
        require_fits(workload, server)
    at = QUERIES[query](workload, server, class_name)
    # Shares and derivatives are those at the point where the answer is reached.
    here = at.having(at.value)
    found = stability(*here)
    derivatives, method = margin_derivatives(*here)
    return CapacityAnswer(
        workload=workload,
        server=server,
        query=query,
        value=at.value,
        unit=at.unit,
        today=at.today,
        binding=found.binding,
        margin=0.0 if abs(found.margin) < _SEARCH_ACCURACY else found.margin,
        derivatives=derivatives,
        derivative_method=method,
        having=at.having,
    )


def margin_derivatives(workload: Workload, server: Server) -> tuple[dict[str, float], str]:
    """∂margin/∂(quantity) of a workload on a server, and how they were found.

    Those of coefficients and overhead are analytic for every server. Those of rates and memory are
    analytic for affine ones, otherwise central differences (relative step 0.1 %).
    """
    here = stability(workload, server)
    sums = _sums(workload, server)
    coefficients = {"overhead_s": -1 / _best_s(here, workload)} | {
        name: -one for name, one in sums.items()
    }
    if here.half_space_per_s is not None:
        tokens = server.usable_kv_tokens
        held = sum(
            one.rate_per_s * m
            for one, m in zip(workload.classes, memory_sums(workload, server), strict=True)
        )
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


def _rate(workload: Workload, server: Server, _: str | None) -> Reached:
    value = stability(workload, server).max_scale * workload.rate_per_s

    def having(rate_per_s: float) -> tuple[Workload, Server]:
        return workload.at_rate(rate_per_s), server

    return Reached(value, "requests/s", workload.rate_per_s, having)


def _kv_tokens(workload: Workload, server: Server, _: str | None) -> Reached:
    curve = intake(workload, server)
    least_s = curve.least_balance_s()
    if least_s is None:
        boundless = server.model_copy(update={"kv_capacity_tokens": _BOUNDLESS_TOKENS})
        raise _infeasible(workload, boundless, "no memory is enough")
    block = server.block_tokens
    peaks = [int(one.held_kv_tokens.max()) for one in curve.stages]
    needed = max(least_s * curve.kv_tokens_per_s * (1 - _ROUNDING), *peaks)
    value = math.ceil(needed / block) * block

    def having(tokens: float) -> tuple[Workload, Server]:
        return workload, server.model_copy(update={"kv_capacity_tokens": int(tokens)})

    return Reached(value, "tokens", server.usable_kv_tokens, having)


def _overhead_s(workload: Workload, server: Server, _: str | None) -> Reached:
    """Newton's method on L(δ) = min over y of (T(y) + δ)/y, concave in the shift δ of f.

    Tangents lie above L, so that their roots climb from next to nothing to the largest shift.
    """
    shift = -server.iteration_time.overhead_s * (1 - _LEAST_OVERHEAD)
    found = stability(workload, _shifted(server, shift))
    if found.margin <= 0:
        raise _infeasible(workload, _shifted(server, shift), "no overhead > 0 is small enough")
    for _step in range(_NEWTON_STEPS):
        step = found.margin * _best_s(found, workload)
        shift += step
        found = stability(workload, _shifted(server, shift))
        if abs(found.margin) <= _ROUNDING:
            break
    today = server.iteration_time.overhead_s

    def having(overhead_s: float) -> tuple[Workload, Server]:
        return workload, _shifted(server, overhead_s - today)

    return Reached(today + shift, "s", today, having)


def _bandwidth(workload: Workload, server: Server, _: str | None) -> Reached:
    read = _sums(workload, server)["per_kv_token_s"]
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


QUERIES: dict[str, Callable[[Workload, Server, str | None], Reached]] = {
    "rate": _rate,
    "kv_tokens": _kv_tokens,
    "overhead_s": _overhead_s,
    "bandwidth": _bandwidth,
    "servers": _servers,
    "output": _output,
}
"""All queries by name; the class is only for "output"."""


def _sums(workload: Workload, server: Server) -> dict[str, float]:
    """A_q per coefficient: what the linear terms of τ count, per second of arrivals."""
    totals = dict.fromkeys(
        (
            "per_token_s",
            "per_kv_token_s",
            "per_prefill_token_s",
            "per_decode_request_s",
            "per_prefill_token_sq_s",
        ),
        0.0,
    )
    for one in workload.classes:
        stages = class_stages(one, server)
        decodes, prompt = int(stages.decodes.sum()), stages.prefill_tokens
        counts = (
            prompt + decodes,
            int(stages.kv_tokens[stages.decodes].sum()),
            prompt,
            decodes,
            prompt**2,
        )
        for name, count in zip(totals, counts, strict=True):
            totals[name] += one.rate_per_s * count
    return totals


def _best_s(found: Stability, workload: Workload) -> float:
    """y*, the intake at the boundary."""
    return float(found.boundary_per_stage[0] / workload.classes[0].rate_per_s)


def _rate_difference(workload: Workload, server: Server, index: int) -> float:
    rate = workload.classes[index].rate_per_s

    def margin(factor: float) -> float:
        changed = _with_class(workload, index, rate_per_s=rate * factor)
        return stability(changed, server).margin

    return (margin(1 + _STEP) - margin(1 - _STEP)) / (2 * _STEP * rate)


def _memory_difference(workload: Workload, server: Server) -> float:
    """Over whole blocks; one-sided where one block less would not hold a request."""
    block, tokens = server.block_tokens, server.usable_kv_tokens
    step = max(1, round(_STEP * tokens / block)) * block

    def margin(capacity_tokens: int) -> float:
        changed = server.model_copy(update={"kv_capacity_tokens": capacity_tokens})
        return stability(workload, changed).margin

    try:
        lower, below = margin(tokens - step), step
    except InputError:
        lower, below = margin(tokens), 0
    return (margin(tokens + step) - lower) / (step + below)


def _with_class(workload: Workload, index: int, **changes: Any) -> Workload:
    classes = list(workload.classes)
    classes[index] = classes[index].model_copy(update=changes)
    return workload.model_copy(update={"classes": tuple(classes)})


def _with_output(workload: Workload, index: int, tokens: int) -> Workload:
    return _with_class(workload, index, decode_tokens=tokens)


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

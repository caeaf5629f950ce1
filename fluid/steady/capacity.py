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
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fluid.errors import InputError, not_a_name
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server, require_fits
from fluid.steady.certain import Having, certain_value
from fluid.steady.chunks import ChunkLimit, chunked, require_budget
from fluid.steady.derivatives import margin_derivatives
from fluid.steady.packing import packing
from fluid.steady.queries import QUERIES
from fluid.steady.stability import Binding, stability
from fluid.workload import Workload

_SEARCH_ACCURACY = 1e-5
"""A margin closer to 0 is none: with several jumps in f, α* has rival maxima beside each of them,
and the search for it is good to a few times 1e-6."""


@dataclass(frozen=True, repr=False)
class CapacityAnswer(Result):
    """Answer of one inverse query.

    Attributes:
        workload, server: What was asked about, unchanged.
        query: A name in `fluid.steady.queries.QUERIES`.
        value: The largest (or least) value with which the workload is still stable, in `unit`.
        today: The same quantity as the workload and the server have it.
        binding: "compute" or "memory": what stops it, at the answer (see `fluid.steady.stability`).
        margin: 1 − 1/α* at the answer: 0 but for whole numbers, where it is what rounding leaves.
        budget_tokens: Of the engine that chunks, where there is one; see `chunked`.
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
    budget_tokens: int | None = None

    @cached_property
    def chunked(self) -> ChunkLimit | None:
        """The limit with prompts in chunks; only of query "rate", as `value` is of whole ones."""
        if self.query != "rate":
            return None
        return chunked(self.workload, self.server, self.budget_tokens)

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
        chunks = self.chunked
        if chunks and (chunks.matters or self.budget_tokens):
            yield chunks.sentence(self.workload.rate_per_s)

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
            "chunked": self.chunked and self.chunked.document(self.workload.rate_per_s),
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


def capacity(
    workload: Workload,
    server: Server,
    query: str,
    class_name: str | None = None,
    *,
    budget_tokens: int | None = None,
) -> CapacityAnswer:
    """Answer an inverse query (THEORY 2.3, 2.5).

    Args:
        query: "rate" (largest total rate of this mix), "kv_tokens" (least KV memory, whole
            blocks), "overhead_s" (largest d0), "bandwidth" (largest c_kv), "servers" (fewest
            identical ones with the mix split evenly), "output" (longest output of a class).
        class_name: The class that "output" asks about; may be left out where there is only one.
        budget_tokens: Of an engine that computes prompts in chunks, for "rate": its limit is said
            beside that of whole prompts.

    Raises:
        InputError: Unknown query or class, or a request that does not fit (but for "kv_tokens").
        InfeasibleError: No value makes the workload stable; with the cause and the nearest change.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> print(fw.capacity(load, fw.Server.named("engine-long-decode"), "rate").sentence)
    This mix is stable up to 19.43 requests/s on engine-long-decode (today 7); compute binds there.
    """
    if query not in QUERIES:
        raise not_a_name("query", query, QUERIES)
    if class_name is not None and query != "output":
        raise InputError("class", class_name, "only with query output")
    if budget_tokens is not None and query != "rate":
        raise InputError("budget_tokens", budget_tokens, "only with query rate")
    require_budget(server, budget_tokens)
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
        budget_tokens=budget_tokens,
    )

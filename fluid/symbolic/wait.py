"""WAIT and Nested WAIT as symbols, derived from their rules (THEORY 3 and 4).

Put in: the full batch (n_j requests at every stage), the pace of a pipeline (one stage per n_j
arrivals), the stages of a segment, and the Chernoff equation of a boundary queue. Everything else —
drift conditions, their polyhedron, literal latencies, base memory, the θ equation and its bound —
follows by `sympy`. `fluid.symbolic.steady.numeric` compiles any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import sympy as sp

from fluid.symbolic.steady import CAPACITY, OVERHEAD, PROMPT, class_symbols, equilibrium_forms

Expr = Any
"""A sympy expression (sympy ships no types)."""

Convention = Literal["engine", "paper"]
"""Who emits the first token of a request: prefill, or the first decode (THEORY 1.2)."""

THETA, RATIO, SHARE = sp.symbols("theta r p", positive=True)
"""θ_k, r = n_k/n_{k−1} and p_k of one boundary (THEORY 4.5)."""

UPPER, LOWER = sp.symbols("n_k n_k-1", positive=True)
"""Thresholds on the two sides of a boundary."""

SCALED_HORIZON, DELTA = sp.symbols("zetaT delta", positive=True)
"""ζT and the probability δ of Theorem 2."""


@dataclass(frozen=True)
class WaitForms:
    """Closed forms of literal WAIT for m classes, in `class_symbols(m)`, `wait_symbols(m)` and d_0.

    Attributes:
        iteration_time: ΔT(n) (THEORY 3.2).
        memory: M(n).
        loads: λ_j ΔT(n)/n_j, at most 1 where drift holds; tuple of m.
        drift: Rows of the polyhedron, each ≤ 0 where drift holds and linear in n; tuple of m.
        least_thresholds: The solution of drift with equality, its smallest element: n* of 2.2.
        latency: L_j(n) of THEORY 3.5, tuple of m.
    """

    iteration_time: Expr
    memory: Expr
    loads: tuple[Expr, ...]
    drift: tuple[Expr, ...]
    least_thresholds: tuple[Expr, ...]
    latency: tuple[Expr, ...]


@dataclass(frozen=True)
class NestedForms:
    """Closed forms of Nested WAIT for L segments, in `segment_symbols(L)` (THEORY 4).

    Attributes:
        memory: Base memory M(n) (4.4).
        pair_conditions: p_k − n_k/n_{k−1}, below 0 where the boundary k drains; L − 1 of them.
        buffer: Safety buffer of Theorem 2 (4.5), in θ_k, ζT, δ and d_0.
    """

    memory: Expr
    pair_conditions: tuple[Expr, ...]
    buffer: Expr


@dataclass(frozen=True)
class SegmentSymbols:
    """Symbols of L segments: n_k, l'_k, Λ_k (L each) and θ_k (L − 1, from k = 2)."""

    thresholds: tuple[Expr, ...]
    outputs: tuple[Expr, ...]
    rates: tuple[Expr, ...]
    exponents: tuple[Expr, ...]


def wait_symbols(classes: int) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """Thresholds n_j and stage counts S_j of m classes."""
    thresholds = tuple(sp.symbols(f"n_1:{classes + 1}", positive=True))
    return thresholds, tuple(sp.symbols(f"S_1:{classes + 1}", positive=True))


def segment_symbols(segments: int) -> SegmentSymbols:
    """Positive symbols of L segments; n_k and θ_k real, l'_k whole."""
    ends = segments + 1
    return SegmentSymbols(
        thresholds=tuple(sp.symbols(f"n_1:{ends}", positive=True)),
        outputs=tuple(sp.symbols(f"l'_1:{ends}", positive=True, integer=True)),
        rates=tuple(sp.symbols(f"Lambda_1:{ends}", positive=True)),
        exponents=tuple(sp.symbols(f"theta_2:{ends}", positive=True)),
    )


def wait_forms(classes: int) -> WaitForms:
    """Derive literal WAIT for `classes` classes (THEORY 3.2, 3.5)."""
    known = class_symbols(classes)
    thresholds, stages = wait_symbols(classes)
    duration = OVERHEAD + sum(n * w for n, w in zip(thresholds, known.works, strict=True))
    each = list(zip(known.rates, thresholds, stages, strict=True))
    drift = tuple(sp.expand(rate * duration - n) for rate, n, _ in each)
    (least,) = sp.linsolve(list(drift), *thresholds)
    return WaitForms(
        iteration_time=duration,
        memory=sum(n * m for n, m in zip(thresholds, known.memory_sums, strict=True)),
        loads=tuple(rate * duration / n for rate, n, _ in each),
        drift=drift,
        least_thresholds=tuple(sp.factor(one) for one in least),
        latency=tuple(_latency(rate, n, count, duration) for rate, n, count in each),
    )


def margin_derivatives(classes: int) -> dict[str, Expr]:
    """∂margin/∂(each symbol) for margin = 1 − 1/α* of an affine server (THEORY 2.3), by name."""
    known = class_symbols(classes)
    margin = 1 - 1 / equilibrium_forms(classes).max_scale
    symbols = (*known.rates, *known.works, *known.memory_sums, OVERHEAD, CAPACITY)
    return {str(one): sp.factor(sp.diff(margin, one)) for one in symbols}


def nested_forms(segments: int, convention: Convention = "engine") -> NestedForms:
    """Derive Nested WAIT for `segments` segments; prompts of l tokens (THEORY 4.1–4.5)."""
    known = segment_symbols(segments)
    lengths = (sp.Integer(0), *known.outputs)
    memory = sum(
        n * _segment_kv(lengths[k], lengths[k + 1], first=k == 0, convention=convention)
        for k, n in enumerate(known.thresholds)
    )
    log = sp.log(segments * (1 + SCALED_HORIZON / OVERHEAD) / DELTA)
    buffer = sum(
        (PROMPT + known.outputs[k - 1]) * (known.thresholds[k] + log / known.exponents[k - 1])
        for k in range(1, segments)
    )
    pairs = tuple(
        known.rates[k] / known.rates[k - 1] - known.thresholds[k] / known.thresholds[k - 1]
        for k in range(1, segments)
    )
    return NestedForms(sp.expand(memory), pairs, buffer)


def theta_equation() -> Expr:
    """θ·r − ln(1 − p + p·e^θ), whose positive root is θ_k (THEORY 4.5).

    The logarithm of e^{−θ n_k}(1 − p + p e^θ)^{n_{k−1}} per request of the segment before: the two
    thresholds enter through r = n_k/n_{k−1} alone.
    """
    moment = 1 - SHARE + SHARE * sp.exp(THETA)
    exponent = sp.expand((-THETA * UPPER + LOWER * sp.log(moment)) / LOWER)
    return -exponent.subs(UPPER, RATIO * LOWER)


def theta_bound() -> Expr:
    """8(r − p): Hoeffding's ln(1 − p + p·e^θ) ≤ pθ + θ²/8 put into `theta_equation`, solved for θ.

    A lower bound, as the left side is replaced by less.
    """
    bounded = THETA * RATIO - (SHARE * THETA + THETA**2 / 8)
    positive = [one for one in sp.solve(sp.Eq(bounded, 0), THETA) if one != 0]
    return sp.factor(positive[0])


def latex_forms(classes: int, segments: int) -> dict[str, str]:
    """LaTeX of every form of this module."""
    wait, nested = wait_forms(classes), nested_forms(segments)
    return (
        {f"wait {one.name}": sp.latex(getattr(wait, one.name)) for one in fields(wait)}
        | {f"nested {one.name}": sp.latex(getattr(nested, one.name)) for one in fields(nested)}
        | {"theta_equation": sp.latex(sp.Eq(theta_equation(), 0))}
        | {"theta_bound": sp.latex(theta_bound())}
        | {
            f"margin by {name}": sp.latex(form)
            for name, form in margin_derivatives(classes).items()
        }
    )


def _latency(rate: Expr, threshold: Expr, stages: Expr, duration: Expr) -> Expr:
    """Collecting n arrivals, a stage per n arrivals, the last iteration, queueing (THEORY 3.5)."""
    position = sp.Symbol("i", integer=True, positive=True)
    # The i-th of n arrivals waits for the n − i that follow it, 1/λ apart.
    collecting = sp.summation((threshold - position) / rate, (position, 1, threshold)) / threshold
    arrivals = rate * duration
    queueing = arrivals / (2 * rate * (threshold - arrivals))
    return sp.simplify(collecting) + (stages - 1) * threshold / rate + duration + queueing


def _segment_kv(start: Expr, end: Expr, first: bool, convention: Convention) -> Expr:
    """Σ (l + s) over the stages of a segment that reaches from output `start` to `end`.

    Paper stages are 0 … l'_1 and l'_{k−1} + 1 … l'_k; in the engine convention, where prefill emits
    the first token, each but the first stage comes one earlier.
    """
    stage = sp.Symbol("s", integer=True)
    shift = 1 if convention == "engine" else 0
    lowest = sp.Integer(0) if first else start + 1 - shift
    return sp.summation(PROMPT + stage, (stage, lowest, end - shift))

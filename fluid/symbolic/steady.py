"""The fluid equilibrium as symbols: derived here from its balance equations, never transcribed.

Two equations are put in (THEORY 2): flow balance n_js = λ_j·ΔT for every stage s, and affine
iteration time ΔT = d0 + Σ n_js w_js. ΔT*, M*, the stability boundary and its half-space follow by
`sympy.solve`, stage sums by `sympy.summation`. `numeric` compiles any of them for arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import sympy as sp

Expr = Any
"""A sympy expression (sympy ships no types)."""

Convention = Literal["engine", "paper", "decode-only"]
"""Who emits the first token: prefill (engine), the first decode (paper), or no prefill at all."""

OVERHEAD, CAPACITY, SCALE = sp.symbols("d_0 C alpha", positive=True)
DURATION = sp.Symbol(r"\Delta T", positive=True)
PER_MEMORY = sp.Symbol("d_1", positive=True)
PROMPT, OUTPUT = sp.symbols("l l'", positive=True, integer=True)
TOKEN, KV, PREFILL, DECODE, SQUARE = sp.symbols("c_f c_kv c_pre c_seq c_sq", nonnegative=True)


@dataclass(frozen=True)
class ClassSymbols:
    """Symbols of m classes, each a tuple of m: λ_j, w_j, m_j and l'_j."""

    rates: tuple[Expr, ...]
    works: tuple[Expr, ...]
    memory_sums: tuple[Expr, ...]
    outputs: tuple[Expr, ...]


@dataclass(frozen=True)
class EquilibriumForms:
    """Closed forms for m classes in the symbols of `class_symbols(m)`, d_0 and C.

    Attributes:
        iteration_time: ΔT* (THEORY 2.2).
        inventory: n*_j, tuple of m.
        memory: M*.
        max_scale: α*, where the memory of the α-fold rates reaches C (THEORY 2.3).
        half_space: a_j with Σ λ_j a_j ≤ 1, tuple of m.
        throughput: Output tokens per second (THEORY 2.4).
    """

    iteration_time: Expr
    inventory: tuple[Expr, ...]
    memory: Expr
    max_scale: Expr
    half_space: tuple[Expr, ...]
    throughput: Expr


def class_symbols(classes: int) -> ClassSymbols:
    """Positive symbols λ_j, w_j, m_j, l'_j for j = 1 … classes."""

    def family(name: str) -> tuple[Expr, ...]:
        return tuple(sp.symbols(f"{name}_1:{classes + 1}", positive=True))

    return ClassSymbols(family("lambda"), family("w"), family("m"), family("l'"))


def memory_sum(convention: Convention) -> Expr:
    """m = Σ_s (l + s) over the stages, with l the KV before the first decode (THEORY 2, 5.5)."""
    return sp.factor(_stage_sum(lambda stage: PROMPT + stage, convention, _first_stage(convention)))


def work(convention: Convention) -> Expr:
    """w = Σ_s w_s for f of slope c_f and every linear term of THEORY 1.3, seconds."""
    prefill = (TOKEN + PREFILL) * PROMPT + SQUARE * PROMPT**2
    decodes = _stage_sum(lambda stage: TOKEN + DECODE + KV * (PROMPT + stage), convention, 1)
    return sp.expand(decodes if convention == "decode-only" else prefill + decodes)


def balance_equations(classes: int) -> tuple[tuple[Expr, ...], Expr]:
    """All that is put in: flow balance n_j = λ_j·ΔT of each class, and ΔT = d0 + Σ n_j w_j.

    In a balanced state every stage of class j holds the same n_j, as what leaves a stage enters the
    next one; n_j w_j is what all stages of the class together add to an iteration.
    """
    known = class_symbols(classes)
    inventory = sp.symbols(f"n_1:{classes + 1}", positive=True)
    flows = tuple(sp.Eq(n, rate * DURATION) for n, rate in zip(inventory, known.rates, strict=True))
    load = sum(n * one for n, one in zip(inventory, known.works, strict=True))
    return flows, sp.Eq(DURATION, OVERHEAD + load)


def equilibrium_forms(classes: int) -> EquilibriumForms:
    """Solve the balance equations for `classes` classes (THEORY 2.2–2.4)."""
    known = class_symbols(classes)
    flows, time = balance_equations(classes)
    balance = time.subs({flow.lhs: flow.rhs for flow in flows})
    (iteration_time,) = sp.solve(balance, DURATION)
    inventory = tuple(rate * iteration_time for rate in known.rates)
    memory = sum(n * m for n, m in zip(inventory, known.memory_sums, strict=True))
    tokens = sum(n * out for n, out in zip(inventory, known.outputs, strict=True))
    max_scale = _boundary_scale(memory, known)
    return EquilibriumForms(
        iteration_time=_readable(iteration_time),
        inventory=tuple(_readable(one) for one in inventory),
        memory=_readable(memory),
        max_scale=max_scale,
        half_space=tuple(sp.expand(sp.diff(sp.expand(1 / max_scale), r)) for r in known.rates),
        throughput=sp.expand(sp.simplify(tokens / iteration_time)),
    )


def paper_memory() -> Expr:
    """M* = d0·X/(1 − d1·X) of arXiv 2504.11320, X = Σ λ_j m_j: one class with w = d1·m."""
    return _readable(_paper_memory(sp.Symbol("X", positive=True)))


def paper_load_limit() -> Expr:
    """The X at which `paper_memory` reaches C: C/(d0 + d1·C) (THEORY 2.3)."""
    load = sp.Symbol("X", positive=True)
    (limit,) = sp.solve(sp.Eq(_paper_memory(load), CAPACITY), load)
    return sp.factor(limit)


def numeric(arguments: Any, expression: Expr) -> Callable[..., Any]:
    """Compile an expression; `arguments` is a list of symbols or of tuples of symbols."""
    compiled: Callable[..., Any] = sp.lambdify(arguments, expression, modules="numpy")
    return compiled


def latex_forms(classes: int) -> dict[str, str]:
    """LaTeX of every field of `equilibrium_forms`, of stage sums and of the paper's model."""
    forms = equilibrium_forms(classes)
    conventions: tuple[Convention, ...] = ("engine", "paper", "decode-only")
    return (
        {one.name: sp.latex(getattr(forms, one.name)) for one in fields(forms)}
        | {f"memory_sum {one}": sp.latex(memory_sum(one)) for one in conventions}
        | {f"work {one}": sp.latex(work(one)) for one in conventions}
        | {"paper_memory": sp.latex(paper_memory())}
        | {"paper_load_limit": sp.latex(paper_load_limit())}
    )


def _readable(expression: Expr) -> Expr:
    """The fraction with a denominator of the form 1 − …, as it is written by hand."""
    numerator, denominator = sp.fraction(sp.factor(expression))
    return -numerator / sp.expand(-denominator)


def _first_stage(convention: Convention) -> int:
    return 1 if convention == "decode-only" else 0


def _stage_sum(term: Callable[[Expr], Expr], convention: Convention, first: int) -> Expr:
    """Σ term(s) from stage `first` to the last one of the convention (THEORY 1.2)."""
    stage = sp.Symbol("s", integer=True)
    last = OUTPUT - 1 if convention == "engine" else OUTPUT
    return sp.summation(term(stage), (stage, first, last))


def _boundary_scale(memory: Expr, known: ClassSymbols) -> Expr:
    """α* from M*(α·λ) = C."""
    scaled = memory.subs({rate: SCALE * rate for rate in known.rates}, simultaneous=True)
    (scale,) = sp.solve(sp.Eq(scaled, CAPACITY), SCALE)
    return scale


def _paper_memory(load: Expr) -> Expr:
    forms, known = equilibrium_forms(1), class_symbols(1)
    rate, memory = known.rates[0], known.memory_sums[0]
    paper = forms.memory.subs(known.works[0], PER_MEMORY * memory)
    return paper.subs(rate, load / memory)

"""Latencies of one class on an affine server as symbols, twice (THEORY 9.1 and 2.7).

Put in for 9.1: τ_n = d0 + Σ_u a_u A_{n−u}, and A_n, the prompts of iteration n, Poisson(λ τ_{n−1})
given the past. Balance of mean and of covariances then gives the moments of the chain, and with
them TTFT and TPOT. Put in for 2.7: the response r_u to one more request, whose squares are summed
as the solution of a Lyapunov equation. The two share no step; they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import sympy as sp

from fluid.symbolic.steady import OVERHEAD

Expr = Any
"""A sympy expression (sympy ships no types)."""

RATE = sp.Symbol("lambda", positive=True)


@dataclass(frozen=True)
class LatencyForms:
    """Closed forms in λ, d_0 and `added_symbols(stages)`; prefill emits the first token.

    Attributes:
        iteration_time: E τ.
        iteration_variance: Var τ, γ_0.
        decodes: E B, decoding requests of an iteration.
        ttft: Mean time from arrival to the first token.
        tpot: Mean time between tokens; None with one stage.
        latency: Mean time from arrival to completion.
    """

    iteration_time: Expr
    iteration_variance: Expr
    decodes: Expr
    ttft: Expr
    tpot: Expr | None
    latency: Expr


def added_symbols(stages: int) -> tuple[Expr, ...]:
    """a_0, a_1, …: seconds that a request adds to each of its stages."""
    return tuple(sp.symbols(f"a_0:{stages}", positive=True))


def chain_forms(stages: int) -> LatencyForms:
    """Means by THEORY 9.1, from the moments of the chain of iterations.

    TTFT is E[τ_0 (τ_0/2 + E(τ_1 | τ_0, one more))]/μ: an arrival sees an iteration in proportion to
    its length, waits for half of it, and adds a_0 to the next one. Each later iteration is longer
    by its covariance with the prompts of the class, per prompt.
    """
    added = added_symbols(stages)
    mean = _mean_time(added)
    of_prompts = _prompt_covariances(added, mean)
    own = [
        sum(a * of_prompts(abs(lag - u)) for u, a in enumerate(added)) for lag in range(stages + 1)
    ]
    of_times = [
        sum(
            a * sum(b * of_prompts(abs(lag - u + v)) for v, b in enumerate(added))
            for u, a in enumerate(added)
        )
        for lag in range(2)
    ]
    square, successive = mean**2 + of_times[0], mean**2 + of_times[1]
    ttft = (square / 2 + successive + mean * added[0]) / mean
    later = stages - 1
    rest = later * mean + sum(own[lag] for lag in range(1, stages)) / (RATE * mean)
    return _forms(mean, of_times[0], later, ttft, rest)


def response_forms(stages: int) -> LatencyForms:
    """Means by THEORY 2.7, from the response of later iterations to one more request."""
    added = added_symbols(stages)
    mean = _mean_time(added)
    response, covariance = _responses(added, mean, stages)

    def through(k: int) -> Expr:
        spread = covariance[0] / 2 + sum(covariance[1 : k + 1])
        return (k + sp.Rational(1, 2)) * mean + sum(response[:k]) + spread / mean

    ttft = through(1)
    return _forms(mean, covariance[0], stages - 1, ttft, through(stages) - ttft)


def latency_latex(stages: int) -> dict[str, str]:
    """LaTeX of every field of `chain_forms`."""
    forms = chain_forms(stages)
    return {one.name: sp.latex(getattr(forms, one.name)) for one in fields(forms)}


def _forms(mean: Expr, variance: Expr, later: int, ttft: Expr, rest: Expr) -> LatencyForms:
    return LatencyForms(
        iteration_time=mean,
        iteration_variance=sp.factor(variance),
        decodes=sp.factor(mean * RATE * later),
        ttft=sp.factor(ttft),
        tpot=sp.factor(rest / later) if later else None,
        latency=sp.factor(ttft + rest),
    )


def _mean_time(added: tuple[Expr, ...]) -> Expr:
    """E τ from E τ = d0 + Σ a_u λ E τ."""
    mean = sp.Symbol("mu", positive=True)
    (found,) = sp.solve(sp.Eq(mean, OVERHEAD + sum(added) * RATE * mean), mean)
    return found


def _prompt_covariances(added: tuple[Expr, ...], mean: Expr) -> Any:
    """Cov(A_n, A_{n−k}) as a function of k ≥ 0, from the balance of second moments.

    For k > 0 given the past, Cov(A_n, A_{n−k}) = λ Σ_u a_u Cov(A_{n−1−u}, A_{n−k}); the variance of
    A is that of a Poisson number with a mean that varies.
    """
    stages = len(added)
    unknown = sp.symbols(f"c_0:{stages}")

    def lagged(k: int) -> Expr:
        return RATE * sum(a * unknown[abs(k - 1 - u)] for u, a in enumerate(added))

    of_time = sum(
        a * b * unknown[abs(u - v)] for u, a in enumerate(added) for v, b in enumerate(added)
    )
    equations = [unknown[0] - RATE * mean - RATE**2 * of_time]
    equations += [unknown[k] - lagged(k) for k in range(1, stages)]
    (solution,) = sp.linsolve(equations, unknown)
    known = [sp.factor(one) for one in solution]

    def covariance(k: int) -> Expr:
        while len(known) <= k:
            past = [known[abs(len(known) - 1 - u)] for u in range(stages)]
            known.append(sp.factor(RATE * sum(a * c for a, c in zip(added, past, strict=True))))
        return known[k]

    return covariance


def _responses(added: tuple[Expr, ...], mean: Expr, last: int) -> tuple[list[Expr], list[Expr]]:
    """r_0 … r_last, and γ_0 … γ_last with γ_s = μ λ Σ_u r_u r_{u+s}.

    The last `stages` prompts are the state: x_{u+1} = M x_u, and r_u = a·x_u. Σ_u x_u x_uᵀ solves
    X = M X Mᵀ + x_0 x_0ᵀ.
    """
    stages = len(added)
    row = sp.Matrix([added])
    move = sp.zeros(stages)
    move[0, :] = RATE * row
    for k in range(1, stages):
        move[k, k - 1] = 1
    start = sp.Matrix([1] + [0] * (stages - 1))
    names = {(i, j): sp.Symbol(f"x_{i}{j}") for i in range(stages) for j in range(i, stages)}
    held = sp.Matrix(stages, stages, lambda i, j: names[min(i, j), max(i, j)])
    balance = held - move * held * move.T - start * start.T
    (solution,) = sp.linsolve([balance[i, j] for i, j in names], list(names.values()))
    held = held.subs(dict(zip(names.values(), solution, strict=True)))
    response, covariance, moved = [], [], sp.eye(stages)
    for _ in range(last + 1):
        response.append((row * moved * start)[0])
        covariance.append(sp.factor(mean * RATE * (row * moved * held * row.T)[0]))
        moved = move * moved
    return response, covariance

"""Whole thresholds for literal Nested WAIT, with the safety buffer of Theorem 2 (THEORY 4).

For given cuts a geometric program (`program`) bounds the objective, and a descent over whole
thresholds finishes on the exact one: θ_k as the root of its equation, drift on the server's own
iteration time. Cuts come from the dynamic program of `design`.
"""

from __future__ import annotations

import math

import numpy as np

from fluid.errors import InputError
from fluid.steady.equilibrium import Equilibrium
from thresholds.problem import Problem
from thresholds.solvers.common import (
    FOLLOWED_BY,
    condition,
    new_table,
    predicted,
    require_certified,
    stability_condition,
)
from thresholds.solvers.nested.cuts import (
    MOST_SEGMENTS,
    WholeOptimum,
    best_over_cuts,
    with_program,
)
from thresholds.solvers.nested.infeasible import infeasible
from thresholds.solvers.nested.requirement import STRICT, mean_latency_s, nested_memory, ratios
from thresholds.solvers.nested.segments import Segments, distinct_lengths
from thresholds.table import Condition, Memory, SolverReport, ThresholdTable


def solve_nested(problem: Problem, found: Equilibrium) -> ThresholdTable:
    """Whole thresholds n_k for literal Nested WAIT.

    Raises:
        InputError: A probability, horizon or number of segments out of range.
        InfeasibleError: No whole thresholds satisfy drift, the chain and memory with its buffers.
    """
    check_nested(problem)
    lengths = distinct_lengths(problem.workload, problem.server, problem.prompts)
    best = best_over_cuts(problem, lengths)
    if not np.isfinite(best.value):
        raise infeasible(problem, lengths, best)
    best = with_program(problem, best)
    segments, n = best.segments, best.thresholds
    memory = nested_memory(n, segments, best.log)
    certificate = _certificate(found, best)
    require_certified(certificate)
    latency_s = float(mean_latency_s(n, segments))
    # Weighted prompts are means: no path is bounded by them.
    bounded = problem.prompts == "worst" or not segments.prompts_differ
    return new_table(
        problem,
        params={},
        thresholds=[int(one) for one in n],
        cuts=[int(one) for one in segments.cuts],
        memory=Memory(
            required_tokens=float(memory.base),
            buffer_tokens=float(memory.buffer),
            capacity_tokens=problem.server.usable_kv_tokens,
            overflow_probability=_overflow_probability(problem, segments) if bounded else None,
            stochastic_buffer_tokens=float(memory.stochastic_buffer),
            horizon_s=problem.horizon_s,
        ),
        predicted=predicted(found, latency_s),
        max_rate_per_s=(1 - STRICT) / float(segments.load(n)) * problem.workload.rate_per_s,
        certificate=certificate,
        solver=_report(best),
        notes=(*_notes(problem, found, best, bounded), *found.caveats),
    )


def check_nested(problem: Problem) -> None:
    """Refuse parameters of the nested policies that make no sense.

    Raises:
        InputError: Naming the parameter.
    """
    if not 0 < problem.overflow_probability < 1:
        allowed = "a probability above 0 and below 1"
        raise InputError("overflow_probability", problem.overflow_probability, allowed)
    if not 0 < problem.horizon_s < math.inf:
        raise InputError("horizon_s", problem.horizon_s, "seconds > 0")
    outputs = len({one.decode_tokens for one in problem.workload.classes})
    most = min(MOST_SEGMENTS, outputs)
    if problem.segments is not None and not 1 <= problem.segments <= most:
        allowed = f"1 to {most} for {outputs} distinct output lengths"
        raise InputError("segments", problem.segments, allowed)
    if problem.prompts not in ("worst", "weighted"):
        raise InputError("prompts", problem.prompts, "worst or weighted")


def _overflow_probability(problem: Problem, segments: Segments) -> float:
    """δ; 0 for one segment, which has no boundary, so that M(n) bounds every path (THEORY 3.7)."""
    return problem.overflow_probability if segments.count > 1 else 0.0


def _certificate(found: Equilibrium, best: WholeOptimum) -> tuple[Condition, ...]:
    segments, n = best.segments, best.thresholds
    chain = []
    for k, (p, r) in enumerate(zip(segments.survivals, ratios(n), strict=True), start=2):
        chain.append(condition(f"boundary {k}: p_k < n_k/n_k−1", float(p), float(r), strict=True))
        chain.append(condition(f"boundary {k}: n_k/n_k−1 < 1", float(r), 1.0, strict=True))
    needed = float(nested_memory(n, segments, best.log).total)
    return (
        stability_condition(found),
        condition("drift: Λ_1 ΔT(n)/n_1 < 1", float(segments.load(n)), 1.0, strict=True),
        *chain,
        condition("memory: M(n) + buffers ≤ C", needed, segments.server.usable_kv_tokens),
    )


def _report(best: WholeOptimum) -> SolverReport:
    gap = None
    if best.bound is not None:
        # Where the real optimum is whole, solver accuracy can leave the bound 1e-9 above it.
        gap = max(0.0, (best.value - best.bound) / best.bound)
    return SolverReport(
        name="geometric program (Clarabel), exact θ, descent over whole thresholds",
        status="feasible" if gap is None else "feasible, with a bound for these cuts",
        objective=best.value,
        optimality_gap=gap,
    )


def _notes(
    problem: Problem, found: Equilibrium, best: WholeOptimum, bounded: bool
) -> tuple[str, ...]:
    notes = ["no flag of a serving system expresses literal Nested WAIT; " + FOLLOWED_BY]
    latency_s = float(mean_latency_s(best.thresholds, best.segments))
    if found.latency_s is not None:
        notes.append(
            "literal Nested WAIT waits for n_1 arrivals and at every boundary: its predicted mean "
            f"latency {latency_s:.3g} s is {latency_s / found.latency_s:.2f} times that of "
            f"work-conserving service, {found.latency_s:.3g} s"
        )
    if not bounded:
        notes.append(
            "prompts differ and are counted by their weighted mean: no overflow probability is "
            "known (use prompts worst for the bound of Theorem 2)"
        )
    outputs = len({one.decode_tokens for one in problem.workload.classes})
    if best.segments.count < outputs:
        notes.append(
            "cuts are the best for thresholds in proportion to a power of the entry rates (exact "
            "dynamic program), not jointly with these thresholds"
        )
    if best.bound is None:
        notes.append(
            "every condition is checked on the server's own iteration time, but no bound on the "
            "optimality of these thresholds is known (iteration time not concave in tokens, or "
            "the geometric program not solved accurately)"
        )
    return tuple(notes)

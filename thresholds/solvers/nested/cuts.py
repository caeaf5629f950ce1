"""Whole thresholds of Nested WAIT over cuts: the best L, the best cuts, the best n_k on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from thresholds.problem import Problem
from thresholds.solvers.nested.design import Design, best_designs, designs_over_rules, refined
from thresholds.solvers.nested.requirement import STRICT, Floats, log_term
from thresholds.solvers.nested.search import aim_of, best_whole, chains, repaired
from thresholds.solvers.nested.segments import Lengths, Segments, distinct_lengths

MOST_SEGMENTS = 32
"""Largest L that is looked at where none is given."""

_PATIENCE = 3
"""So many L in a row without improvement end the search over L."""

_RAYS = np.geomspace(0.5, 3, 200)
"""The geometric program's optimum times these, rounded, are starts of the descent."""


@dataclass(frozen=True)
class WholeOptimum:
    """Best whole thresholds on given cuts.

    Attributes:
        log: K of THEORY 4.5 for these segments.
        thresholds: n_k, shape (L,).
        value: The objective there: seconds, tokens or load; infinite where nothing is allowed.
        bound: What no thresholds on these cuts can beat, None where that is not known.
    """

    segments: Segments
    log: float
    thresholds: Floats
    value: float
    bound: float | None = None


def candidate_designs(problem: Problem, lengths: Lengths) -> dict[int, Design]:
    """Designs by L from the dynamic program, for every L that the problem allows."""
    most = min(MOST_SEGMENTS, len(lengths.outputs))
    if problem.segments is not None:
        most = problem.segments
    return designs_over_rules(lengths, nested_log(problem, most), most)


def buffer_decomposition(problem: Problem) -> tuple[Design, ...]:
    """Requirement by part against L (THEORY 5.2): base memory falls with L and the buffers grow.

    One rule for all L, that of the design of least requirement with which drift holds, so that the
    L alone differ. Empty where drift holds for no design.
    """
    lengths = distinct_lengths(problem.workload, problem.server, problem.prompts)
    most = min(MOST_SEGMENTS, len(lengths.outputs))
    log = nested_log(problem, most)
    designs = designs_over_rules(lengths, log, most).values()
    if not designs:
        return ()
    best = min(designs, key=lambda one: one.requirement_tokens)
    return best_designs(lengths, log, best.rule, most)


def nested_log(problem: Problem, segments: int) -> float:
    """K of THEORY 4.5 for so many segments."""
    overhead_s = problem.server.iteration_time.overhead_s
    return log_term(segments, problem.horizon_s, overhead_s, problem.overflow_probability)


def best_over_cuts(problem: Problem, lengths: Lengths) -> WholeOptimum:
    """The best L that is allowed; its value is infinite where nothing is feasible."""
    every = np.arange(len(lengths.outputs))
    if problem.segments == len(every) or len(every) == 1:
        return _whole(problem, lengths.segments(every))
    designs = candidate_designs(problem, lengths)
    if problem.segments is not None:
        designs = {k: one for k, one in designs.items() if k == problem.segments}
    if not designs:
        return _whole(problem, lengths.segments(even_cuts(lengths, problem.segments)))
    found = _until_worse(problem, designs.values())
    design = designs[found.segments.count]
    better = refined(design, lengths, nested_log(problem, len(design.ends)))
    if better is design:
        return found
    return min(found, _whole(problem, better.segments), key=lambda one: one.value)


def _until_worse(problem: Problem, designs: Iterable[Design]) -> WholeOptimum:
    """Whole thresholds on the cuts of each design, from few segments on, while that may help."""
    best: WholeOptimum | None = None
    since = 0
    for design in designs:
        found = _whole(problem, design.segments)
        since += 1
        if best is None or found.value < best.value:
            best, since = found, 0
        if since >= _PATIENCE and np.isfinite(best.value):
            break
    assert best is not None
    return best


def even_cuts(lengths: Lengths, count: int | None) -> np.ndarray:
    """Where the dynamic program has no answer: as many lengths in each segment."""
    m = len(lengths.outputs)
    ends = np.linspace(0, m, (count or min(m, MOST_SEGMENTS)) + 1)[1:]
    return np.ceil(ends - 1e-9).astype(np.int64) - 1


def _whole(problem: Problem, segments: Segments) -> WholeOptimum:
    """The best whole thresholds that the descent finds without the geometric program."""
    log = nested_log(problem, segments.count)
    starts, aim = chains(segments), aim_of(problem.objective, segments, log)
    thresholds, value = best_whole(aim, starts)
    if math.isinf(value):
        least, _ = best_whole(aim_of("memory", segments, log), starts)
        thresholds, value = best_whole(aim, least[None])
    limits = {"slack": 1 - STRICT, "memory": float(problem.server.usable_kv_tokens)}
    if value > limits.get(problem.objective, math.inf):
        value = math.inf
    return WholeOptimum(segments, log, thresholds, value)


def with_program(problem: Problem, best: WholeOptimum) -> WholeOptimum:
    """The same with the bound of the geometric program, and its optimum as one more start."""
    from thresholds.solvers.nested.program import relaxed_optimum  # cvxpy is slow to import

    relaxed = relaxed_optimum(best.segments, best.log, problem.objective)
    if relaxed is None:
        return best
    rays = relaxed.thresholds * _RAYS[:, None]
    starts = np.vstack([best.thresholds, repaired(rays, best.segments)])
    aim = aim_of(problem.objective, best.segments, best.log)
    thresholds, value = best_whole(aim, starts)
    bound = relaxed.value if relaxed.is_bound else None
    return WholeOptimum(best.segments, best.log, thresholds, value, bound)

"""Cuts and thresholds of Nested WAIT together, for any objective, feasibility included.

A design is feasible if drift and the chain of THEORY 4.3 hold and its memory with the buffers of
4.5 fits, whatever the objective: if and only if the least memory of all designs does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from thresholds.solvers.nested.cuts import CutSearch, WholeOptimum, known_design, whole_on
from thresholds.solvers.nested.goals import LOADS
from thresholds.solvers.nested.graph import graph_of
from thresholds.solvers.nested.optimum import (
    Design,
    Optimum,
    Problem,
    compile_kernels,
    optimum,
)
from thresholds.solvers.nested.requirement import STRICT
from thresholds.solvers.nested.segments import Floats, Integers, distinct_lengths

MOST_LENGTHS = 400
"""With more distinct lengths only so many are candidates for cuts, and no bound is known."""

_LADDER = 4.0 ** np.arange(6)
"""Multiples of the memory up to which the least requirement is looked for."""


def best_design(search: CutSearch, time_limit_s: float) -> WholeOptimum:
    """The best design with a bound on all designs.

    Where none is feasible, that of least memory for which drift holds, with an infinite value; its
    `bound` is then one on the memory of all designs, None where drift holds for none.
    """
    _compiled()
    deadline_s = time.perf_counter() + time_limit_s
    kept = search.lengths.spread(MOST_LENGTHS)
    if len(kept) == len(search.lengths.outputs):
        return _best_design(search, deadline_s)
    coarse = replace(search, lengths=search.lengths.merged(kept))
    found = _best_design(coarse, deadline_s)
    return replace(found, ends=kept[found.ends], bound=None)


def _best_design(search: CutSearch, deadline_s: float) -> WholeOptimum:
    known = known_design(search)
    if search.objective == "memory" or not known.value <= _limit(search):
        least = least_memory(search, deadline_s)
        if not least.value <= search.server.usable_kv_tokens:
            return replace(least, value=np.inf)
        if search.objective == "memory":
            return least
        known = whole_on(search, least.ends, least.thresholds)
    return _improved(search, known, deadline_s)


def _limit(search: CutSearch) -> float:
    """The largest value of a feasible design."""
    return 1 - STRICT if search.objective in LOADS else float(np.finfo(float).max)


def is_feasible(search: CutSearch, time_limit_s: float) -> bool:
    """Whether a feasible design is found within so many seconds."""
    search = replace(search, objective="latency")
    if np.isfinite(known_design(search).value):
        return True
    least = best_design(replace(search, objective="memory"), time_limit_s)
    return bool(np.isfinite(least.value))


def least_memory(search: CutSearch, deadline_s: float) -> WholeOptimum:
    """The design of least memory for which drift holds; infinite where none was found."""
    search = replace(search, objective="memory")
    known = known_design(search)
    if np.isfinite(known.value):
        return _improved(search, known, deadline_s)
    if least_load(search) >= 1 - STRICT:
        return replace(known, bound=None)
    found = Optimum(None, np.inf, 0.0)
    for factor in _LADDER:
        below = factor * float(search.server.usable_kv_tokens) * (1 + STRICT)
        found = optimum(_problem(search, deadline_s), below)
        if found.design is not None:
            break
    return _as_whole(search, found, known)


def least_load(search: CutSearch) -> float:
    """Below the load Λ_1 ΔT(n)/n_1 of every design, the limit of large n_k near n_1 Λ_k/Λ_1."""
    lengths = search.lengths
    tau, graph = lengths.server.iteration_time, graph_of(lengths, counts_waiting=False)
    knots = np.array(tau.tokens_knots)
    seconds = np.array(tau.seconds_knots)
    token_s = min([tau.last_slope_s, *(seconds[knots > 0] / knots[knots > 0])])
    costs = lengths.rates_per_s[:, None] * (token_s * graph.tokens + graph.work_s)
    m = len(costs)
    least = np.append(0.0, np.full(m, np.inf))
    reached = least.copy()
    for _ in range(search.segments or m):
        least = np.append(np.inf, [(least[: i + 1] + costs[: i + 1, i]).min() for i in range(m)])
        reached = np.minimum(reached, least)
    return float(least[m] if search.segments else reached[m])


def _improved(search: CutSearch, known: WholeOptimum, deadline_s: float) -> WholeOptimum:
    design = Design(known.ends, known.thresholds)
    found = optimum(_problem(search, deadline_s), known.value, design)
    return _as_whole(search, found, known)


def _problem(search: CutSearch, deadline_s: float) -> Problem:
    def polish(ends: Integers, thresholds: Floats) -> tuple[Floats, float]:
        found = whole_on(search, ends, thresholds)
        return found.thresholds, found.value

    counts = range(1, len(search.lengths.outputs) + 1)
    if search.segments:
        counts = range(search.segments, search.segments + 1)
    return Problem(search.lengths, search.objective, search.log, counts, polish, deadline_s)


def _as_whole(search: CutSearch, found: Optimum, known: WholeOptimum) -> WholeOptimum:
    if found.design is None:
        return replace(known, bound=found.bound)
    ends = found.design.ends
    segments = search.lengths.segments(ends)
    return WholeOptimum(
        ends=ends,
        segments=segments,
        log=search.log(segments.count),
        thresholds=found.design.thresholds,
        value=found.value,
        bound=found.bound,
    )


@cache
def _compiled() -> None:
    """Compile the kernels before any clock runs."""
    classes = tuple(
        RequestClass(name=str(k), rate_per_s=1.0, prefill_tokens=1, decode_tokens=k) for k in (1, 2)
    )
    server = Server(
        name="any",
        source="none",
        kv_capacity_tokens=100,
        iteration_time=IterationTime.affine(0.01),
    )
    lengths = distinct_lengths(Workload(name="any", classes=classes), server)
    compile_kernels(_problem(CutSearch(lengths, segments=2), np.inf))

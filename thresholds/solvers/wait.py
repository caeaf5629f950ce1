"""Whole thresholds for literal WAIT (THEORY 3.1, 3.2, 3.5; arXiv 2504.11320 Thm 1).

A geometric program gives the optimum over real thresholds; rounding and a descent over whole steps
finish on the true objective, with drift and memory checked on the server's own iteration time.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluid.equilibrium import Equilibrium
from fluid.errors import InfeasibleError, InputError
from fluid.workload import Workload
from thresholds.batch import STRICT, FullBatch, full_batch
from thresholds.problem import Problem
from thresholds.solvers.common import (
    condition,
    new_table,
    predicted,
    require_certified,
    rounded_down,
    stability_condition,
)
from thresholds.table import (
    Condition,
    Memory,
    SolverReport,
    ThresholdTable,
)

if TYPE_CHECKING:
    from thresholds.solvers.wait_gp import Relaxed

Floats = NDArray[np.float64]

_MANY_CLASSES = 10
"""Up to so many classes every combination of floor and ceiling, and of two steps, is tried."""

_GRID = 200
"""Iteration times for which starting points are made."""


def solve_wait(problem: Problem, found: Equilibrium) -> ThresholdTable:
    """Thresholds n_j that minimise the mean latency of literal WAIT.

    Raises:
        InputError: Output lengths are not known to the scheduler.
        InfeasibleError: No whole thresholds satisfy drift strictly and memory.
    """
    from thresholds.solvers import wait_gp  # cvxpy is slow to import

    workload, server = problem.workload, problem.server
    if not workload.decode_known:
        allowed = "true: wait sorts requests by output length; use policy paced"
        raise InputError("decode_known", False, allowed)
    batch = full_batch(workload, server)
    least = _require_feasible(batch)
    relaxed = wait_gp.relaxed_optimum(batch)
    starts = [least[None], _balanced(batch)]
    if relaxed is not None:
        starts.append(_roundings(relaxed.thresholds, batch))
    thresholds, latency_s = best_whole_thresholds(batch, np.vstack(starts))
    certificate = _certificate(workload, batch, found, thresholds)
    require_certified(certificate)
    report = _report(f"geometric program ({wait_gp.SOLVER})", relaxed, latency_s)
    return new_table(
        problem,
        params={},
        thresholds=[int(n) for n in thresholds],
        memory=_memory(batch, thresholds),
        predicted=predicted(found, latency_s),
        max_rate_per_s=(1 - STRICT) / float(batch.loads(thresholds).max()) * workload.rate_per_s,
        certificate=certificate,
        solver=report,
        notes=(*_notes(found, latency_s, report), *found.caveats),
    )


def best_whole_thresholds(batch: FullBatch, starts: Floats) -> tuple[Floats, float]:
    """Best feasible start (k, m), then steps in up to two classes at once while they help.

    Returns the thresholds, shape (m,), and their mean latency in seconds; at least one start must
    be feasible.
    """
    best, best_s = _best(batch, starts)
    moves = _moves(len(best), float(best.max()))
    while True:
        better, better_s = _best(batch, best + moves)
        if better_s >= best_s:
            return best, best_s
        best, best_s = better, better_s


def _best(batch: FullBatch, candidates: Floats) -> tuple[Floats, float]:
    """The feasible candidate (k, m) of least mean latency; infinite where none is feasible."""
    whole = np.maximum(candidates, 1)
    latencies_s = np.where(batch.feasible(whole), batch.mean_latency_s(whole), np.inf)
    chosen = int(np.argmin(latencies_s))
    return whole[chosen], float(latencies_s[chosen])


def _moves(classes: int, largest: float) -> Floats:
    """Steps of ±1, ±2, ±4, … ≤ `largest` in one class, and of two classes together, shape (k, m).

    Near a drift boundary one more request of a slow class needs several more of a fast one, and no
    single step on the way helps. With many classes only steps of ±1 are paired.
    """
    sizes = 2.0 ** np.arange(math.floor(math.log2(largest)) + 1)
    single = np.kron(np.concatenate([sizes, -sizes])[:, None], np.eye(classes))
    paired = single if classes <= _MANY_CLASSES else np.vstack([np.eye(classes), -np.eye(classes)])
    first, second = np.triu_indices(len(paired), k=1)
    distinct = first % classes != second % classes
    return np.vstack([single, paired[first[distinct]] + paired[second[distinct]]])


def _balanced(batch: FullBatch) -> Floats:
    """For each ΔT on a grid the thresholds that would be best if ΔT were given, shape (k, m).

    The latency is then a sum over classes, with its minimum at
    n_j = μ_j + (μ_j/(2·(S_j − ½ + w_j Σ λ)))^½, μ_j = λ_j ΔT.
    """
    rates = batch.rates_per_s
    full_s = batch.server.usable_kv_tokens / float(rates @ batch.memory_tokens)
    least_s = batch.server.iteration_time.overhead_s
    work_s = batch.work_seconds(batch.server.iteration_time.last_slope_s)
    arrivals = np.geomspace(least_s, max(full_s, least_s), _GRID)[:, None] * rates
    best = arrivals + np.sqrt(arrivals / (2 * (batch.stages - 0.5 + work_s * rates.sum())))
    return np.vstack([np.floor(best), np.ceil(best), np.rint(best)])


def _roundings(thresholds: Floats, batch: FullBatch) -> Floats:
    """Whole neighbours of real thresholds, and their rounding up, lifted until drift holds."""
    floor, ceiling = np.floor(thresholds), np.ceil(thresholds)
    lifted = batch.least_thresholds(start=ceiling)
    found = [ceiling if lifted is None else lifted]
    if len(thresholds) <= _MANY_CLASSES:
        pairs = zip(floor, ceiling, strict=True)
        found += [np.array(one) for one in itertools.product(*pairs)]
    return np.array(found)


def _require_feasible(batch: FullBatch) -> Floats:
    """The least whole thresholds, which use the least memory of all, if they fit.

    Raises:
        InfeasibleError: They do not; names the condition and the nearest change.
    """
    capacity = batch.server.usable_kv_tokens
    least = batch.least_thresholds()
    if least is not None and batch.memory(least) <= capacity:
        return least
    changes = []
    if least is not None:
        changes.append(f"raise kv_capacity_tokens to at least {math.ceil(batch.memory(least))}")
    scale = _feasible_scale(batch)
    if scale is not None:
        changes.append(f"multiply all rates by at most {rounded_down(scale)}")
    changes.append("use policy paced, which needs no whole request at every stage")
    needed = "unbounded" if least is None else f"{float(batch.memory(least)):.0f}"
    raise InfeasibleError(
        f"literal WAIT needs whole thresholds with {needed} KV tokens, the server has {capacity}",
        "drift" if least is None else "memory",
        ", or ".join(changes),
        scale,
    )


def _feasible_scale(batch: FullBatch) -> float | None:
    """Largest multiple ≤ 1 of the rates whose least thresholds fit; None where even n = 1 do not.

    Least thresholds grow with the rates, so that bisection applies.
    """
    capacity = batch.server.usable_kv_tokens
    if batch.memory(np.ones_like(batch.rates_per_s)) > capacity:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        least = batch.least_thresholds(middle)
        if least is not None and batch.memory(least) <= capacity:
            low = middle
        else:
            high = middle
    return low


def _certificate(
    workload: Workload, batch: FullBatch, found: Equilibrium, thresholds: Floats
) -> tuple[Condition, ...]:
    drift = [
        condition(f"drift of {one.name}: λΔT(n)/n < 1", float(load), 1.0, strict=True)
        for one, load in zip(workload.classes, batch.loads(thresholds), strict=True)
    ]
    memory = condition(
        "memory: Σ n_j m_j ≤ C", float(batch.memory(thresholds)), batch.server.usable_kv_tokens
    )
    return (stability_condition(found), *drift, memory)


def _report(program: str, relaxed: Relaxed | None, latency_s: float) -> SolverReport:
    if relaxed is None or not relaxed.is_bound:
        status, gap = "feasible", None
    else:
        # Where the real optimum is whole, solver accuracy can leave the bound 1e-9 above it.
        gap = max(0.0, (latency_s - relaxed.latency_s) / relaxed.latency_s)
        status = "feasible, with a bound"
    return SolverReport(
        name=f"{program}, rounding, descent",
        status=status,
        objective=latency_s,
        optimality_gap=gap,
    )


def _memory(batch: FullBatch, thresholds: Floats) -> Memory:
    """M(n); from an empty start KV stays below it on every path (THEORY 3.7)."""
    return Memory(
        required_tokens=float(batch.memory(thresholds)),
        buffer_tokens=0.0,
        capacity_tokens=batch.server.usable_kv_tokens,
        overflow_probability=0.0,
    )


def _notes(found: Equilibrium, latency_s: float, report: SolverReport) -> tuple[str, ...]:
    notes = ["no serving system can express literal WAIT"]
    if found.latency_s is not None:
        notes.append(
            "literal WAIT waits for n_j arrivals: its predicted mean latency "
            f"{latency_s:.3g} s is {latency_s / found.latency_s:.2f} times that of "
            f"work-conserving service, {found.latency_s:.3g} s"
        )
    if report.optimality_gap is None:
        notes.append(
            "every condition is checked on the server's own iteration time, but no bound on the "
            "optimality of these thresholds is known (iteration time not concave in tokens, or "
            "the geometric program not solved accurately)"
        )
    return tuple(notes)

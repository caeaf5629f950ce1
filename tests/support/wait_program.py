"""Literal WAIT as a geometric program (THEORY 3.5; conditions of 3.2).

Variables n_j ≥ 1 and u_j ≥ λ_j ΔT(n)/n_j, with ΔT(n) = d0 + Σ n_j w_j along one line above f:

    minimise Σ_j [(S_j − ½)·n_j + λ_j·ΔT(n) + u_j/(2(1 − u_j))]/Σ_j λ_j,   Σ n_j m_j ≤ C

It is log-convex because 1/(1 − u) is a limit of posynomials (cvxpy `one_minus_pos`). The constant
−m/(2 Σ λ_j) of the latency is no posynomial and is added afterwards.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line, is_concave, majorant_lines
from thresholds.solvers.wait.batch import FullBatch

SOLVER = cp.CLARABEL


@dataclass(frozen=True)
class LatencyProgram:
    """The compiled program of one line.

    Attributes:
        thresholds: Variable n, shape (m,).
        loads: Variable u, shape (m,).
        constant_s: To be added to the problem's value to give the mean latency.
    """

    problem: Any
    thresholds: Any
    loads: Any
    constant_s: float


@dataclass(frozen=True)
class Relaxed:
    """Best point found over real thresholds n ≥ 1.

    Attributes:
        thresholds: n, shape (m,).
        latency_s: Mean latency in seconds.
        is_bound: Whether no whole thresholds can be better: f is concave, so that the lines lose
            nothing, and the solver was sure about each of them.
    """

    thresholds: NDArray[np.float64]
    latency_s: float
    is_bound: bool


def latency_program(batch: FullBatch, line: Line) -> LatencyProgram:
    """Build the program with f replaced by `line`."""
    n = cp.Variable(len(batch.rates_per_s), pos=True)
    u = cp.Variable(len(batch.rates_per_s), pos=True)
    work_s = batch.work_seconds(line.slope_s)
    time_s = line.intercept_s + cp.sum(
        # A geometric program allows no zero coefficient.
        [work_s[j] * n[j] for j in np.flatnonzero(work_s)]
    )
    rate = float(batch.rates_per_s.sum())
    queueing = cp.sum(cp.multiply(u, cp.one_minus_pos(u) ** -1)) / 2
    objective = (cp.sum(cp.multiply(batch.stages - 0.5, n)) + queueing) / rate + time_s
    constraints = [
        n >= 1,
        cp.multiply(batch.rates_per_s, n**-1) * time_s <= u,
        cp.sum(cp.multiply(batch.memory_tokens / batch.server.usable_kv_tokens, n)) <= 1,
    ]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    assert problem.is_dgp()
    return LatencyProgram(problem, n, u, -len(batch.rates_per_s) / (2 * rate))


def relaxed_optimum(batch: FullBatch) -> Relaxed | None:
    """Best thresholds over the lines above f, or None where none of them has a solution."""
    tau = batch.server.iteration_time
    # Tokens of the largest full batch that fits into memory.
    most = batch.server.usable_kv_tokens * float((batch.tokens / batch.memory_tokens).max())
    programs = [latency_program(batch, line) for line in majorant_lines(tau, most)]
    statuses = [_solve(program) for program in programs]
    solved = [
        (float(program.problem.value) + program.constant_s, program.thresholds.value)
        for program, status in zip(programs, statuses, strict=True)
        if status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
    ]
    if not solved:
        return None
    latency_s, thresholds = min(solved, key=lambda one: one[0])
    sure = set(statuses) <= {cp.OPTIMAL, cp.INFEASIBLE}
    return Relaxed(np.asarray(thresholds, dtype=float), latency_s, sure and is_concave(tau, most))


def _solve(program: LatencyProgram) -> str:
    """Solve in place and return the status."""
    with warnings.catch_warnings():
        # The status says so too, and an inaccurate optimum is never used as a bound.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        try:
            program.problem.solve(gp=True, solver=SOLVER)
        except cp.SolverError:
            return str(cp.SOLVER_ERROR)
    return str(program.problem.status)

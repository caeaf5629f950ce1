"""Literal WAIT as a geometric program (THEORY 3.5; conditions of 3.2).

Variables n_j ≥ 1 and u_j ≥ λ_j ΔT(n)/n_j, with ΔT(n) = d0 + Σ n_j w_j along one line above f:

    minimise Σ_j [(S_j − ½)·n_j + λ_j·ΔT(n) + u_j/(2(1 − u_j))]/Σ_j λ_j,   Σ n_j m_j ≤ C

It is log-convex because 1/(1 − u) is a limit of posynomials (cvxpy `one_minus_pos`). The constant
−m/(2 Σ λ_j) of the latency is no posynomial and is added afterwards.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.support.geometric_program import LineProgram, Relaxed, best
from thresholds.solvers.majorant import Line, is_concave, majorant_lines
from thresholds.solvers.wait.batch import FullBatch


def latency_program(batch: FullBatch, line: Line) -> LineProgram:
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
    return LineProgram(problem, n, u, -len(batch.rates_per_s) / (2 * rate))


def relaxed_optimum(batch: FullBatch) -> Relaxed | None:
    """Best thresholds over the lines above f, or None where none of them has a solution."""
    tau = batch.server.iteration_time
    # Tokens of the largest full batch that fits into memory.
    most = batch.server.usable_kv_tokens * float((batch.tokens / batch.memory_tokens).max())
    programs = [latency_program(batch, line) for line in majorant_lines(tau, most)]
    return best(programs, is_concave(tau, most))

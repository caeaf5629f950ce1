"""Nested WAIT as a geometric program (THEORY 4.7; conditions 4.3, memory 4.4–4.5).

Variables n_k, u ≥ Λ_1 ΔT(n)/n_1 with ΔT along one line above f, and v_k = p_k n_{k−1}/n_k < 1. In
the stochastic buffer Σ b_k·K/θ_k, K the logarithm of 4.5, the exact 1/θ_k is no posynomial (its
logarithm is not convex in ln r near r = 1), but it lies between two functions of v/(1 − v):

    [(1 − p)·v/(1 − v) − p]/2 = p(1 − r)/(2(r − p))  ≤  1/θ  ≤  1/(8(r − p)) = v/(1 − v)/(8p)

The right one is Hoeffding's (4.5). The left one, proved in `requirement.boundary_exponent`,
was never found more than 1/3 off (Hoeffding's by a factor of 20 at p = 0.98), and makes the program
a relaxation: its optimum bounds every threshold vector, and little is left for the exact θ_k to
tighten. Whole thresholds that decrease strictly have n_{k−1} ≥ n_k + 1 and n_L ≥ 1, also
posynomial.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from tests.support.geometric_program import LineProgram, Relaxed, best
from thresholds.solvers.majorant import Line, is_concave, majorant_lines
from thresholds.solvers.nested.segments import Segments


def nested_program(segments: Segments, log: float, line: Line, objective: str) -> LineProgram:
    """Build the program with f replaced by `line` and 1/θ by its lower bound."""
    capacity, rate = segments.server.usable_kv_tokens, float(segments.rates_per_s[0])
    p, share = segments.survivals, segments.boundary_tokens / capacity
    n, u = cp.Variable(segments.count, pos=True), cp.Variable(pos=True)
    work_s = segments.work_seconds(line.slope_s)
    # A geometric program allows no zero coefficient.
    time_s = line.intercept_s + cp.sum([work_s[k] * n[k] for k in np.flatnonzero(work_s)])
    filled = segments.memory_tokens / capacity + np.append(0.0, share)
    required = cp.sum(cp.multiply(filled, n))
    halves = np.full(segments.count, 0.5) + np.append(p / 2, 0.0)
    waiting = cp.sum(cp.multiply(segments.mean_stages - 1 + halves, n))
    waiting += u * cp.one_minus_pos(u) ** -1 / 2
    constraints = [n >= 1, rate * time_s * n[0] ** -1 <= u]
    if segments.count > 1:
        v = cp.multiply(p, cp.multiply(n[:-1], n[1:] ** -1))
        excess = cp.multiply(v, cp.one_minus_pos(v) ** -1)
        excess_queue = cp.multiply((1 - p) / 2, excess)
        required += cp.sum(cp.multiply(log * share, excess_queue))
        waiting += cp.sum(excess_queue)
        constraints.append(cp.multiply(n[1:] + 1, n[:-1] ** -1) <= 1)
    free = float(log * share @ p) / 2
    if objective != "memory":
        constraints.append(required <= 1 + free)
    if objective != "slack":
        constraints.append(u <= 1)
    aim, constant, unit = {
        "latency": (waiting / rate + time_s, -segments.count / (2 * rate), 1.0),
        "memory": (required, -free * capacity, float(capacity)),
        "slack": (u, 0.0, 1.0),
    }[objective]
    problem = cp.Problem(cp.Minimize(aim), constraints)
    assert problem.is_dgp()
    return LineProgram(problem, n, u, constant, unit)


def relaxed_optimum(segments: Segments, log: float, objective: str) -> Relaxed | None:
    """Best thresholds over the lines above f, or None where no line has a solution."""
    tau, capacity = segments.server.iteration_time, segments.server.usable_kv_tokens
    # Tokens of the largest full batch that fits into memory; with aim "memory" it need not.
    tokens = segments.decode_requests + np.eye(segments.count)[0] * segments.prefill_tokens
    most = capacity * float((tokens / segments.memory_tokens).max())
    programs = [
        nested_program(segments, log, line, objective) for line in majorant_lines(tau, most)
    ]
    return best(programs, is_concave(tau, most))

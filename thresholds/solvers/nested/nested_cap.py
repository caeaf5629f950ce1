"""The paper's practical construction: caps per segment, no waiting (THEORY 5.3).

q_k = min(p_k + η, 0.99) with η = 0.05, n_k = n_1·q_2 ⋯ q_k, and caps Δ_k n_k on the requests of
each segment in service, Δ_k its output tokens; their sum is the cap tl. The paper chooses tl by a
grid search; here it is the largest with which full caps, spread evenly over the stages of a
segment, fit into memory. Where p_k ≥ 0.99, or segments are too coarse for drift, the paper's grid
passes silently; the certificate here does not.
"""

from __future__ import annotations

import numpy as np

from fluid.errors import InfeasibleError
from fluid.steady.equilibrium import Equilibrium
from thresholds.problem import Problem
from thresholds.solvers.common import (
    FOLLOWED_BY,
    condition,
    new_table,
    predicted,
    rounded_down,
    stability_condition,
)
from thresholds.solvers.nested.cuts import candidate_designs, even_cuts
from thresholds.solvers.nested.nested_wait import check_nested
from thresholds.solvers.nested.requirement import STRICT, Floats, ratios
from thresholds.solvers.nested.segments import Lengths, Segments, distinct_lengths
from thresholds.table import (
    Condition,
    Memory,
    SolverReport,
    ThresholdTable,
)

ETA = 0.05
LARGEST_RATIO = 0.99


def solve_nested_cap(problem: Problem, found: Equilibrium) -> ThresholdTable:
    """Caps of the segments; of several numbers of segments the one with the most drift slack.

    Raises:
        InputError: A number of segments out of range.
        InfeasibleError: A condition of 4.3 fails, or the caps round to 0; naming it.
    """
    check_nested(problem)
    lengths = distinct_lengths(problem.workload, problem.server, problem.prompts)
    candidates = _candidates(problem, lengths)
    tried = [(segments, largest_caps(segments)) for segments in candidates]
    tried = [(segments, caps) for segments, caps in tried if caps.all()]
    if not tried:
        raise InfeasibleError(
            "some segment's cap rounds to 0 requests",
            "memory",
            "use fewer segments, or raise kv_capacity_tokens, or use policy paced",
        )
    certified = [_certificate(found, *one) for one in tried]
    chosen = min(range(len(tried)), key=lambda one: _rank(certified[one], *tried[one]))
    segments, caps = tried[chosen]
    _require_certified(segments, caps, certified[chosen])
    n = caps / segments.widths
    return new_table(
        problem,
        params={},
        thresholds=[int(one) for one in caps],
        cuts=[int(one) for one in segments.cuts],
        memory=Memory(
            required_tokens=float(segments.memory_tokens @ n),
            buffer_tokens=0.0,
            capacity_tokens=problem.server.usable_kv_tokens,
            overflow_probability=None,
        ),
        predicted=predicted(found, None),
        max_rate_per_s=(1 - STRICT) / float(segments.load(n)) * problem.workload.rate_per_s,
        certificate=certified[chosen],
        solver=SolverReport(
            name=f"closed form (the paper's construction, η = {ETA}), largest caps that fit",
            status="feasible",
            objective=None,
            optimality_gap=None,
        ),
        notes=(
            "no flag of a serving system expresses caps per segment of output; " + FOLLOWED_BY,
            "caps bound what advances, not what waits at the boundaries with its KV: overflows are "
            "possible and evict",
            *found.caveats,
        ),
    )


def _candidates(problem: Problem, lengths: Lengths) -> list[Segments]:
    """The cuts of `nested-wait`, so that the two can be compared."""
    if problem.segments == len(lengths.outputs):
        return [lengths.segments(np.arange(len(lengths.outputs)))]
    designs = candidate_designs(problem, lengths)
    wanted = [one.segments for k, one in designs.items() if problem.segments in (None, k)]
    return wanted or [lengths.segments(even_cuts(lengths, problem.segments))]


def segment_caps(segments: Segments, total: float, eta: float = ETA) -> Floats:
    """Δ_k n_k rounded, with Σ Δ_k n_k = `total` requests in service before rounding; (L,)."""
    q = np.minimum(segments.survivals + eta, LARGEST_RATIO)
    shape = segments.widths * np.cumprod(np.append(1.0, q))
    return np.asarray(np.rint(total * shape / shape.sum()))


def largest_caps(segments: Segments) -> Floats:
    """The caps of the largest whole tl whose full segments, spread evenly, fit into memory."""
    q = np.minimum(segments.survivals + ETA, LARGEST_RATIO)
    shape = np.cumprod(np.append(1.0, q))
    per_first = float(segments.memory_tokens @ shape)
    capacity = segments.server.usable_kv_tokens
    total = int(capacity / per_first * float(segments.widths @ shape))
    while True:
        caps = segment_caps(segments, total)
        if segments.memory_tokens @ (caps / segments.widths) <= capacity:
            return caps
        total -= 1


def _rank(
    certificate: tuple[Condition, ...], segments: Segments, caps: Floats
) -> tuple[int, float]:
    """Fewest broken conditions first, then the least drift load."""
    broken = sum(not one.holds for one in certificate)
    return broken, float(segments.load(caps / segments.widths))


def _certificate(found: Equilibrium, segments: Segments, caps: Floats) -> tuple[Condition, ...]:
    n = caps / segments.widths
    chain = [
        condition(f"boundary {k}: p_k < n_k/n_k−1", float(p), float(r), strict=True)
        for k, (p, r) in enumerate(zip(segments.survivals, ratios(n), strict=True), start=2)
    ]
    filled = float(segments.memory_tokens @ n)
    return (
        stability_condition(found),
        condition("drift: Λ_1 ΔT(n)/n_1 < 1", float(segments.load(n)), 1.0, strict=True),
        *chain,
        condition("memory: full caps ≤ C", filled, segments.server.usable_kv_tokens),
    )


def _require_certified(
    segments: Segments, caps: Floats, certificate: tuple[Condition, ...]
) -> None:
    """Refuse caps of which a condition fails, with the changes that may help."""
    broken = [one.condition for one in certificate if not one.holds]
    if not broken:
        return
    changes, scale = [], None
    load = float(segments.load(caps / segments.widths))
    if load >= 1:
        scale = rounded_down((1 - STRICT) / load)
        changes.append(f"multiply all rates by at most {scale}")
    if any(one.startswith("boundary") for one in broken):
        changes.append("use fewer segments, so that fewer requests survive each boundary")
    changes.append("raise kv_capacity_tokens, or use policy paced")
    raise InfeasibleError(
        f"no caps for {segments.count} segments: {', '.join(broken)} fails",
        broken[0],
        ", or ".join(changes),
        scale,
    )

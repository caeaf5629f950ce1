"""The practical form of WAIT: pace, cap and watermark together (THEORY 3.5, 6.4–6.5).

The closed form of `boundary` is the start; with a budget it is refined on a simulator (`refine`),
which also says what each restraint is worth.
"""

from __future__ import annotations

import math

import numpy as np

from fluid.errors import InputError
from fluid.steady.equilibrium import Equilibrium, equilibrium
from thresholds.problem import Problem
from thresholds.solvers.common import (
    condition,
    new_table,
    predicted,
    require_certified,
    stability_condition,
)
from thresholds.solvers.paced.boundary import IN_STEP, BoundaryLoad, boundary_load
from thresholds.solvers.paced.refine import OFFERED, Finalist, Refined, refine
from thresholds.table import (
    Condition,
    Memory,
    SolverReport,
    ThresholdTable,
    Validated,
)

NEAR_BOUNDARY = 0.95
_MEMORY_MATTERS = 0.5


def solve_paced(problem: Problem, found: Equilibrium) -> ThresholdTable:
    """Pace, cap and watermark for a stable workload; output lengths need not be known.

    Raises:
        InputError: A budget without an evaluator, or a budget below 0.
        InfeasibleError: A condition of the certificate fails.
    """
    workload, server = problem.workload, problem.server
    load = boundary_load(workload, server)
    certificate = _certificate(problem, found, load)
    require_certified(certificate)
    refined = _refined(problem, load)
    limits = load.closed_form() if refined is None else refined.chosen.limits
    table = new_table(
        problem,
        params=limits.params,
        thresholds=load.per_stage.tolist(),
        memory=Memory(
            required_tokens=load.required_tokens,
            buffer_tokens=limits.watermark_fraction * server.usable_kv_tokens,
            capacity_tokens=server.usable_kv_tokens,
            overflow_probability=None,
        ),
        predicted=predicted(found, policy_latency_s=None),
        max_rate_per_s=load.rate_per_s,
        certificate=certificate,
        solver=SolverReport(
            name="boundary inventory", status="closed form", objective=None, optimality_gap=None
        ),
        notes=(*_notes(problem, found, load), *found.caveats),
    )
    return table if refined is None else _with_evidence(table, load, refined)


def _refined(problem: Problem, load: BoundaryLoad) -> Refined | None:
    if not 0 <= problem.budget_s < math.inf:
        raise InputError("budget_s", problem.budget_s, "a number of seconds, 0 or more")
    if problem.budget_s == 0:
        return None
    if problem.evaluator is None:
        raise InputError("budget_s", problem.budget_s, "0 where no evaluator is given")
    return refine(
        problem.workload,
        problem.server,
        problem.scheduler,
        load,
        problem.evaluator,
        problem.budget_s,
    )


def _certificate(problem: Problem, found: Equilibrium, load: BoundaryLoad) -> tuple[Condition, ...]:
    capacity = problem.server.usable_kv_tokens
    return (
        stability_condition(found),
        condition("memory at the design rate: M* ≤ C", found.kv_tokens or 0.0, capacity),
        condition("memory at the boundary: Σ n^C_j m_j ≤ C", load.required_tokens, capacity),
    )


def _with_evidence(table: ThresholdTable, load: BoundaryLoad, refined: Refined) -> ThresholdTable:
    """The table with what the refinement measured.

    It is valid up to the rate that the simulator kept up, where that is below the fluid limit.
    """
    chosen, rate_per_s = refined.chosen, table.workload.rate_per_s
    sustained = min(1.0, chosen.mean - _half_width(chosen))
    margin = sustained * load.rate_per_s / rate_per_s - 1
    evaluations = [*refined.at_design, *refined.at_saturation]
    return table.model_copy(
        update={
            "valid_for": table.valid_for.model_copy(
                update={"max_rate_per_s": sustained * load.rate_per_s}
            ),
            "certificate": (
                *table.certificate,
                Condition(
                    condition="simulated throughput at saturation: above the design rate",
                    slack=margin,
                    holds=margin >= 0,
                ),
            ),
            "solver": SolverReport(
                name=f"grid and COBYQA over {refined.evaluations} simulated settings",
                status="refined",
                objective=None,
                optimality_gap=None,
            ),
            "validated": Validated(
                replications=refined.replications,
                requests=refined.requests,
                seed=refined.seed,
                policies=tuple(one.row for one in evaluations),
            ),
            "notes": (_verdict(refined), *table.notes),
        }
    )


def _verdict(refined: Refined) -> str:
    """What the families reach, and why this one was taken, in words."""
    reached = ", ".join(
        f"{one.family} {one.mean:.1%} ± {_half_width(one):.1%}" for one in refined.finalists
    )
    first, *others = refined.finalists
    why = f"{refined.chosen.family} is worth its restraint"
    if refined.chosen is first:
        best = max(one.mean for one in others)
        why = (
            "a watermark alone is as good as any pace or cap"
            if best >= first.mean
            else "a watermark alone is best: no pace and no cap, restraint does not help here"
        )
    return f"simulated throughput at {OFFERED:g} of the fluid limit ÷ that limit: {reached}; {why}"


def _half_width(one: Finalist) -> float:
    """Of the 95 % interval over replications."""
    from scipy.stats import t

    shares = one.throughput_shares
    error = float(np.std(shares, ddof=1)) / math.sqrt(len(shares))
    return float(t.ppf(0.975, len(shares) - 1)) * error


def _notes(problem: Problem, found: Equilibrium, load: BoundaryLoad) -> tuple[str, ...]:
    """Where the table cannot help, or why it takes the form it has."""
    notes = []
    full = _memory_near_boundary(problem, found)
    if full < _MEMORY_MATTERS:
        notes.append(
            f"{NEAR_BOUNDARY:.0%} of the largest stable rate fills only {full:.0%} of the memory: "
            "work limits this load, and pace, cap and watermark cannot raise its rate"
        )
    if found.margin < 1 - NEAR_BOUNDARY:
        notes.append(
            f"the load is within {found.margin:.1%} of the boundary: expect latencies above the "
            "fluid figures"
        )
    if load.swing <= IN_STEP:
        notes.append(
            f"requests do not stay in step (synchrony {load.synchrony:.2f}, growth "
            f"{load.growth:.2f}): ages of residents balance by themselves, and near the boundary a "
            "pace would cost throughput"
        )
    return tuple(notes)


def _memory_near_boundary(problem: Problem, found: Equilibrium) -> float:
    """M*/C at `NEAR_BOUNDARY` of the largest stable rates; below 1, as M* = C at α* at most."""
    near = equilibrium(problem.workload.scaled(NEAR_BOUNDARY * found.max_scale), problem.server)
    return (near.kv_tokens or 0.0) / near.kv_capacity_tokens

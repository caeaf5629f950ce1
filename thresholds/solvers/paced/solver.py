"""The practical form of WAIT: pace, cap and watermark together (THEORY 3.5, 6.4–6.5).

The closed form of `boundary` is the start; with a budget it is refined on a simulator (`refine`),
which also says what each restraint is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium
from fluid.steady.intake import intake
from fluid.steady.packing import packing
from fluid.steady.stability import curve_balance_s
from fluid.workload import Workload
from thresholds.checks import is_number, require_choice
from thresholds.evaluator import Evaluator
from thresholds.fields import Condition, Memory, Scheduler, SolverReport, Validated
from thresholds.limits import Limits
from thresholds.solvers.certificate import condition, require_certified, stability_condition
from thresholds.solvers.common import predicted, solved_table
from thresholds.solvers.few import (
    is_capped,
    largest_rate,
    packing_conditions,
    packing_notes,
    require_certain,
)
from thresholds.solvers.paced.boundary import IN_STEP, BoundaryLoad, boundary_load
from thresholds.solvers.paced.refine import OFFERED, Refined, refine
from thresholds.solvers.paced.rule import PacedRule
from thresholds.solvers.rule import Rule
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable

NEAR_BOUNDARY = 0.95
_MEMORY_MATTERS = 0.5
_NO_DIFFERENCE = {"latency_difference_s": None}


@dataclass(frozen=True)
class Paced(Solver):
    """The practical form: pace, cap and watermark; output lengths need not be known.

    Attributes:
        budget_s: Seconds to spend on refining them on a simulator; 0 for the closed form.
        scheduler: Whose batching and eviction they are added to: "greedy" or "vllm-v1".

    Raises:
        InputError: A budget that is no number of seconds, or an unknown scheduler.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(long=fw.Requests(2.0, prompt=512, output=1000))
    >>> table = fw.Paced().solve(load, fw.Server.named("paper-long-decode"))
    >>> round(table.limits.pace_per_iteration, 3)
    0.135
    """

    policy: ClassVar[str] = PacedRule.policy
    rule: ClassVar[Rule] = PacedRule()
    needs_rising: ClassVar[bool] = False

    budget_s: float = 0.0
    scheduler: Scheduler = "greedy"

    def __post_init__(self) -> None:
        if not (is_number(self.budget_s) and self.budget_s >= 0):
            raise InputError("budget_s", self.budget_s, "a number of seconds, 0 or more")
        known = get_args(Scheduler)
        require_choice("scheduler", self.scheduler, known, "one of " + ", ".join(known))

    def _table(
        self,
        workload: Workload,
        server: Server,
        found: Equilibrium,
        evaluator: Evaluator | None,
    ) -> ThresholdTable:
        load = boundary_load(workload, server)
        packed = packing(workload, server)
        require_certain(packed, workload, server)
        certificate = (*_certificate(server, found, load), *packing_conditions(packed))
        require_certified(certificate)
        refined = self._refined(workload, server, load, evaluator)
        limits = load.closed_form() if refined is None else refined.chosen.limits
        if refined is None and is_capped(packed):
            limits = Limits(cap_requests=packed.cap_requests)
        table = solved_table(
            self.policy,
            workload,
            server,
            params=limits.params,
            thresholds=load.per_stage.tolist(),
            memory=Memory(
                required_tokens=load.required_tokens,
                buffer_tokens=limits.watermark_fraction * server.usable_kv_tokens,
                capacity_tokens=server.usable_kv_tokens,
                overflow_probability=None,
            ),
            predicted=predicted(found, policy_latency_s=None),
            max_rate_per_s=largest_rate(packed, workload, limits),
            certificate=certificate,
            solver=SolverReport(
                name="boundary inventory", status="closed form", objective=None, optimality_gap=None
            ),
            notes=(
                *packing_notes(packed, limits),
                *_notes(workload, server, found, load),
                *found.caveats,
            ),
            scheduler=self.scheduler,
        )
        return table if refined is None else _with_evidence(table, load, refined)

    def _refined(
        self, workload: Workload, server: Server, load: BoundaryLoad, evaluator: Evaluator | None
    ) -> Refined | None:
        if self.budget_s == 0:
            return None
        if evaluator is None:
            raise InputError("budget_s", self.budget_s, "0 where no evaluator is given")
        return refine(workload, server, self.scheduler, load, evaluator, self.budget_s)


def _certificate(server: Server, found: Equilibrium, load: BoundaryLoad) -> tuple[Condition, ...]:
    capacity = server.usable_kv_tokens
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
    sustained = min(1.0, chosen.mean - chosen.half_width)
    margin = sustained * load.rate_per_s / rate_per_s - 1
    # At saturation the first setting is another one: no difference to the table's own latency.
    rows = [one.row for one in refined.at_design]
    rows[0] = rows[0].model_copy(update=_NO_DIFFERENCE)
    rows += [one.row.model_copy(update=_NO_DIFFERENCE) for one in refined.at_saturation]
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
                policies=tuple(rows),
            ),
            "notes": (_verdict(refined), *table.notes),
        }
    )


def _verdict(refined: Refined) -> str:
    """What the families reach, and why this one was taken, in words."""
    reached = ", ".join(
        f"{one.family} {one.mean:.1%} ± {one.half_width:.1%}" for one in refined.finalists
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


def _notes(
    workload: Workload, server: Server, found: Equilibrium, load: BoundaryLoad
) -> tuple[str, ...]:
    """Where the table cannot help, or why it takes the form it has."""
    notes = []
    full = _memory_near_boundary(workload, server, found)
    if full < _MEMORY_MATTERS:
        notes.append(
            f"{NEAR_BOUNDARY:.0%} of the largest stable rate fills only {full:.0%} of the memory: "
            "work limits this load, and pace, cap and watermark cannot raise its rate"
        )
    if found.margin < 1 - NEAR_BOUNDARY:
        notes.append(
            f"the load is within {found.margin:.1%} of the boundary: a little more of it, and "
            "latencies grow without bound"
        )
    if load.swing <= IN_STEP:
        notes.append(
            f"requests do not stay in step (synchrony {load.synchrony:.2f}, growth "
            f"{load.growth:.2f}): ages of residents balance by themselves, and near the boundary a "
            "pace would cost throughput"
        )
    return tuple(notes)


def _memory_near_boundary(workload: Workload, server: Server, found: Equilibrium) -> float:
    """M*/C at `NEAR_BOUNDARY` of the largest stable rates; below 1, as M* = C at α* at most."""
    near = intake(workload, server).scaled(NEAR_BOUNDARY * found.max_scale)
    return (curve_balance_s(near) or 0.0) * near.kv_tokens_per_s / server.usable_kv_tokens

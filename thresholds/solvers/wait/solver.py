"""Whole thresholds for literal WAIT (THEORY 3.1, 3.2, 3.5; arXiv 2504.11320 Thm 1).

The best ones for an objective (`objectives`), with drift, memory and limits on mean delays
checked on the server's own iteration time, and the prices of what limits them (`prices`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium
from fluid.workload import Workload
from thresholds.checks import require_choice
from thresholds.evaluator import Evaluator
from thresholds.fields import Condition, SolverReport
from thresholds.solvers.certificate import condition, require_certified, stability_condition
from thresholds.solvers.common import predicted, rounded_down, rounded_up, solved_table
from thresholds.solvers.rule import Rule
from thresholds.solvers.solver import Solver
from thresholds.solvers.wait.batch import STRICT, FullBatch, full_batch
from thresholds.solvers.wait.conditions import (
    NOT_SERVED,
    memory_condition,
    too_little_memory,
    wait_memory,
)
from thresholds.solvers.wait.mean_limits import MeanLimits, mean_limits
from thresholds.solvers.wait.objectives import WAIT_OBJECTIVES, Outcome
from thresholds.solvers.wait.prices import prices
from thresholds.solvers.wait.rule import WaitRule
from thresholds.solvers.wait.sharp import SHARP, solve_sharp
from thresholds.table import ThresholdTable

Floats = NDArray[np.float64]

_SEPARATE_CONDITIONS = 100
"""With more classes only the tightest drift condition is written into the certificate."""

_OPTIMAL = 1e-9
"""A gap that is none."""


@dataclass(frozen=True)
class Wait(Solver):
    """Literal WAIT: whole thresholds n_j for requests whose output lengths are known.

    Attributes:
        objective: What is best: "latency" or "ttft" (least mean over requests), "memory" (least
            KV), "slack" (largest distance to all conditions), "rate" (largest sustainable multiple
            of the mix), or "sharp-latency" (least mean by a formula closer to simulation, beyond
            Theorem 1; affine servers).

    Raises:
        InputError: Another objective. `solve` raises it too where output lengths are not known to
            the scheduler.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=64, output=20))
    >>> table = fw.Wait(objective="memory").solve(load, fw.Server.named("paper-lmsys"))
    >>> [one.threshold for one in table.thresholds]
    [1]
    """

    policy: ClassVar[str] = WaitRule.policy
    rule: ClassVar[Rule] = WaitRule()
    keeps: ClassVar[tuple[str, ...]] = ("mean",)

    objective: str = "latency"

    def __post_init__(self) -> None:
        known = (*WAIT_OBJECTIVES, SHARP)
        allowed = f"{' or '.join(known)}, for policy {self.policy}"
        require_choice("objective", self.objective, known, allowed)

    def _table(
        self,
        workload: Workload,
        server: Server,
        found: Equilibrium,
        evaluator: Evaluator | None,
    ) -> ThresholdTable:
        if not workload.decode_known:
            allowed = "true: wait sorts requests by output length; use policy paced"
            raise InputError("decode_known", False, allowed)
        batch, limits = full_batch(workload, server), mean_limits(workload)
        if self.objective == SHARP:
            return solve_sharp(workload, found, batch, limits)
        least = _require_feasible(workload, batch, limits)
        outcome = WAIT_OBJECTIVES[self.objective](batch, limits, least)
        thresholds = outcome.thresholds
        certificate = _certificate(workload, batch, limits, found, thresholds)
        require_certified(certificate)
        slowest, fastest = valid_scales(batch, limits, thresholds)
        latency_s = float(batch.mean_latency_s(thresholds))
        return solved_table(
            self.policy,
            workload,
            server,
            params={},
            thresholds=[int(n) for n in thresholds],
            memory=wait_memory(batch, thresholds),
            predicted=predicted(found, latency_s, float(batch.mean_s(batch.ttft_s(thresholds)))),
            min_rate_per_s=slowest * workload.rate_per_s,
            max_rate_per_s=fastest * workload.rate_per_s,
            certificate=certificate,
            solver=_report(outcome),
            notes=(*_notes(found, latency_s), *found.caveats),
            prices=prices(workload, batch, limits, outcome),
        )


def valid_scales(batch: FullBatch, limits: MeanLimits, thresholds: Floats) -> tuple[float, float]:
    """The interval of multiples of the rates around 1 in which all conditions hold.

    Drift bounds it from above. A delay limit reads a/s + b/(n − sλΔT) ≤ limit − ΔT for a =
    (k n − ½)/λ and b = ΔT/2, a quadratic in s that is convex where drift holds: at low rates
    collecting n_j arrivals takes too long, at high ones the queue.
    """
    time_s = float(batch.iteration_time_s(thresholds))
    rates, n = batch.rates_per_s, thresholds
    slowest, fastest = 0.0, (1 - STRICT) / float(batch.loads(n).max())
    if np.isfinite(limits.tpot_s).any():
        slowest = float((n / (rates * limits.tpot_s)).max())
    for _, last_stage, limit_s in limits.delays(batch):
        limited = np.isfinite(limit_s)
        if not limited.any():
            continue
        collect_s = (((last_stage + 0.5) * n - 0.5) / rates)[limited]
        room_s = limit_s[limited] - time_s
        square = room_s * (rates * time_s)[limited]
        linear = time_s / 2 - collect_s * (rates * time_s)[limited] - room_s * n[limited]
        root = np.sqrt(np.maximum(linear**2 - 4 * square * collect_s * n[limited], 0))
        slowest = max(slowest, float(((-linear - root) / (2 * square)).max()))
        fastest = min(fastest, float(((-linear + root) / (2 * square)).min()))
    return min(slowest, 1.0), max(fastest, 1.0)


def _require_feasible(workload: Workload, batch: FullBatch, limits: MeanLimits) -> Floats:
    """The least whole thresholds, which use the least memory of all, if they fit.

    Raises:
        InfeasibleError: They do not; names the condition and the nearest change.
    """
    capacity = batch.server.usable_kv_tokens
    least = limits.least_thresholds(batch)
    if least is not None and batch.memory(least) <= capacity:
        return least
    broken = limits.broken(batch)
    if broken is not None:
        raise _too_fast(workload, batch, limits, *broken)
    scale = None if limits else _feasible_scale(batch)
    changes = []
    if scale is not None:
        changes.append(f"multiply all rates by at most {rounded_down(scale)}")
    raise too_little_memory(batch, least, changes, scale)


def _too_fast(
    workload: Workload, batch: FullBatch, limits: MeanLimits, index: int, name: str
) -> InfeasibleError:
    """The error of limits that no whole thresholds keep; they could all be relaxed by a factor."""
    low, high = 1.0, 2.0
    while limits.loosened(high).least_thresholds(batch) is None:
        low, high = high, 2 * high
    while high - low > 1e-4 * low:
        middle = (low + high) / 2
        if limits.loosened(middle).least_thresholds(batch) is None:
            low = middle
        else:
            high = middle
    kind, limit_s = workload.classes[index].name, getattr(limits, name)[index]
    return InfeasibleError(
        f"no whole thresholds of literal WAIT keep the mean {name} of {kind} below {limit_s:g} s",
        f"mean {name} of {kind}",
        f"multiply all limits on means by at least {rounded_up(high)}, or use policy paced, which "
        "does not wait for arrivals",
    )


def _feasible_scale(batch: FullBatch) -> float | None:
    """Largest multiple ≤ 1 of the rates whose least thresholds fit; None where even n = 1 do not.

    Least thresholds grow with the rates, so that bisection applies.
    """
    if batch.memory(np.ones_like(batch.rates_per_s)) > batch.server.usable_kv_tokens:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if batch.carries(middle) else (low, middle)
    return low


def _certificate(
    workload: Workload,
    batch: FullBatch,
    limits: MeanLimits,
    found: Equilibrium,
    thresholds: Floats,
) -> tuple[Condition, ...]:
    names = [one.name for one in workload.classes]
    loads = batch.loads(thresholds)
    shown = range(len(names)) if len(names) <= _SEPARATE_CONDITIONS else [int(loads.argmax())]
    of_all = "" if len(names) <= _SEPARATE_CONDITIONS else f", the tightest of {len(names)} classes"
    drift = [
        condition(f"drift of {names[j]}: λΔT(n)/n < 1{of_all}", float(loads[j]), 1.0, strict=True)
        for j in shown
    ]
    delays = [
        condition(
            f"mean {kind} of {names[j]} ≤ {limit_s[j]:g} s", float(value_s[j]), float(limit_s[j])
        )
        for kind, value_s, limit_s in limits.values(batch, thresholds)
        for j in np.flatnonzero(np.isfinite(limit_s))
    ]
    return (
        stability_condition(found),
        *drift,
        memory_condition(batch, thresholds),
        *delays,
    )


def _report(outcome: Outcome) -> SolverReport:
    return SolverReport(
        name=outcome.solver,
        status="optimal" if outcome.gap <= _OPTIMAL else "feasible, with a bound",
        objective=outcome.value,
        optimality_gap=0.0 if outcome.gap <= _OPTIMAL else outcome.gap,
        objective_name=outcome.name,
    )


def _notes(found: Equilibrium, latency_s: float) -> tuple[str, ...]:
    notes = [NOT_SERVED]
    if found.first_order is not None:
        served_s = found.first_order.latency_s
        notes.append(
            "literal WAIT waits for n_j arrivals: its predicted mean latency "
            f"{latency_s:.3g} s is {latency_s / served_s:.2f} times that of "
            f"work-conserving service, {served_s:.3g} s to first order"
        )
    return tuple(notes)

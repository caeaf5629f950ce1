"""Whole thresholds for literal Nested WAIT, with the safety buffer of Theorem 2 (THEORY 4).

Cuts and thresholds are found together, with a bound on all of them (`joint`, `optimum`): θ_k as the
root of its equation, drift on the server's own iteration time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium
from fluid.workload import Workload
from thresholds.checks import is_number, require_choice
from thresholds.evaluator import Evaluator
from thresholds.fields import Condition, Memory, SolverReport
from thresholds.solvers.certificate import condition, require_certified, stability_condition
from thresholds.solvers.common import FOLLOWED_BY, predicted, solved_table
from thresholds.solvers.nested.buffers import BufferStudy, buffer_study
from thresholds.solvers.nested.conditions import chain_conditions, drift_condition
from thresholds.solvers.nested.cuts import (
    CutSearch,
    WholeOptimum,
    lengths_to_cut,
    require_nested_options,
)
from thresholds.solvers.nested.goals import OBJECTIVES
from thresholds.solvers.nested.infeasible import infeasible
from thresholds.solvers.nested.joint import MOST_LENGTHS, best_design
from thresholds.solvers.nested.law_design import best_design_by_law, law_of
from thresholds.solvers.nested.optimum import PROVEN
from thresholds.solvers.nested.requirement import (
    STRICT,
    Floats,
    mean_latency_s,
    mean_ttft_s,
    nested_memory,
)
from thresholds.solvers.nested.rules import NestedWaitRule
from thresholds.solvers.nested.segments import Prompts, distinct_lengths
from thresholds.solvers.rule import Rule
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable

_CERTIFICATES = ("theorem", "law")

_NAMES = {
    "latency": "latency_s",
    "ttft": "ttft_s",
    "memory": "memory_tokens",
    "slack": "load",
    "rate": "rate_per_s",
}


@dataclass(frozen=True)
class NestedWait(Solver):
    """Literal Nested WAIT: whole thresholds n_k of segments of output length, lengths unknown.

    Attributes:
        objective: What is best: "latency" or "ttft" (least mean over requests), "memory" (least KV
            with its buffers), "slack" (largest distance from the drift condition, which is the
            least load Λ_1 ΔT/n_1) or "rate" (largest sustainable multiple of the mix).
        segments: L; None for the best L.
        overflow_probability: δ of Theorem 2 (THEORY 4.5): of any overflow within the horizon.
        horizon_s: T of Theorem 2.
        prompts: Prompt that the memory of a segment counts where prompts differ (THEORY 5.4):
            "worst", which bounds every path, or "weighted", the rate-weighted mean, with which no
            overflow probability is known.
        certificate: What the memory must fit by: "theorem" (Theorem 2), or "law" (the law of the
            boundary queues, which asks for less; no bound on the best design is known then).
        time_limit_s: Seconds after which the best design so far is taken, with the gap that is left
            to prove.

    Raises:
        InputError: Naming the first option that is out of range. `solve` raises it too for more
            segments than the load has output lengths.

    >>> import fluidwait as fw
    >>> solver = fw.NestedWait(segments=2, overflow_probability=0.05, horizon_s=600.0)
    >>> solver.policy, solver.objective, solver.prompts
    ('nested-wait', 'latency', 'worst')
    """

    policy: ClassVar[str] = NestedWaitRule.policy
    rule: ClassVar[Rule] = NestedWaitRule()

    objective: str = "latency"
    segments: int | None = None
    overflow_probability: float = 0.01
    horizon_s: float = 3600.0
    prompts: Prompts = "worst"
    certificate: str = "theorem"
    time_limit_s: float = 10.0

    def __post_init__(self) -> None:
        allowed = f"{' or '.join(OBJECTIVES)}, for policy {self.policy}"
        require_choice("objective", self.objective, OBJECTIVES, allowed)
        if not (is_number(self.overflow_probability) and 0 < self.overflow_probability < 1):
            allowed = "a probability above 0 and below 1"
            raise InputError("overflow_probability", self.overflow_probability, allowed)
        if not (is_number(self.horizon_s) and self.horizon_s > 0):
            raise InputError("horizon_s", self.horizon_s, "seconds > 0")
        if not (is_number(self.time_limit_s) and self.time_limit_s > 0):
            raise InputError("time_limit_s", self.time_limit_s, "seconds > 0")
        require_nested_options(self.segments, self.prompts)
        require_choice("certificate", self.certificate, _CERTIFICATES, " or ".join(_CERTIFICATES))
        if self.certificate == "law" and self.objective == "memory":
            raise InputError("objective", "memory", "another one where the certificate is the law")
        if self.certificate == "law" and self.prompts != "worst":
            raise InputError("prompts", self.prompts, "worst, where the certificate is the law")

    def buffers(self, workload: Workload, server: Server) -> BufferStudy:
        """Base memory and buffers against the number of segments (THEORY 5.2).

        Raises:
            InfeasibleError: Drift fails for every number of segments.
        """
        return buffer_study(self._search(workload, server))

    def in_step(self, tables: Sequence[ThresholdTable]) -> Iterator[Solver]:
        """With the cuts of one load, the busiest first, and the largest p_k of all loads."""
        lengths = [distinct_lengths(one.workload, one.server, self.prompts) for one in tables]
        if any(not np.array_equal(one.outputs, lengths[0].outputs) for one in lengths):
            return
        entering = np.array([one.rates_per_s / one.rates_per_s[0] for one in lengths])
        busiest = sorted(tables, key=lambda one: -one.workload.rate_per_s)
        cuts = dict.fromkeys(
            tuple(one.up_to_tokens or 0 for one in table.thresholds) for table in busiest
        )
        if len(cuts) == 1 and np.allclose(entering, entering[0], rtol=1e-12):
            return
        options = {name: getattr(self, name) for name in self.options()}
        for one in cuts:
            ends = np.searchsorted(lengths[0].outputs, one)
            begins = np.concatenate([[0], ends[:-1] + 1])
            survivals = (entering[:, begins[1:]] / entering[:, begins[:-1]]).max(axis=0)
            yield _InStep(**options, ends=tuple(ends.tolist()), survivals=tuple(survivals.tolist()))

    def _search(self, workload: Workload, server: Server) -> CutSearch:
        return CutSearch(
            lengths_to_cut(workload, server, self.segments, self.prompts),
            self.objective,
            self.segments,
            self.overflow_probability,
            self.horizon_s,
        )

    def _table(
        self,
        workload: Workload,
        server: Server,
        found: Equilibrium,
        evaluator: Evaluator | None,
    ) -> ThresholdTable:
        search = self._search(workload, server)
        by_law = self.certificate == "law"
        best = (best_design_by_law if by_law else best_design)(search, self.time_limit_s)
        if not np.isfinite(best.value):
            raise infeasible(search, best)
        segments, n = best.segments, best.thresholds
        memory = nested_memory(n, segments, best.log)
        # Weighted prompts are means: no path is bounded by them.
        bounded = self.prompts == "worst" or not segments.prompts_differ
        law = law_of(search, best) if bounded else None
        by_law = by_law and law is not None
        buffer = law.tokens - float(memory.base) if by_law and law else float(memory.buffer)
        certificate = _certificate(found, best, float(memory.base) + buffer, by_law)
        require_certified(certificate)
        # One segment has no boundary, so that M(n) bounds every path (THEORY 3.7).
        probability = self.overflow_probability if segments.count > 1 else 0.0
        return solved_table(
            self.policy,
            workload,
            server,
            params={},
            thresholds=[int(one) for one in n],
            cuts=[int(one) for one in segments.cuts],
            memory=Memory(
                required_tokens=float(memory.base),
                buffer_tokens=buffer,
                capacity_tokens=server.usable_kv_tokens,
                overflow_probability=probability if bounded else None,
                stochastic_buffer_tokens=None if by_law else float(memory.stochastic_buffer),
                horizon_s=self.horizon_s,
                queue_law=law,
            ),
            predicted=predicted(
                found, float(mean_latency_s(n, segments)), float(mean_ttft_s(n, segments))
            ),
            max_rate_per_s=(1 - STRICT) / float(segments.load(n)) * workload.rate_per_s,
            certificate=certificate,
            solver=_report(search, best),
            notes=(*_notes(search, found, best, bounded), *found.caveats),
        )


@dataclass(frozen=True)
class _InStep(NestedWait):
    """Thresholds that can follow those of other windows: on given cuts, for any of their mixes.

    Attributes:
        ends: Index of the last output length of each segment.
        survivals: p_k for k = 2 … L, the largest of all windows.
    """

    ends: tuple[int, ...] = ()
    survivals: tuple[float, ...] = ()

    def _search(self, workload: Workload, server: Server) -> CutSearch:
        search = super()._search(workload, server)
        own = search.lengths.merged(self.ends)
        mean_outputs = np.diff(own.rate_sums, prepend=0.0) / _leaving(own.rates_per_s)
        entering = own.rates_per_s[0] * np.cumprod((1.0, *self.survivals))
        sums = np.cumsum(_leaving(entering) * mean_outputs)
        worst = replace(own, rates_per_s=entering, rate_sums=sums)
        return replace(search, lengths=worst, segments=len(self.ends))

    def _table(
        self,
        workload: Workload,
        server: Server,
        found: Equilibrium,
        evaluator: Evaluator | None,
    ) -> ThresholdTable:
        table = super()._table(workload, server, found, evaluator)
        note = (
            "cuts are those of the other windows and p_k the largest of all, so that residents can "
            "be handed over; the policy's own predictions are for that p_k"
        )
        return table.model_copy(update={"notes": (note, *table.notes)})


def _leaving(entering: Floats) -> Floats:
    """Rates of the requests that end in each segment, from those that enter it; shape (L,)."""
    return np.asarray(entering - np.append(entering[1:], 0.0))


def _certificate(
    found: Equilibrium, best: WholeOptimum, needed: float, by_law: bool
) -> tuple[Condition, ...]:
    segments, n = best.segments, best.thresholds
    words = "memory: law of the boundary queues ≤ C" if by_law else "memory: M(n) + buffers ≤ C"
    return (
        stability_condition(found),
        drift_condition(segments, n),
        *chain_conditions(segments, n, decreasing=True),
        condition(words, needed, segments.server.usable_kv_tokens),
    )


def _report(search: CutSearch, best: WholeOptimum) -> SolverReport:
    value, bound = best.value, best.bound
    if search.objective == "rate":
        rate_per_s = float(best.segments.rates_per_s[0])
        value, bound = rate_per_s / value, rate_per_s / bound if bound else None
    gap = None if not bound else abs(value - bound) / bound
    status = "feasible" if gap is None else "feasible, with a bound"
    if gap is not None and gap <= PROVEN:
        status, gap = "optimal", 0.0
    return SolverReport(
        name="shortest paths over cuts and thresholds, best-first search",
        status=status,
        objective=value,
        optimality_gap=gap,
        objective_name=_NAMES[search.objective],
    )


def _notes(
    search: CutSearch, found: Equilibrium, best: WholeOptimum, bounded: bool
) -> tuple[str, ...]:
    notes = ["no flag of a serving system expresses literal Nested WAIT; " + FOLLOWED_BY]
    latency_s = float(mean_latency_s(best.thresholds, best.segments))
    if found.first_order is not None:
        served_s = found.first_order.latency_s
        notes.append(
            "literal Nested WAIT waits for n_1 arrivals and at every boundary: its predicted mean "
            f"latency {latency_s:.3g} s is {latency_s / served_s:.2f} times that of "
            f"work-conserving service, {served_s:.3g} s to first order"
        )
    if not bounded:
        notes.append(
            "prompts differ and are counted by their weighted mean: no overflow probability is "
            "known (use prompts worst for the bound of Theorem 2)"
        )
    if len(search.lengths.outputs) > MOST_LENGTHS:
        notes.append(
            f"cuts were looked for at {MOST_LENGTHS} of {len(search.lengths.outputs)} output "
            "lengths: whether others are better is not known"
        )
    return tuple(notes)

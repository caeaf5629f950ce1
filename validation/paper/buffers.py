"""Memory of Nested WAIT over the number of segments: base falls, buffers grow (THEORY 5.2).

The paper's thresholds are real numbers: n_k = n_1·q_2 ⋯ q_k with q_k = min(p_k + η, 0.99), segments
of about as many lengths each, and the least n_1 with which drift holds, ΔT(n) = n_1/Λ_1. Beside
them, the least memory of the toolkit's whole thresholds on its own cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fluid.errors import InfeasibleError
from fluid.server import Server, load_server
from fluid.workload import Workload
from thresholds.solvers.nested.cuts import even_cuts
from thresholds.solvers.nested.nested_cap import paper_shape
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import NestedMemory, log_term, nested_memory
from thresholds.solvers.nested.segments import Segments, distinct_lengths
from validation.paper.experiment import (
    MET,
    NOT_MET,
    Claim,
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
)
from validation.paper.pictures import side_by_side
from validation.paper.settings import chat

SERVER = "paper-lmsys"
BASE_RATE_PER_S = 50.0


@dataclass(frozen=True)
class Case:
    """Total rate, horizon T and overflow probability δ."""

    rate_per_s: float
    horizon_s: float
    overflow_probability: float

    @property
    def label(self) -> str:
        return f"{self.rate_per_s:g}/s, T = {self.horizon_s:g} s, δ = {self.overflow_probability:g}"

    def workload(self) -> Workload:
        """Chat lengths at this rate."""
        return chat().at_rate(self.rate_per_s)

    def server(self) -> Server:
        """The paper's constants; at 10 times the rate divided by 10 (THEORY 3.3)."""
        server = load_server(SERVER)
        factor = BASE_RATE_PER_S / self.rate_per_s
        tau = server.iteration_time
        quicker = tau.model_copy(
            update={
                "seconds_knots": tuple(factor * one for one in tau.seconds_knots),
                "per_kv_token_s": factor * tau.per_kv_token_s,
                "per_prefill_token_s": factor * tau.per_prefill_token_s,
            }
        )
        return server.model_copy(update={"iteration_time": quicker})

    def real(self) -> dict[int, NestedMemory]:
        """Memory of real thresholds by number of segments; those without drift are missing."""
        server = self.server()
        lengths = distinct_lengths(self.workload(), server)
        overhead_s = server.iteration_time.overhead_s
        found = {}
        for count in range(1, len(lengths.outputs) + 1):
            segments = lengths.segments(even_cuts(lengths, count))
            n = least_thresholds(segments)
            if n is not None:
                log = log_term(count, self.horizon_s, overhead_s, self.overflow_probability)
                found[count] = nested_memory(n, segments, log)
        return found

    def whole(self) -> float:
        """Least memory of whole thresholds, tokens; infinite where drift never holds."""
        solver = NestedWait(
            horizon_s=self.horizon_s, overflow_probability=self.overflow_probability
        )
        try:
            return solver.buffers(self.workload(), self.server()).least_tokens
        except InfeasibleError:
            return float("inf")


CASES = (
    Case(50.0, 200.0, 0.1),
    Case(50.0, 200.0, 1e-5),
    Case(500.0, 200.0, 0.1),
    Case(500.0, 200.0, 1e-5),
    Case(50.0, 20.0, 1e-3),
    Case(50.0, 2000.0, 1e-3),
)


def least_thresholds(segments: Segments) -> np.ndarray | None:
    """The least n of the paper's shape with ΔT(n) = n_1/Λ_1, (L,); None where there is none.

    On a server of THEORY Eq. 1 the batch adds seconds in proportion to n_1.
    """
    shape = paper_shape(segments)
    idle_s, one_s = (float(segments.iteration_time_s(n * shape)) for n in (0.0, 1.0))
    left = 1 / segments.rates_per_s[0] - (one_s - idle_s)
    return shape * idle_s / left if left > 0 else None


def run_buffers(lab: Lab) -> ExperimentResult:
    """No simulation."""
    memories = {case: case.real() for case in CASES}
    found = {case: _row(case, by_count) for case, by_count in memories.items()}
    header = ("case", "best L", "KV needed (tokens)", "base", "buffers", "whole thresholds")
    table = PageTable(
        "Number of segments of least KV", header, tuple(row for row, _ in found.values())
    )
    claims = tuple(claim for _, claim in found.values())
    return ExperimentResult((), (table,), claims, {"memories": memories, "capacity": _capacity()})


def _row(case: Case, by_count: dict[int, NestedMemory]) -> tuple[tuple[str, ...], Claim]:
    best = min(by_count, key=lambda count: float(by_count[count].total))
    inside = min(by_count) < best < max(by_count)
    evidence = f"least at L = {best} of {min(by_count)} to {max(by_count)}"
    claim = Claim(f"{case.label}: least inside", MET if inside else NOT_MET, evidence)
    memory = by_count[best]
    buffers = memory.deterministic_buffer + memory.stochastic_buffer
    figures = (float(memory.total), float(memory.base), float(buffers), case.whole())
    return (case.label, str(best), *(f"{one:,.0f}" for one in figures)), claim


def _capacity() -> int:
    return load_server(SERVER).usable_kv_tokens


def draw(result: ExperimentResult) -> Figure:
    """KV needed over the number of segments, and its base, a line for each case."""
    with side_by_side(2, width=10) as (figure, axes):
        for case, by_count in result.facts["memories"].items():
            one = axes[0 if case.rate_per_s == BASE_RATE_PER_S else 1]
            counts = list(by_count)
            total = [float(memory.total) for memory in by_count.values()]
            (line,) = one.plot(counts, total, ".-", label=case.label)
            base = [float(memory.base) for memory in by_count.values()]
            one.plot(counts, base, ":", color=line.get_color())
        for one in axes:
            one.set_xlabel("segments L; dotted: base memory alone")
            one.axhline(result.facts["capacity"], color="black", lw=0.8, ls="--")
            one.legend(fontsize=7)
            one.set_ylim(bottom=0)
        axes[0].set_ylabel("KV needed (tokens); dashed: the server's")
        return figure


BUFFERS = Experiment(
    "buffers",
    "Buffers by number of segments",
    "Base memory falls and buffers grow with L, so that the sum has a least point inside.",
    run_buffers,
    draw,
)

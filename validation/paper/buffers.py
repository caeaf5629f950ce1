"""Memory of Nested WAIT over the number of segments: base falls, buffers grow (THEORY 5.2)."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from fluid.server import Server, load_server
from thresholds.problem import Problem
from thresholds.solvers.nested_cuts import buffer_decomposition
from thresholds.solvers.segment_design import Design
from validation.paper.experiment import MET, NOT_MET, Claim, Experiment, Lab, Result, Table
from validation.paper.pictures import panels
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
        return (
            f"{self.rate_per_s:g}/s, T = {self.horizon_s:,.0f} s, δ = {self.overflow_probability:g}"
        )

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

    def designs(self) -> tuple[Design, ...]:
        """The best cuts for every number of segments."""
        return buffer_decomposition(
            Problem(
                chat().at_rate(self.rate_per_s),
                self.server(),
                policy="nested-wait",
                horizon_s=self.horizon_s,
                overflow_probability=self.overflow_probability,
            )
        )


CASES = (
    Case(50.0, 200.0, 0.1),
    Case(50.0, 200.0, 1e-5),
    Case(500.0, 200.0, 0.1),
    Case(500.0, 200.0, 1e-5),
    Case(50.0, 20.0, 1e-3),
    Case(50.0, 2_000.0, 1e-3),
)


def run_buffers(lab: Lab) -> Result:
    """No simulation: the dynamic program for every case."""
    designs = {case: case.designs() for case in CASES}
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    for case, found in designs.items():
        if not found:
            rows.append((case.label, *("no design keeps drift",) * 4))
            continue
        least = min(found, key=lambda one: one.requirement_tokens)
        ends = (len(found[0].ends), len(found[-1].ends))
        inside = ends[0] < len(least.ends) < ends[1]
        evidence = f"least at L = {len(least.ends)} of {ends[0]} to {ends[1]}"
        claims.append(Claim(f"{case.label}: a U shape", MET if inside else NOT_MET, evidence))
        memory = least.memory
        rows.append(
            (
                case.label,
                str(len(least.ends)),
                f"{least.requirement_tokens:,.0f}",
                f"{float(memory.base):,.0f}",
                f"{float(memory.deterministic_buffer + memory.stochastic_buffer):,.0f}",
            )
        )
    header = ("case", "best L", "KV needed (tokens)", "base", "buffers")
    table = Table("Number of segments of least KV", header, tuple(rows))
    return Result((), (table,), tuple(claims), {"designs": designs})


def draw(result: Result) -> Figure:
    """KV needed over the number of segments, and its base, a line for each case."""
    with panels(2, width=10) as (figure, axes):
        for case, found in result.facts["designs"].items():
            one = axes[0 if case.rate_per_s == BASE_RATE_PER_S else 1]
            counts = [len(design.ends) for design in found]
            (line,) = one.plot(
                counts, [design.requirement_tokens for design in found], ".-", label=case.label
            )
            base = [float(design.memory.base) for design in found]
            one.plot(counts, base, ":", color=line.get_color())
        for one in axes:
            one.set_xlabel("segments L; dotted: base memory alone")
            one.legend(fontsize=7)
            one.set_ylim(bottom=0)
        axes[0].set_ylabel("KV needed (tokens)")
        return figure


BUFFERS = Experiment(
    "buffers",
    "Buffers by number of segments",
    "Base memory falls and buffers grow with L, so that the sum has a least point inside.",
    run_buffers,
    draw,
)

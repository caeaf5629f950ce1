"""The paper's practical construction: caps per segment, no waiting (THEORY 5.3).

q_k = min(p_k + η, 0.99) with η = 0.05, n_k = n_1·q_2 ⋯ q_k, and caps Δ_k n_k on the requests of
each segment in service, Δ_k its output tokens; their sum is the cap tl. The paper chooses tl by a
grid search; here it is the largest with which full caps, spread evenly over the stages of a
segment, fit into memory. Where p_k ≥ 0.99, or segments are too coarse for drift, the paper's grid
passes silently; the certificate here does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fluid.errors import InfeasibleError
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium
from fluid.steady.packing import packing
from fluid.workload import Workload
from thresholds.evaluator import Evaluator
from thresholds.fields import Condition, Memory, SolverReport
from thresholds.solvers.certificate import condition, stability_condition
from thresholds.solvers.common import FOLLOWED_BY, predicted, rounded_down, solved_table
from thresholds.solvers.few import inner_condition, packing_notes, require_certain
from thresholds.solvers.nested.conditions import chain_conditions, drift_condition
from thresholds.solvers.nested.cuts import (
    CutSearch,
    candidate_designs,
    even_cuts,
    lengths_to_cut,
    require_nested_options,
)
from thresholds.solvers.nested.requirement import STRICT, Floats
from thresholds.solvers.nested.rules import NestedCapRule
from thresholds.solvers.nested.segments import Prompts, Segments
from thresholds.solvers.rule import Rule
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable

ETA = 0.05
LARGEST_RATIO = 0.99


@dataclass(frozen=True)
class NestedCap(Solver):
    """The paper's caps per segment of output length, without waiting; lengths unknown.

    Attributes:
        segments: L; None for that with the most drift slack.
        prompts: Prompt that the memory of a segment counts where prompts differ (THEORY 5.4):
            "worst" or "weighted", the rate-weighted mean.

    Raises:
        InputError: Naming the option that is out of range. `solve` raises it too for more segments
            than the load has output lengths.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=64, output=20))
    >>> table = fw.NestedCap(segments=1).solve(load, fw.Server.named("paper-lmsys"))
    >>> table.thresholds[0].up_to_tokens
    20
    """

    policy: ClassVar[str] = NestedCapRule.policy
    rule: ClassVar[Rule] = NestedCapRule()

    segments: int | None = None
    prompts: Prompts = "worst"

    def __post_init__(self) -> None:
        require_nested_options(self.segments, self.prompts)

    def _table(
        self,
        workload: Workload,
        server: Server,
        found: Equilibrium,
        evaluator: Evaluator | None,
    ) -> ThresholdTable:
        lengths = lengths_to_cut(workload, server, self.segments, self.prompts)
        chosen = _chosen(CutSearch(lengths, segments=self.segments), found)
        segments, caps = chosen.segments, chosen.caps
        _require_certified(chosen)
        packed = packing(workload, server)
        require_certain(packed, workload, server)
        largest = min((1 - STRICT) / chosen.load, packed.certain_scale)
        return solved_table(
            self.policy,
            workload,
            server,
            params={},
            thresholds=[int(one) for one in caps],
            cuts=[int(one) for one in segments.cuts],
            memory=Memory(
                required_tokens=float(segments.memory_tokens @ chosen.per_stage),
                buffer_tokens=0.0,
                capacity_tokens=server.usable_kv_tokens,
                overflow_probability=None,
            ),
            predicted=predicted(found, None),
            max_rate_per_s=largest * workload.rate_per_s,
            certificate=(*chosen.certificate, *inner_condition(packed)),
            solver=SolverReport(
                name=f"closed form (the paper's construction, η = {ETA}), largest caps that fit",
                status="feasible",
                objective=None,
                optimality_gap=None,
            ),
            notes=(
                "no flag of a serving system expresses caps per segment of output; " + FOLLOWED_BY,
                "caps bound what advances, not what waits at the boundaries with its KV: overflows "
                "are possible and evict",
                *packing_notes(packed, None),
                *found.caveats,
            ),
        )


@dataclass(frozen=True)
class _Caps:
    """The largest caps on some segments, and which conditions they satisfy."""

    segments: Segments
    caps: Floats
    certificate: tuple[Condition, ...]

    @property
    def per_stage(self) -> Floats:
        """n_k of full caps, spread evenly over the stages of their segments; (L,)."""
        return np.asarray(self.caps / self.segments.widths)

    @property
    def load(self) -> float:
        """Λ_1 ΔT(n)/n_1."""
        return float(self.segments.load(self.per_stage))

    @property
    def broken(self) -> list[str]:
        """Conditions that fail."""
        return [one.condition for one in self.certificate if not one.holds]


def _chosen(search: CutSearch, found: Equilibrium) -> _Caps:
    """Of several numbers of segments the one with fewest broken conditions, then least load.

    Raises:
        InfeasibleError: The caps of some segment round to 0 for all of them.
    """
    tried = []
    for segments in _candidates(search):
        caps = largest_caps(segments)
        if caps.all():
            tried.append(_Caps(segments, caps, _certificate(found, segments, caps)))
    if not tried:
        raise InfeasibleError(
            "some segment's cap rounds to 0 requests",
            "memory",
            "use fewer segments, or raise kv_capacity_tokens, or use policy paced",
        )
    return min(tried, key=lambda one: (len(one.broken), one.load))


def _candidates(search: CutSearch) -> list[Segments]:
    """The cuts of `nested-wait`, so that the two can be compared."""
    lengths = search.lengths
    if search.segments == len(lengths.outputs):
        return [lengths.segments(np.arange(len(lengths.outputs)))]
    designs = candidate_designs(search)
    wanted = [one.segments for k, one in designs.items() if search.segments in (None, k)]
    return wanted or [lengths.segments(even_cuts(lengths, search.segments))]


def paper_shape(segments: Segments, eta: float = ETA) -> Floats:
    """n_k/n_1 = q_2 ⋯ q_k with q_k = min(p_k + η, 0.99), shape (L,)."""
    q = np.minimum(segments.survivals + eta, LARGEST_RATIO)
    return np.cumprod(np.append(1.0, q))


def segment_caps(segments: Segments, total: float, eta: float = ETA) -> Floats:
    """Δ_k n_k rounded, with Σ Δ_k n_k = `total` requests in service before rounding; (L,)."""
    shape = segments.widths * paper_shape(segments, eta)
    return np.asarray(np.rint(total * shape / shape.sum()))


def largest_caps(segments: Segments) -> Floats:
    """The caps of the largest whole tl whose full segments, spread evenly, fit into memory."""
    shape = paper_shape(segments)
    per_first = float(segments.memory_tokens @ shape)
    capacity = segments.server.usable_kv_tokens
    total = int(capacity / per_first * float(segments.widths @ shape))
    while True:
        caps = segment_caps(segments, total)
        if segments.memory_tokens @ (caps / segments.widths) <= capacity:
            return caps
        total -= 1


def _certificate(found: Equilibrium, segments: Segments, caps: Floats) -> tuple[Condition, ...]:
    n = caps / segments.widths
    filled = float(segments.memory_tokens @ n)
    return (
        stability_condition(found),
        drift_condition(segments, n),
        *chain_conditions(segments, n, decreasing=False),
        condition("memory: full caps ≤ C", filled, segments.server.usable_kv_tokens),
    )


def _require_certified(chosen: _Caps) -> None:
    """Refuse caps of which a condition fails, with the changes that may help."""
    broken = chosen.broken
    if not broken:
        return
    changes, scale = [], None
    if chosen.load >= 1:
        scale = rounded_down((1 - STRICT) / chosen.load)
        changes.append(f"multiply all rates by at most {scale}")
    if any(one.startswith("boundary") for one in broken):
        changes.append("use fewer segments, so that fewer requests survive each boundary")
    changes.append("raise kv_capacity_tokens, or use policy paced")
    raise InfeasibleError(
        f"no caps for {chosen.segments.count} segments: {', '.join(broken)} fails",
        broken[0],
        ", or ".join(changes),
        scale,
    )

"""Server, workloads and policies that the experiments share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server, load_server
from fluid.stages import class_stages
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from thresholds.solvers.nested.cuts import even_cuts
from thresholds.solvers.nested.nested_cap import segment_caps
from thresholds.solvers.nested.segments import distinct_lengths
from thresholds.solvers.paced.solver import Paced
from validation.experiments.following import policy_of
from validation.policies import ConfiguredPolicy
from validation.simulator.arrivals import Arrivals

VLLM, SARATHI, TODAY = "vllm-v0", "sarathi", "vllm-v1"
BASELINES = (VLLM, SARATHI, TODAY)
"""The paper's vLLM and Sarathi, and the scheduler that vLLM has today."""

FITTED_VLLM = "vllm-v0:cap=22"
"""vLLM with at most so many residents as fit its published latencies (`differences`)."""

READ_SHARE = 0.25
"""Time to read KV on the what-if server: grouped-query attention, 8 KV heads in place of 32."""

TABLE = "this toolkit's table"

CLIPPED_RATE = Arrivals("poisson-clipped").rate_factor
"""True rate ÷ nominal rate where gaps are clipped."""

Floats = NDArray[np.float64]

_CHAT = Path(__file__).resolve().parents[2] / "examples" / "lmsys-chat.yaml"

_TABLE_LOAD = 0.9
"""Share of the fluid limit at which the table is solved; its limits belong to the boundary."""


def a100() -> Server:
    """The paper's server."""
    return load_server("a100-80gb-llama-2-7b")


def straight() -> Server:
    """The same with its staircase f replaced by the line from its first knot to its last."""
    server = a100()
    tau = server.iteration_time
    ends = {
        "tokens_knots": (tau.tokens_knots[0], tau.tokens_knots[-1]),
        "seconds_knots": (tau.seconds_knots[0], tau.seconds_knots[-1]),
    }
    return server.model_copy(update={"iteration_time": tau.model_copy(update=ends)})


def cheap_reads(share: float) -> Server:
    """The same with this share of the time to read cached tokens."""
    server = a100()
    tau = server.iteration_time
    reads = {"per_kv_token_s": share * tau.per_kv_token_s}
    return server.model_copy(update={"iteration_time": tau.model_copy(update=reads)})


def _workload(name: str, *classes: tuple[float, int, int]) -> Workload:
    """Classes of (rate per second, prompt, output)."""
    return Workload(
        name=name,
        classes=tuple(
            RequestClass(
                name=f"{prompt}/{output}",
                rate_per_s=rate_per_s,
                prefill_tokens=prompt,
                decode_tokens=output,
            )
            for rate_per_s, prompt, output in classes
        ),
    )


SINGLE = _workload("512/20", (1.0, 512, 20))
TWO = _workload("512/20 and 512/50", (0.7, 512, 20), (0.3, 512, 50))
LONG = _workload("512/1000", (1.0, 512, 1000))
DECODE_ONLY = Workload(
    name="decode-only 630/20",
    classes=(
        RequestClass(
            name="630/20", rate_per_s=1.0, prefill_tokens=0, context_tokens=630, decode_tokens=20
        ),
    ),
)


def chat() -> Workload:
    """Lengths of real chats, in 20 buckets; from the examples of the repository."""
    return Workload.read(_CHAT)


def limit_per_s(workload: Workload, server: Server) -> float:
    """Fluid limit of the total rate (THEORY 2.3), in true requests per second."""
    return equilibrium(workload, server).max_scale * workload.rate_per_s


def practical_table(workload: Workload, server: Server) -> ConfiguredPolicy:
    """What follows the toolkit's own table, added to vLLM's scheduler of today."""
    at = workload.at_rate(_TABLE_LOAD * limit_per_s(workload, server))
    return policy_of(Paced(scheduler="vllm-v1").solve(at, server))


def per_stage(total: int, stages: int) -> int:
    """Literal threshold for a cap tl on all stages: whole, so at least 1 (THEORY 5.3)."""
    return max(1, total // stages)


def authors_rules(workload: Workload, total: int) -> tuple[str, ...]:
    """The authors' own rules with `total` requests in service at most.

    Limits per stage are in proportion to λ_j, and to Λ_k, and full stages hold `total`; then whole,
    at least 1, rounded down and up.
    """
    server = a100()
    stages = np.array([float(class_stages(one, server).count) for one in workload.classes])
    lengths = distinct_lengths(workload, server)
    segments = lengths.segments(np.arange(len(lengths.outputs)))
    forms = {"wait-authors": (workload.rates_per_s, stages)}
    if segments.count > 1:
        forms["nested-authors"] = (segments.rates_per_s, segments.widths)
    texts = [
        f"{name}:thresholds={'/'.join(f'{one:.0f}' for one in whole)},cap={total}"
        for name, (rates, widths) in forms.items()
        for whole in _whole(total * rates / (rates @ widths))
    ]
    return tuple(dict.fromkeys(texts))


def _whole(limits: Floats) -> tuple[Floats, Floats]:
    """Rounded down and up, at least 1."""
    return np.maximum(np.floor(limits + 1e-9), 1.0), np.ceil(limits - 1e-9)


def nested_cap(
    workload: Workload, server: Server, total: int, segments: int, eta: float
) -> str | None:
    """THEORY 5.3: `total` split over segments with about as many lengths each.

    None where a segment's cap rounds to 0 requests, which would never let anyone pass.
    """
    lengths = distinct_lengths(workload, server)
    parts = lengths.segments(even_cuts(lengths, segments))
    caps = segment_caps(parts, total, eta)
    if not caps.all():
        return None
    shown = "/".join(f"{one:.0f}" for one in caps)
    return f"nested-cap:thresholds={shown},cuts={'/'.join(map(str, parts.cuts))}"

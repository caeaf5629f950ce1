"""Mean times that the laws predict for what was learned."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.server import Server
from fluid.steady.latency.predict import latency
from fluid.steady.latency.rule import BatchRule
from fluid.workload import Workload


@dataclass(frozen=True)
class Prediction:
    """Means over all requests; None, with the reason, where the laws refuse.

    Attributes:
        refusal: Why there are none.
    """

    ttft_s: float | None
    tpot_s: float | None
    refusal: str | None = None


def predicted(workload: Workload, server: Server) -> Prediction:
    """Of a load on a server that admits whoever fits."""
    rule = (
        BatchRule()
        if server.max_num_batched_tokens is None
        else BatchRule(budget_tokens=server.max_num_batched_tokens)
    )
    found = latency(workload, server, rule)
    if found.pooled is None:
        return Prediction(None, None, found.refusal)
    tpot = found.pooled.tpot_s
    return Prediction(found.pooled.ttft_s.mean, None if tpot is None else tpot.mean)

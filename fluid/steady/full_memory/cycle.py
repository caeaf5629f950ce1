"""The eviction cycle of one length: what greedy admission falls into (THEORY 11.4).

Everybody was admitted together and grows together. At stage s memory holds y_s = C/h_s requests;
whoever does not fit any more is evicted and loses everything, so that nothing is left to admit
until y_{S−1} requests complete at once. A cycle therefore takes Σ_s τ(y_s requests at stage s).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fluid.server import Server
from fluid.stages import class_stages
from fluid.steady.intake import Method
from fluid.steady.stability import largest_scale
from fluid.workload import Workload


@dataclass(frozen=True)
class OneLengthCycle:
    """One round of the cycle.

    Attributes:
        completed_per_s: X, completions per second.
        completed: y_{S−1}, requests that complete in a round.
        admitted: y_0, requests that begin it.
        cycle_s: Seconds of a round.
        limit_share: X ÷ fluid limit, that of the mean composition (method "mean" of THEORY 2.5).
    """

    completed_per_s: float
    completed: float
    admitted: float
    cycle_s: float
    limit_share: float

    def document(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def one_length_cycle(workload: Workload, server: Server) -> OneLengthCycle | None:
    """The cycle of a load whose requests are all alike; None for other loads.

    For an affine f it is X = (C/h_{S−1}) / [S·d0 + c_kv·C·(S − 1) + c_tok·(C + Σ_{s≥1} y_s)].
    """
    kinds = {
        (one.prefill_tokens, one.context_tokens, one.decode_tokens) for one in workload.classes
    }
    if len(kinds) > 1:
        return None
    stages = class_stages(workload.classes[0], server)
    there = server.usable_kv_tokens / stages.held_kv_tokens
    decoding = np.where(stages.decodes, there, 0.0)
    prompts = np.where(stages.decodes, 0.0, there) * stages.prefill_tokens
    tau = server.iteration_time
    seconds = tau(
        prompts + decoding,
        kv_tokens=decoding * stages.kv_tokens,
        prefill_tokens=prompts,
        decode_requests=decoding,
        prefill_tokens_sq=prompts * stages.prefill_tokens,
    )
    cycle_s = float(seconds.sum())
    completed_per_s = float(there[-1]) / cycle_s
    method: Method | None = None if tau.is_affine else "mean"
    limit_per_s = largest_scale(workload, server, method) * workload.rate_per_s
    return OneLengthCycle(
        completed_per_s=completed_per_s,
        completed=float(there[-1]),
        admitted=float(there[0]),
        cycle_s=cycle_s,
        limit_share=completed_per_s / limit_per_s,
    )

"""What is to be solved: a load, a server, a policy to set and an aim."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.server import Server
from fluid.workload import Workload


@dataclass(frozen=True)
class Problem:
    """Thresholds wanted for a workload on a server.

    Attributes:
        policy: A name in `thresholds.solvers.SOLVERS`: "paced" (the practical form) or "wait" (the
            literal rule of THEORY 3.1).
        objective: What is best, a name in `thresholds.solvers.OBJECTIVES` of the policy: "latency"
            or "ttft" (least mean over requests), "memory" (least KV), "slack" (largest distance to
            all conditions), "rate" (largest sustainable multiple of the mix), "sharp-latency"
            (least mean by a formula closer to simulation, beyond Theorem 1; affine servers).
    """

    workload: Workload
    server: Server
    policy: str = "paced"
    objective: str = "latency"

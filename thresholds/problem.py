"""What is to be solved: a load, a server, a policy to set and an aim."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.server import Server
from fluid.workload import Workload
from thresholds.evaluator import Evaluator
from thresholds.solvers.nested.segments import Prompts
from thresholds.table import Scheduler


@dataclass(frozen=True)
class Problem:
    """Thresholds wanted for a workload on a server.

    Attributes:
        policy: A name in `thresholds.solvers.SOLVERS`: "paced" (the practical form), "wait" (the
            literal rule of THEORY 3.1), "nested-wait" or "nested-cap" (THEORY 4.2 and 5.3).
        objective: What is best, a name in `thresholds.solvers.OBJECTIVES` of the policy: "latency"
            or "ttft" (least mean over requests), "memory" (least KV), "slack" (largest distance to
            all conditions), "rate" (largest sustainable multiple of the mix), "sharp-latency"
            (least mean by a formula closer to simulation, beyond Theorem 1; affine servers).
        overflow_probability: δ of Theorem 2 (THEORY 4.5), nested-wait only: of any overflow within
            the horizon.
        horizon_s: T of Theorem 2, nested-wait only.
        segments: L of the nested policies; None for the best L.
        prompts: Prompt that the memory of a segment counts where prompts differ (THEORY 5.4): the
            longest, which bounds every path, or the rate-weighted mean, with which no overflow
            probability is known.
        scheduler: What pace, cap and watermark of "paced" are added to.
        budget_s: Seconds to spend on refining them with `evaluator`; 0 for the closed form.
    """

    workload: Workload
    server: Server
    policy: str = "paced"
    objective: str = "latency"
    overflow_probability: float = 0.01
    horizon_s: float = 3600.0
    segments: int | None = None
    prompts: Prompts = "worst"
    scheduler: Scheduler = "greedy"
    budget_s: float = 0.0
    evaluator: Evaluator | None = None

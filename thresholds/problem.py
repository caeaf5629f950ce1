"""What is to be solved: a load, a server, a policy to set and an aim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluid.server import Server
from fluid.workload import Workload
from thresholds.evaluator import Evaluator
from thresholds.table import Scheduler


@dataclass(frozen=True)
class Problem:
    """Thresholds wanted for a workload on a server.

    Attributes:
        policy: A name in `thresholds.solvers.SOLVERS`: "paced" (the practical form) or "wait" (the
            literal rule of THEORY 3.1).
        objective: What is minimised; mean latency over requests.
        scheduler: What pace, cap and watermark are added to; used where they are refined.
        budget_s: Seconds to spend on refining them with `evaluator`; 0 for the closed form.
    """

    workload: Workload
    server: Server
    policy: str = "paced"
    objective: Literal["latency"] = "latency"
    scheduler: Scheduler = "greedy"
    budget_s: float = 0.0
    evaluator: Evaluator | None = None

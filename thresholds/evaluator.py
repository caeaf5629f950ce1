"""What a solver may ask of a simulator, without depending on one (implemented in `validation`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fluid.server import Server
from fluid.workload import Workload
from thresholds.fields import PolicyValidation, Scheduler
from thresholds.limits import Limits


@dataclass(frozen=True)
class Evaluation:
    """One setting at one rate.

    Attributes:
        completed_per_s: Completions per second of the measured window, one per replication.
        row: The same as it is written into a table; its latency difference is that of the first
            setting of the call less this one.
    """

    limits: Limits
    completed_per_s: tuple[float, ...]
    row: PolicyValidation


class Evaluator(Protocol):
    """Simulates settings side by side.

    All settings of a call see the same arrivals in each replication (common random numbers), and
    two calls with the same seed do too, so that differences between settings are differences of the
    settings.
    """

    def __call__(
        self,
        workload: Workload,
        server: Server,
        scheduler: Scheduler,
        settings: Sequence[Limits],
        *,
        replications: int,
        requests: int,
        seed: int,
    ) -> list[Evaluation]: ...

"""Registry of threshold solvers: one file each, one line here."""

from __future__ import annotations

from thresholds.solvers.common import Solver
from thresholds.solvers.nested.nested_cap import solve_nested_cap
from thresholds.solvers.nested.nested_wait import solve_nested
from thresholds.solvers.paced.solver import solve_paced
from thresholds.solvers.wait.objectives import WAIT_OBJECTIVES
from thresholds.solvers.wait.sharp import SHARP
from thresholds.solvers.wait.solver import solve_wait

SOLVERS: dict[str, Solver] = {
    "paced": solve_paced,
    "wait": solve_wait,
    "nested-wait": solve_nested,
    "nested-cap": solve_nested_cap,
}

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "paced": ("latency",),
    "wait": (*WAIT_OBJECTIVES, SHARP),
    "nested-wait": ("latency", "memory", "slack"),
    "nested-cap": ("latency",),
}
"""What each policy's solver can aim at."""

KEEPS_MEAN_LIMITS = frozenset({"wait"})
"""Solvers with limits on mean TTFT, TPOT and latency among their constraints."""

"""Registry of threshold solvers: one file each, one line here."""

from __future__ import annotations

from thresholds.solvers.common import Solver
from thresholds.solvers.nested import solve_nested
from thresholds.solvers.nested_cap import solve_nested_cap
from thresholds.solvers.paced import solve_paced
from thresholds.solvers.wait import solve_wait
from thresholds.solvers.wait_objectives import WAIT_OBJECTIVES
from thresholds.solvers.wait_sharp import SHARP

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

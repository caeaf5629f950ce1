"""Registry of threshold solvers: one file each, one line here."""

from __future__ import annotations

from thresholds.solvers.common import Solver
from thresholds.solvers.paced import solve_paced
from thresholds.solvers.wait import solve_wait
from thresholds.solvers.wait_objectives import WAIT_OBJECTIVES
from thresholds.solvers.wait_sharp import SHARP

SOLVERS: dict[str, Solver] = {
    "paced": solve_paced,
    "wait": solve_wait,
}

OBJECTIVES: dict[str, tuple[str, ...]] = {"wait": (*WAIT_OBJECTIVES, SHARP)}
"""What a solver can aim at, where that is more than latency."""

KEEPS_MEAN_LIMITS = frozenset({"wait"})
"""Solvers with limits on mean TTFT, TPOT and latency among their constraints."""

"""Registry of threshold solvers: one file each, one line here."""

from __future__ import annotations

from thresholds.solvers.common import Solver
from thresholds.solvers.paced import solve_paced
from thresholds.solvers.wait import solve_wait

SOLVERS: dict[str, Solver] = {
    "paced": solve_paced,
    "wait": solve_wait,
}

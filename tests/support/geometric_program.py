"""Geometric programs over lines above f: the best of their optima, and how sure it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

SOLVER = cp.CLARABEL


@dataclass(frozen=True)
class LineProgram:
    """The compiled program of one line.

    Attributes:
        thresholds: Variable n.
        load: Variable u, of each class or of the first segment.
        constant: To be added to the problem's value to give the objective.
        unit: Value of one unit of the problem's value.
    """

    problem: Any
    thresholds: Any
    load: Any
    constant: float
    unit: float = 1.0


@dataclass(frozen=True)
class Relaxed:
    """Best point over real thresholds.

    Attributes:
        thresholds: n.
        value: The program's objective there: seconds, tokens or load.
        is_bound: Whether no whole thresholds can be better: the lines lose nothing, and the solver
            was sure about each of them.
    """

    thresholds: NDArray[np.float64]
    value: float
    is_bound: bool


def best(programs: Sequence[LineProgram], lossless: bool) -> Relaxed | None:
    """The least optimum of the lines' programs, or None where none of them has a solution.

    Args:
        lossless: Whether the lines lose nothing: f is concave.
    """
    statuses = [_solve(program) for program in programs]
    solved = [
        (float(one.problem.value) * one.unit + one.constant, one.thresholds.value)
        for one, status in zip(programs, statuses, strict=True)
        if status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
    ]
    if not solved:
        return None
    value, thresholds = min(solved, key=lambda one: one[0])
    sure = set(statuses) <= {cp.OPTIMAL, cp.INFEASIBLE}
    return Relaxed(np.asarray(thresholds, dtype=float), value, sure and lossless)


def _solve(program: LineProgram) -> str:
    """Solve in place and return the status."""
    with warnings.catch_warnings():
        # The status says so too, and an inaccurate optimum is never used as a bound.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        try:
            program.problem.solve(gp=True, solver=SOLVER)
        except cp.SolverError:
            return str(cp.SOLVER_ERROR)
    return str(program.problem.status)

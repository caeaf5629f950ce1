"""Bounds on every design of Nested WAIT at once, and which thresholds they rule out.

For each pair of Lagrangian weights (`goals`) the shortest path of the graph is a bound. It is
concave in the weights, so that cutting planes find the best ones: each path found is a plane above
it, and the next weights are where the lowest plane is highest (a linear program of two variables,
HiGHS), drawn towards the best so far. A state through which every path is above the value of a
known design, for any of the weights tried, is ruled out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line
from thresholds.solvers.nested.goals import Goal
from thresholds.solvers.nested.graph import Graph, Grid

Floats = NDArray[np.float64]

_STEPS = 18
_CLOSE = 1e-4
"""Cutting planes end where at most this share of the value is left to gain."""

_PULL = 0.3
"""How far new weights are drawn to the best ones so far."""


@dataclass(frozen=True)
class Bound:
    """One pair of weights.

    Attributes:
        multipliers: α and β as far as the objective has them; () of a bound on feasibility.
        completions: Least sum from each state to the end, (states, columns).
        start: The constant at the states of length 0.
    """

    multipliers: tuple[float, ...]
    weights: Floats
    completions: Floats
    start: Floats


@dataclass(frozen=True)
class Relaxation:
    """The graph with f replaced by a line below it.

    Attributes:
        log: K of THEORY 4.5; that of the fewest segments allowed.
        layers: Exactly so many segments, or 0 for any number.
    """

    graph: Graph
    grid: Grid
    goal: Goal
    line: Line
    log: float
    layers: int

    def bound(self, multipliers: Floats) -> Bound:
        """The bound for these multipliers."""
        weights = self.goal.weights(multipliers, self.line)
        start = self.goal.start(multipliers, self.line, *self.grid.starts)
        return Bound(tuple(multipliers), weights, self._completions(weights), start)

    def feasibility(self) -> list[Bound]:
        """Bounds that hold whatever the objective: drift and memory."""
        _, high = self.grid.starts
        found = self.goal.feasibility(self.line, high)
        return [Bound((), weights, self._completions(weights), one) for weights, one in found]

    def at_starts(self, bound: Bound) -> Floats:
        """What no design with n_1 in each of the first states is below."""
        _, high = self.grid.starts
        column = bound.completions[: len(high), -1]
        return np.maximum((column + bound.start) / self.goal.scale(high), 0.0)

    def path(self, bound: Bound, state: int) -> tuple[Floats, Floats]:
        """The shortest path from a first state: length and threshold of each segment, resources."""
        from thresholds.solvers.nested import graph_kernel as kernel

        graph, grid = self.graph, self.grid
        spans, column = graph.spans(bound.weights), max(self.layers, 1) - 1
        states = kernel.best_path(
            graph.arcs,
            grid.arcs,
            spans,
            bound.weights,
            self.log,
            self.layers,
            bound.completions,
            state,
            column,
        )
        entered = np.searchsorted(grid.first, states, side="right") - 1
        n, m = grid.low[states], len(graph.boundary)
        last = np.append(entered[1:] - 1, m - 1)
        used = graph.parts[:, entered, last] @ n
        p = graph.survival[entered[:-1], entered[1:]]
        most, most2 = grid.high[states[:-1]], grid.high[states[1:]]
        ratio = np.minimum(most2 / n[:-1], (most - 1) / most)
        queues = (n[1:] - 1 + p * n[:-1]) / 2 + (1 - p) / 2 * p / (ratio - p)
        inverse = np.array([kernel.inverse_exponent(*one) for one in zip(ratio, p, strict=True)])
        used[0] += graph.queue_wait_s * queues.sum()
        used[3] += graph.boundary[entered[1:]] @ (n[1:] + self.log * inverse)
        return np.column_stack([entered, n]), used

    def ascend(
        self,
        begin: Floats,
        unit: Floats,
        target: float,
        deadline_s: float,
        among: NDArray[np.bool_] | None = None,
        steps: int = _STEPS,
    ) -> list[Bound]:
        """Bounds by cutting planes, the last not always the best.

        Args:
            begin: First multipliers; unit: their order of magnitude.
            target: A bound of this value is as good as any.
            among: The first states whose smallest bound is to be raised.
        """
        found: list[Bound] = []
        planes: list[tuple[float, Floats, Floats]] = []
        multipliers, best = begin, (-np.inf, begin)
        while len(found) < steps and (not found or time.perf_counter() < deadline_s):
            one = self.bound(multipliers)
            found.append(one)
            values = (one.completions[: len(one.start), -1] + one.start) / self.goal.scale(
                self.grid.starts[1]
            )
            values = values if among is None else np.where(among, values, np.inf)
            state = int(values.argmin())
            value = float(values[state])
            if value >= target:
                break
            _, used = self.path(one, state)
            high = float(self.grid.starts[1][state])
            slopes = self.goal.slopes(multipliers, self.line, high, used)
            slopes = slopes / float(self.goal.scale(np.array(high)))
            planes.append((value, slopes, multipliers))
            best = max(best, (value, multipliers), key=lambda pair: pair[0])
            model, highest = _highest(planes, unit)
            if model - best[0] <= _CLOSE * abs(target):
                break
            multipliers = (1 - _PULL) * highest + _PULL * best[1]
        return found

    def kept(self, bounds: Sequence[Bound], target: float) -> NDArray[np.bool_]:
        """States through which a design below the target may lead (any number of segments)."""
        from thresholds.solvers.nested import graph_kernel as kernel

        graph, grid = self.graph, self.grid
        scale = self.goal.scale(grid.starts[1])
        kept = np.ones(len(grid.low), dtype=bool)
        for one in bounds:
            start = one.start - (target * scale if one.multipliers else 0.0)
            arrivals = kernel.arrivals(
                graph.arcs, grid.arcs, graph.spans(one.weights), one.weights, self.log, start
            )
            kept &= arrivals + one.completions[:, 0] < 0
        return kept

    def _completions(self, weights: Floats) -> Floats:
        from thresholds.solvers.nested import graph_kernel as kernel

        graph = self.graph
        return np.asarray(
            kernel.completions(
                graph.arcs, self.grid.arcs, graph.spans(weights), weights, self.log, self.layers
            )
        )


def _highest(planes: Sequence[tuple[float, Floats, Floats]], unit: Floats) -> tuple[float, Floats]:
    """The highest point below all planes (value, slopes, where), and where it is."""
    from scipy.optimize import linprog

    values = np.array([value for value, _, _ in planes])
    slopes = np.array([slope for _, slope, _ in planes]) * unit
    at = np.array([where for _, _, where in planes]) / unit
    most = np.maximum(8 * at.max(axis=0), 8.0)
    span = max(float(np.abs(values).max()), 1e-300)
    rows = np.column_stack([-slopes / span, np.ones(len(planes))])
    right = (values - (slopes * at).sum(axis=1)) / span
    cost = np.append(np.zeros(len(unit)), -1.0)
    limits = [*((0.0, float(one)) for one in most), (None, None)]
    solved = linprog(cost, A_ub=rows, b_ub=right, bounds=limits)
    if solved.x is None:
        return float(values.max()), at[values.argmax()] * unit
    return float(solved.x[-1]) * span, np.asarray(solved.x[:-1]) * unit

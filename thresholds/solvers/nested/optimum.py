"""The best cuts and whole thresholds together, with a bound on the whole problem.

From a design that is known, bounds on the graph (`bounds`) rule out thresholds, which makes the
graph of the rest finer, until it holds every threshold by itself or nothing more is ruled out. The
logarithm K of THEORY 4.5 grows with the number of segments L: numbers of segments are taken one by
one, that of the smallest bound first, and the rest together with the least K of theirs. For each L
a best-first search over partial designs, by several bounds and by what drift and memory leave,
ends with the optimum of that L, or, out of time, with the least bound of what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line, minorant_lines
from thresholds.solvers.nested.bounds import Bound, Relaxation
from thresholds.solvers.nested.goals import goal_of
from thresholds.solvers.nested.graph import Grid, graph_of, refined, whole_grid
from thresholds.solvers.nested.segments import Lengths, Segments

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PROVEN = 1e-9
"""A gap that is none."""

_ROUNDS = 6
_SHRUNK = 0.9
"""Another round is worth it where at most this share of the thresholds is left."""

_FOCUS = 4
_FOCUS_STEPS = 6
"""So often, in so many steps, bounds are raised where they are lowest."""

_MOST_BOUNDS = 8
"""So many bounds guide the best-first search, the most useful first."""

_FIRST_STEPS = 1_000_000
_MOST_STEPS = 10**10
_LARGEST_INDEX = 20_000_000
"""Beyond so many thresholds over all lengths there is no best-first search."""


@dataclass(frozen=True)
class Problem:
    """What is to be solved.

    Attributes:
        objective: One of `goals.OBJECTIVES`.
        logs: K of THEORY 4.5 for L segments.
        counts: The numbers of segments that are allowed.
        polish: Whole thresholds near these on these ends, and their exact value, infinite where
            none are allowed.
        deadline_s: Of `time.perf_counter`.
    """

    lengths: Lengths
    objective: str
    logs: Callable[[int], float]
    counts: range
    polish: Callable[[Integers, Floats], tuple[Floats, float]]
    deadline_s: float

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return time.perf_counter() >= self.deadline_s


@dataclass(frozen=True)
class Design:
    """Cuts and thresholds.

    Attributes:
        ends: Index of the last length of each segment, (L,).
        thresholds: n_k, (L,).
    """

    ends: Integers
    thresholds: Floats


@dataclass(frozen=True)
class Optimum:
    """The best design below a value, None where there is none, and the value of no design.

    Attributes:
        value: The objective (of "slack" and "rate" the load), or the value asked for.
        bound: No design is below it.
    """

    design: Design | None
    value: float
    bound: float


def optimum(problem: Problem, below: float, known: Design | None = None) -> Optimum:
    """The best design of a value less than `below`, or of that value where one is known."""
    return _Search(problem, below, known).run()


def compile_kernels(problem: Problem) -> None:
    """Run every kernel once, on a problem of two lengths."""
    search = _Search(problem, 1.0, None)
    relaxation = search._relaxation(whole_grid(search.graph, 4), 2, 2)
    found = [relaxation.bound(np.array([2.0, 0.0]))]
    relaxation.path(found[0], 3)
    relaxation.kept(found, 1.0)
    search._best_first(relaxation, found, 2, 1)


class _Search:
    """The state of the search for one problem."""

    def __init__(self, problem: Problem, below: float, known: Design | None) -> None:
        self.problem, self.value, self.design = problem, below, known
        self.goal = goal_of(problem.objective, problem.lengths)
        self.graph = graph_of(problem.lengths, problem.objective == "latency")
        self.line = self._line()
        self.useful: list[Floats] = []
        self.polished: set[tuple[int, ...]] = set()

    def run(self) -> Optimum:
        """Root, then numbers of segments."""
        grid, bound = self._root()
        if grid is not None and bound < self._proven:
            bound = self._by_count(grid, bound)
        return Optimum(self.design, self.value, min(bound, self.value))

    @property
    def _proven(self) -> float:
        return self.value * (1 - PROVEN)

    def _root(self) -> tuple[Grid | None, float]:
        """The thresholds that may be in a better design, and a bound; None where there are none."""
        problem = self.problem
        grid: Grid | None = whole_grid(self.graph, self._largest())
        bound = 0.0
        for _ in range(_ROUNDS):
            assert grid is not None
            relaxation = self._relaxation(grid, problem.counts.start, 0)
            found = self._raised(relaxation)
            bound = max(bound, self._least(relaxation, found))
            if bound >= self._proven or problem.out_of_time:
                break
            self._try_paths(relaxation, found)
            kept = relaxation.kept([*found, *relaxation.feasibility()], self.value)
            if not kept.any():
                return None, self.value
            sizes = grid.high - grid.low + 1
            was_exact = grid.is_exact
            grid = refined(self.graph, grid, kept)
            if grid is None:
                return None, self.value
            if was_exact or sizes[kept].sum() > _SHRUNK * sizes.sum():
                break
        return grid, bound

    def _by_count(self, grid: Grid, bound: float) -> float:
        """A bound on all allowed numbers of segments, from their own searches."""
        problem, counts = self.problem, self.problem.counts
        rest, single = counts.start, len(counts) == 1
        bounds: dict[int, float] = {}
        relaxed: dict[int, tuple[Relaxation, list[Bound]]] = {}
        budget: dict[int, int] = {}
        rest_bound = bound
        while True:
            open_ = {L: one for L, one in bounds.items() if L in budget}
            lowest = min(open_.values(), default=np.inf)
            if min(lowest, rest_bound) >= self._proven or problem.out_of_time:
                break
            if rest_bound <= lowest:
                relaxation = self._relaxation(grid, rest, rest)
                found = self._raised(relaxation)
                bounds[rest] = max(rest_bound, self._least(relaxation, found))
                relaxed[rest], budget[rest] = (relaxation, found), _FIRST_STEPS
                self._try_paths(relaxation, found)
                rest += 1
                rest_bound = np.inf
                if not single and rest < counts.stop:
                    relaxation = self._relaxation(grid, rest, 0)
                    known = [relaxation.bound(one) for one in self.useful]
                    rest_bound = max(bound, self._least(relaxation, known))
                continue
            count = min(open_, key=lambda one: open_[one])
            started = time.perf_counter()
            least, ended = self._best_first(*relaxed[count], count, budget[count])
            bounds[count] = max(bounds[count], least)
            taken_s = time.perf_counter() - started
            growth = min(4.0, (problem.deadline_s - time.perf_counter()) / max(taken_s, 1e-6))
            if ended or growth < 1.5 or budget[count] >= _MOST_STEPS:
                del budget[count]
            else:
                budget[count] = int(growth * budget[count])
        return float(min([rest_bound, *bounds.values()]))

    def _best_first(
        self, relaxation: Relaxation, found: Sequence[Bound], count: int, steps: int
    ) -> tuple[float, bool]:
        """A bound on designs of so many segments, and whether it is their optimum or the best."""
        from thresholds.solvers.nested import graph_kernel as kernel

        graph, grid, goal = self.graph, relaxation.grid, self.goal
        if grid.largest * len(graph.boundary) > _LARGEST_INDEX:
            return 0.0, True
        objective = self._most_useful(relaxation, found)
        bounds = [*objective, *relaxation.feasibility()]
        n = np.arange(grid.largest + 1, dtype=float)
        n[0] = 1.0
        line = relaxation.line
        starts = [goal.start(np.array(one.multipliers), line, n, n) for one in objective]
        starts += [one for _, one in goal.feasibility(line, n)]
        proves = np.array([bool(one.multipliers) for one in bounds])
        tau = graph.lengths.server.iteration_time
        _, path, least, ended = kernel.search(
            graph.arcs,
            grid.index(),
            graph.parts,
            relaxation.log,
            count,
            np.array([one.weights for one in bounds]),
            np.array([one.completions for one in bounds]),
            np.array(starts),
            np.where(proves[:, None], goal.scale(n), 0.0),
            proves,
            (
                goal.kind,
                goal.rate_per_s,
                goal.first_output,
                goal.capacity,
                (np.array(tau.tokens_knots), np.array(tau.seconds_knots)),
            ),
            self.value,
            steps,
        )
        if len(path):
            ends = np.append(path[1:, 0] - 1, len(graph.boundary) - 1)
            self._try(ends, path[:, 1].astype(float))
        return float(least), bool(ended)

    def _most_useful(self, relaxation: Relaxation, found: Sequence[Bound]) -> list[Bound]:
        """The bounds that are the best at some n_1, the most frequent first."""
        values = np.array([relaxation.at_starts(one) for one in found])
        best = values.argmax(axis=0)[values.max(axis=0) < self.value]
        often = np.bincount(best, minlength=len(found))
        order = np.argsort(-often, kind="stable")[:_MOST_BOUNDS]
        return [found[k] for k in order if often[k]]

    def _raised(self, relaxation: Relaxation) -> list[Bound]:
        """Bounds for one relaxation: those that were useful before, then better ones."""
        begin, unit = self._units()
        deadline_s, target = self.problem.deadline_s, self.value
        # Without a price of memory no bound is 0: out of time there still is one.
        plain = [1.0, 0.0] if self.goal.kind == 0 else [0.0]
        found = [relaxation.bound(one) for one in (*self.useful, np.array(plain))]
        if self._least(relaxation, found) >= target:
            return found
        if self.useful:
            least = [relaxation.at_starts(one).min() for one in found]
            begin = np.array(found[int(np.argmax(least))].multipliers)
        found += relaxation.ascend(begin, unit, target, deadline_s)
        for _ in range(_FOCUS):
            values = np.array([relaxation.at_starts(one) for one in found])
            highest = values.max(axis=0)
            low = highest.min()
            if low >= target or self.problem.out_of_time:
                break
            begin = np.array(found[int(values[:, highest.argmin()].argmax())].multipliers)
            among = highest <= low + (target - low) / 4
            found += relaxation.ascend(begin, unit, target, deadline_s, among, _FOCUS_STEPS)
            if self._least(relaxation, found) < low + (target - low) / 20:
                break
        self.useful = [np.array(one.multipliers) for one in self._most_useful(relaxation, found)]
        return found

    def _units(self) -> tuple[Floats, Floats]:
        """First multipliers, and their order of magnitude, at the best design known."""
        goal, capacity = self.goal, float(self.graph.lengths.server.usable_kv_tokens)
        n = float(self.design.thresholds[0]) if self.design else self._largest() / 2
        longest_s = n / goal.rate_per_s
        if goal.kind == 1:
            return np.array([self.value / longest_s]), np.array([self.value / longest_s])
        if goal.kind == 2:
            return np.zeros(1), np.array([self.value * longest_s / capacity])
        time_s = self.line.intercept_s
        if self.design:
            time_s = float(self._segments().iteration_time_s(self.design.thresholds))
        alpha = 1 + n / (2 * max(n - goal.rate_per_s * time_s, 1e-3 * n) ** 2)
        return np.array([alpha, 0.0]), np.array([alpha, self.value / capacity])

    def _least(self, relaxation: Relaxation, found: Sequence[Bound]) -> float:
        """The bound that they give together."""
        if not found:
            return 0.0
        return float(np.max([relaxation.at_starts(one) for one in found], axis=0).min())

    def _relaxation(self, grid: Grid, count: int, layers: int) -> Relaxation:
        log = self.problem.logs(count)
        return Relaxation(self.graph, grid, self.goal, self.line, log, layers)

    def _try_paths(self, relaxation: Relaxation, found: Sequence[Bound]) -> None:
        """The shortest paths behind the best bounds, as designs."""
        order = sorted(found, key=lambda one: -relaxation.at_starts(one).min())
        for one in order[:_MOST_BOUNDS]:
            state = int(relaxation.at_starts(one).argmin())
            if not np.isfinite(one.completions[state, -1] + one.start[state]):
                continue
            path, _ = relaxation.path(one, state)
            entered = path[:, 0].astype(np.int64)
            ends = np.append(entered[1:] - 1, len(self.graph.boundary) - 1)
            if len(ends) in self.problem.counts and tuple(ends) not in self.polished:
                self.polished.add(tuple(ends))
                self._try(ends, path[:, 1])

    def _try(self, ends: Integers, thresholds: Floats) -> None:
        better, value = self.problem.polish(ends, thresholds)
        if value < self.value:
            self.design, self.value = Design(ends, better), value
            self.line = self._line()

    def _segments(self) -> Segments:
        assert self.design is not None
        return self.graph.lengths.segments(self.design.ends)

    def _largest(self) -> int:
        """No better design has a larger threshold."""
        kind, rate = self.goal.kind, self.goal.rate_per_s
        capacity = self.value if kind == 1 else self.goal.capacity
        most = capacity / self.graph.memory[0, 0]
        if kind == 0:
            most = min(most, 1 + 2 * rate * self.value)
        return max(int(most), 1)

    def _line(self) -> Line:
        """The line below f that is highest at the tokens of the best design."""
        server = self.graph.lengths.server
        tau, graph = server.iteration_time, self.graph
        if tau.is_affine:
            return Line(tau.overhead_s, tau.last_slope_s)
        upper = np.triu_indices(len(graph.boundary))
        densest = float((graph.tokens[upper] / graph.memory[upper]).max())
        most = max(float(server.usable_kv_tokens), self.value if self.goal.kind == 1 else 0.0)
        lines = minorant_lines(tau, float(graph.tokens[0, 0]), most * densest)
        if self.design is None:
            return lines[0]
        one = self._segments()
        n = self.design.thresholds
        tokens = float(n @ one.decode_requests + n[0] * one.prefill_tokens)
        return max(lines, key=lambda line: line.intercept_s + line.slope_s * tokens)

"""Whole thresholds of Nested WAIT over cuts: the best L, the best cuts, the best n_k on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from fluid.errors import InputError
from fluid.server import Server
from fluid.workload import Workload
from thresholds.checks import is_whole, require_choice
from thresholds.solvers.nested.design import Design, best_designs, designs_over_rules, refined
from thresholds.solvers.nested.requirement import STRICT, Floats, log_term
from thresholds.solvers.nested.search import aim_of, best_whole, chains, repaired
from thresholds.solvers.nested.segments import Lengths, Prompts, Segments, distinct_lengths

MOST_SEGMENTS = 32
"""Largest L that is looked at where none is given."""

_PATIENCE = 3
"""So many L in a row without improvement end the search over L."""

_RAYS = np.geomspace(0.5, 3, 200)
"""The geometric program's optimum times these, rounded, are starts of the descent."""


@dataclass(frozen=True)
class CutSearch:
    """What is looked for: thresholds on cuts of these lengths.

    Attributes:
        objective: "latency", "memory" or "slack".
        segments: L; None for the best.
        overflow_probability: δ of Theorem 2 (THEORY 4.5).
        horizon_s: T of Theorem 2.
    """

    lengths: Lengths
    objective: str = "latency"
    segments: int | None = None
    overflow_probability: float = 0.01
    horizon_s: float = 3600.0

    @property
    def server(self) -> Server:
        """Where the thresholds are to hold."""
        return self.lengths.server

    @property
    def most(self) -> int:
        """The largest L that is looked at."""
        return most_segments(len(self.lengths.outputs))

    def log(self, segments: int) -> float:
        """K of THEORY 4.5 for so many segments."""
        overhead_s = self.server.iteration_time.overhead_s
        return log_term(segments, self.horizon_s, overhead_s, self.overflow_probability)


@dataclass(frozen=True)
class WholeOptimum:
    """Best whole thresholds on given cuts.

    Attributes:
        log: K of THEORY 4.5 for these segments.
        thresholds: n_k, shape (L,).
        value: The objective there: seconds, tokens or load; infinite where nothing is allowed.
        bound: What no thresholds on these cuts can beat, None where that is not known.
    """

    segments: Segments
    log: float
    thresholds: Floats
    value: float
    bound: float | None = None


def most_segments(outputs: int) -> int:
    """The largest L for so many distinct output lengths."""
    return min(MOST_SEGMENTS, outputs)


def require_nested_options(segments: int | None, prompts: str) -> None:
    """Refuse a number of segments or a kind of prompts that makes no sense for any load.

    Raises:
        InputError: Naming the option.
    """
    if segments is not None and not (is_whole(segments) and segments >= 1):
        raise InputError("segments", segments, "a whole number, 1 or more, or None for the best")
    require_choice("prompts", prompts, get_args(Prompts), " or ".join(get_args(Prompts)))


def lengths_to_cut(
    workload: Workload, server: Server, segments: int | None, prompts: Prompts
) -> Lengths:
    """The lengths of a workload that can be cut into so many segments.

    Raises:
        InputError: More segments than distinct output lengths, or than are looked at.
    """
    lengths = distinct_lengths(workload, server, prompts)
    outputs = len(lengths.outputs)
    most = most_segments(outputs)
    if segments is not None and segments > most:
        allowed = f"1 to {most} for {outputs} distinct output lengths"
        raise InputError("segments", segments, allowed)
    return lengths


def candidate_designs(search: CutSearch) -> dict[int, Design]:
    """Designs by L from the dynamic program, for every L that may be."""
    most = search.segments or search.most
    return designs_over_rules(search.lengths, search.log(most), most)


def buffer_designs(search: CutSearch) -> tuple[Design, ...]:
    """Requirement by part against L (THEORY 5.2): base memory falls with L and the buffers grow.

    One rule for all L, that of the design of least requirement with which drift holds, so that the
    L alone differ. Empty where drift holds for no design.
    """
    lengths, most = search.lengths, search.most
    log = search.log(most)
    designs = designs_over_rules(lengths, log, most).values()
    if not designs:
        return ()
    best = min(designs, key=lambda one: one.requirement_tokens)
    return best_designs(lengths, log, best.rule, most)


def best_over_cuts(search: CutSearch) -> WholeOptimum:
    """The best L that is allowed; its value is infinite where nothing is feasible."""
    lengths, wanted = search.lengths, search.segments
    every = np.arange(len(lengths.outputs))
    if wanted == len(every) or len(every) == 1:
        return _whole(search, lengths.segments(every))
    designs = candidate_designs(search)
    if wanted is not None:
        designs = {k: one for k, one in designs.items() if k == wanted}
    if not designs:
        return _whole(search, lengths.segments(even_cuts(lengths, wanted)))
    found = _until_worse(search, designs.values())
    design = designs[found.segments.count]
    better = refined(design, lengths, search.log(len(design.ends)))
    if better is design:
        return found
    return min(found, _whole(search, better.segments), key=lambda one: one.value)


def _until_worse(search: CutSearch, designs: Iterable[Design]) -> WholeOptimum:
    """Whole thresholds on the cuts of each design, from few segments on, while that may help."""
    best: WholeOptimum | None = None
    since = 0
    for design in designs:
        found = _whole(search, design.segments)
        since += 1
        if best is None or found.value < best.value:
            best, since = found, 0
        if since >= _PATIENCE and np.isfinite(best.value):
            break
    assert best is not None
    return best


def even_cuts(lengths: Lengths, count: int | None) -> np.ndarray:
    """Where the dynamic program has no answer: as many lengths in each segment."""
    m = len(lengths.outputs)
    ends = np.linspace(0, m, (count or most_segments(m)) + 1)[1:]
    return np.ceil(ends - 1e-9).astype(np.int64) - 1


def _whole(search: CutSearch, segments: Segments) -> WholeOptimum:
    """The best whole thresholds that the descent finds without the geometric program."""
    log = search.log(segments.count)
    starts, aim = chains(segments), aim_of(search.objective, segments, log)
    thresholds, value = best_whole(aim, starts)
    if math.isinf(value):
        least, _ = best_whole(aim_of("memory", segments, log), starts)
        thresholds, value = best_whole(aim, least[None])
    limits = {"slack": 1 - STRICT, "memory": float(search.server.usable_kv_tokens)}
    if value > limits.get(search.objective, math.inf):
        value = math.inf
    return WholeOptimum(segments, log, thresholds, value)


def with_program(search: CutSearch, best: WholeOptimum) -> WholeOptimum:
    """The same with the bound of the geometric program, and its optimum as one more start."""
    from thresholds.solvers.nested.program import relaxed_optimum  # cvxpy is slow to import

    relaxed = relaxed_optimum(best.segments, best.log, search.objective)
    if relaxed is None:
        return best
    rays = relaxed.thresholds * _RAYS[:, None]
    starts = np.vstack([best.thresholds, repaired(rays, best.segments)])
    aim = aim_of(search.objective, best.segments, best.log)
    thresholds, value = best_whole(aim, starts)
    bound = relaxed.value if relaxed.is_bound else None
    return WholeOptimum(best.segments, best.log, thresholds, value, bound)

"""Cuts of Nested WAIT with whole thresholds: what is looked for, and good designs to start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from fluid.errors import InputError
from fluid.server import Server
from fluid.workload import Workload
from thresholds.checks import is_whole, require_choice
from thresholds.solvers.nested.design import Design, best_designs, designs_over_rules
from thresholds.solvers.nested.requirement import Floats, log_term
from thresholds.solvers.nested.search import aim_of, best_of, best_whole, chains, repaired
from thresholds.solvers.nested.segments import (
    Integers,
    Lengths,
    Prompts,
    Segments,
    distinct_lengths,
)

MOST_SEGMENTS = 32
"""Largest L that is looked at where none is given."""

_FEW = (1, 2, 3, 5, 8, 13, 21)
"""Numbers of segments of which evenly cut ones are looked at first."""

_RAYS = np.geomspace(0.8, 1.6, 60)
"""Thresholds near which a descent starts, times these, rounded."""


@dataclass(frozen=True)
class CutSearch:
    """What is looked for: thresholds on cuts of these lengths.

    Attributes:
        objective: One of `goals.OBJECTIVES`.
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
    """Cuts with whole thresholds.

    Attributes:
        ends: Index of the last length of each segment, shape (L,).
        log: K of THEORY 4.5 for these segments.
        thresholds: n_k, shape (L,).
        value: The objective there: seconds, tokens or load; infinite where nothing is allowed.
        bound: What no thresholds on any cuts can beat, None where that is not known.
    """

    ends: Integers
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


def known_design(search: CutSearch) -> WholeOptimum:
    """A design to start from, of few simple cuts; its value is infinite where none is feasible."""
    lengths = search.lengths
    m = len(lengths.outputs)
    counts = {search.segments} if search.segments else {min(m, MOST_SEGMENTS), *_FEW}
    best: WholeOptimum | None = None
    for count in sorted(one for one in counts if one <= m):
        ends = even_cuts(lengths, count)
        segments = lengths.segments(ends)
        log = search.log(segments.count)
        n, value = best_of(aim_of(search.objective, segments, log), chains(segments))
        if best is None or value < best.value:
            best = WholeOptimum(ends, segments, log, n, value)
    assert best is not None
    return whole_on(search, best.ends, best.thresholds)


def even_cuts(lengths: Lengths, count: int | None) -> np.ndarray:
    """Where the dynamic program has no answer: as many lengths in each segment."""
    m = len(lengths.outputs)
    ends = np.linspace(0, m, (count or most_segments(m)) + 1)[1:]
    return np.ceil(ends - 1e-9).astype(np.int64) - 1


def whole_on(search: CutSearch, ends: Integers, near: Floats) -> WholeOptimum:
    """The best whole thresholds that a descent finds on these cuts.

    Args:
        near: Thresholds to start from, (L,), by themselves and as rays, repaired.
    """
    segments = search.lengths.segments(ends)
    log = search.log(segments.count)
    starts = np.vstack([np.rint(near), repaired(near * _RAYS[:, None], segments)])
    thresholds, value = best_whole(aim_of(search.objective, segments, log), starts)
    return WholeOptimum(ends, segments, log, thresholds, value)

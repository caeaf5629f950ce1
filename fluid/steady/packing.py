"""How much of the fluid region whole requests can fill: a bracket of the largest rates.

The memory of THEORY 2.3 is filled by averages: it is necessary that Σ λ_j m_j iterations' worth of
KV fits, but only where many requests share the memory does a schedule come close to it. The *inner*
bound is what periodic schedules reach (`fluid.steady.patterns`), mixed in time by a linear program:

    maximise α   subject to   Σ_c x_c N_cj ≥ α λ_j,   Σ_c x_c T_c ≤ 1,   x ≥ 0

with N_cj requests of class j in each period of pattern c, which lasts T_c seconds. Between the two
bounds nothing is claimed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fluid.linear import best_point
from fluid.server import Server, require_fits
from fluid.stages import class_stages, rounded_sum
from fluid.steady.intake import Intake, intake
from fluid.steady.patterns import Packer, Pattern
from fluid.steady.stability import Stability, curve_stability, largest_scale
from fluid.workload import Workload

Floats = NDArray[np.float64]

ENOUGH = 0.99
"""Share of the fluid bound from which on the two are said to agree."""

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Requests per period of the patterns that are tried, by growing length of the period."""

_ALONE = 8
"""Most requests per period of the patterns of one class alone."""

_WORK = 15_000
"""Most iterations in a period times classes."""

_MANY = 12
"""Residents from which on patterns of all of them come first."""

_MOST_KINDS = 1000
"""Different requests beyond which no pattern is looked for: each alone takes a search."""

_BANDS = (2, 3, 4, 6, 8)
"""Bands of prompts, and of outputs, whose requests take the same room, see `_banded`."""

_ROUNDING = 1e-9

_PATIENCE = 4
_GAIN = 1e-3
_SHORT = 60
"""So many groups of patterns that gain less than this share end the search, but for short periods,
which cost next to nothing."""

_MIXED_AT_MOST = {2: 6, 3: 4}
"""By number of classes, requests per period up to which every mix of them is tried."""

_VARIED_CLASSES = 8
"""Most classes for which patterns with one request more of a class are tried."""


@dataclass(frozen=True, eq=False)
class Share:
    """Part of the time that a pattern runs: `periods_per_s` periods in each second."""

    pattern: Pattern
    periods_per_s: float


@dataclass(frozen=True, eq=False)
class Packing:
    """Largest stable multiples of a workload's rates: what no schedule exceeds, what one reaches.

    Attributes:
        fluid_scale: α* of THEORY 2.3, which no schedule of whole prompts exceeds where the
            iteration time is affine.
        inner_scale: A multiple that is reached for certain, by `schedule`, by even spacing or with
            the cap.
        cap_requests: How many requests of any kind fit at their peaks. With so many in service at
            most, nothing is ever evicted, whatever the order.
        capped_scale: The multiple that greedy admission with this cap reaches: at a backlog
            `cap_requests` advance in every iteration, so that Σ λ_j (w_j + d0·S_j/cap) ≤ 1.
        schedule: The patterns that reach `inner_scale`; empty where none was needed.

    >>> import fluidwait as fw
    >>> from fluid.steady.packing import packing
    >>> tau = fw.IterationTime.affine(0.01)
    >>> server = fw.Server(name="tiny", source="an example", kv_capacity_tokens=2,
    ...                    first_token="decode", iteration_time=tau)
    >>> found = packing(fw.Workload.of(one=fw.Requests(1.0, prompt=1, output=1)), server)
    >>> round(found.inner_scale, 2), round(found.fluid_scale, 2), found.matters
    (50.0, 66.67, True)
    """

    fluid_scale: float
    inner_scale: float
    cap_requests: int
    capped_scale: float
    schedule: tuple[Share, ...]

    @property
    def matters(self) -> bool:
        """Whether the bounds differ by more than 1 %."""
        return self.inner_scale < ENOUGH * self.fluid_scale

    @property
    def is_certain(self) -> bool:
        """Whether the workload's own rates may be claimed."""
        return self.certain_scale >= 1

    @property
    def certain_scale(self) -> float:
        """The largest multiple that may be claimed: the fluid bound where the two agree."""
        return self.inner_scale if self.matters else self.fluid_scale


def packing(workload: Workload, server: Server) -> Packing:
    """Both bounds; costs next to nothing where many requests share the memory.

    Raises:
        InputError: A request does not fit into the cache, or rates whose mean is not 1.
    """
    require_fits(workload, server)
    if workload.has_prefixes:
        # Nothing is known beside the fluid limit: what residents share depends on who they are.
        scale = largest_scale(workload, server)
        return Packing(scale, scale, 0, scale, ())
    quick = _without_patterns(workload, server)
    if not quick.matters:
        return quick
    first, kind = workload.columns.kinds
    if len(first) > _MOST_KINDS:
        return quick
    # One search for all rates of a mix.
    classes = tuple(
        workload.classes[index].model_copy(
            update={"name": f"c{k}", "rate_per_s": float(f"{share:.12g}"), "slo": None}
            | {"weight": 1.0, "shared_prefix_tokens": None, "conversation": None}
        )
        for k, (index, share) in enumerate(
            zip(first.tolist(), np.bincount(kind, weights=workload.shares).tolist(), strict=True)
        )
    )
    found = _packing(Workload(name="mix", classes=classes), server)
    rate = workload.rate_per_s
    shares = tuple(Share(one.pattern, one.periods_per_s) for one in found.schedule)
    return Packing(
        found.fluid_scale / rate,
        found.inner_scale / rate,
        found.cap_requests,
        found.capped_scale / rate,
        shares,
    )


def _without_patterns(workload: Workload, server: Server) -> Packing:
    """Both bounds as far as no pattern is needed for them."""
    curve = intake(workload, server)
    verdict, _ = curve_stability(workload, curve)
    return Packing(verdict.max_scale, quick_scale(curve, verdict), *_capped(curve), ())


@lru_cache(maxsize=256)
def _packing(workload: Workload, server: Server) -> Packing:
    best, idle = _without_patterns(workload, server), 0
    if not best.matters:
        return best
    curve = intake(workload, server)
    rates = curve.flow.rates_per_s
    stages = tuple(class_stages(one, server) for one in workload.classes)
    patterns: list[Pattern] = []
    for fresh in _candidates(Packer(server, stages), curve):
        patterns += fresh
        inner, schedule = _mixed(patterns, rates)
        found = replace(best, inner_scale=inner, schedule=schedule)
        idle = idle + 1 if found.inner_scale < (1 + _GAIN) * best.inner_scale else 0
        if found.inner_scale >= (1 - _ROUNDING) * best.inner_scale:
            best = found
        if not best.matters or (idle >= _PATIENCE and fresh[-1].iterations > _SHORT):
            break
    return best


def quick_scale(curve: Intake, verdict: Stability) -> float:
    """A multiple of the rates that is reached for certain, found without any pattern."""
    spaced = _evenly_spaced_scale(curve, verdict.boundary_per_stage[0] / curve.flow.rates_per_s[0])
    return max(spaced, _capped(curve)[1])


def _evenly_spaced_scale(curve: Intake, boundary_intake_s: float) -> float:
    """α reached where each class is admitted at even intervals, from no schedule at all.

    A class that starts a request every g iterations holds at most m/g and its peak once, as KV
    grows with the stage, so that Σ_j peak_j of the memory is enough to spare.
    """
    choices = [(float(curve.sums.last_held_tokens.sum()), curve.kv_tokens_per_s)]
    if len(curve.linear_s) > _BANDS[0] ** 2:
        choices += [_banded(curve, bands) for bands in _BANDS]
    found = [
        min(boundary_intake_s, (curve.server.usable_kv_tokens - peaks) / per_s)
        for peaks, per_s in choices
        if peaks < curve.server.usable_kv_tokens
    ]
    return max((intake_s / curve.time_s(intake_s) for intake_s in found), default=0.0)


def _banded(curve: Intake, bands: int) -> tuple[float, float]:
    """Peaks, and KV per second of intake, of classes in bands of like lengths, one room for each.

    All requests of a band take turns in the room of one with its longest prompt and most stages.
    """
    first, stages = curve.sums.first_held_tokens, curve.sums.count
    edges = np.linspace(0, 1, bands + 1)[1:-1]
    row, column = (np.searchsorted(np.quantile(one, edges), one) for one in (first, stages))
    _, band = np.unique(row * bands + column, return_inverse=True)
    start, most = np.zeros(band.max() + 1), np.zeros(band.max() + 1)
    np.maximum.at(start, band, first)
    np.maximum.at(most, band, stages)
    block = curve.server.block_tokens
    peaks = start + np.ceil((most - 1) / block) * block
    sums = most * start + rounded_sum(most - 1, block)
    return float(peaks.sum()), float(np.bincount(band, weights=curve.flow.rates_per_s) @ sums)


def _capped(curve: Intake) -> tuple[int, float]:
    """The cap without evictions, and the α that it reaches at a backlog."""
    cap = curve.server.usable_kv_tokens // int(curve.sums.last_held_tokens.max())
    if curve.server.max_num_seqs is not None:
        cap = min(cap, curve.server.max_num_seqs)
    intake_s = cap / float(curve.flow.rates_per_s @ curve.sums.count)
    return cap, intake_s / curve.time_s(intake_s)


def _candidates(packer: Packer, curve: Intake) -> Iterator[list[Pattern]]:
    """Patterns in groups, the most promising first."""
    rates, lengths = curve.flow.rates_per_s, curve.sums.count
    # Iterations in which one request comes in, at full memory.
    spacing = curve.kv_tokens_per_s / curve.server.usable_kv_tokens
    classes = len(rates)
    residents = max(1.0, float(rates @ lengths) / spacing)
    if residents > _MANY:
        for factor in (2, 4, 8):
            if factor * residents * spacing * classes <= 2 * _WORK:
                yield [packer.tightest(np.ceil(rates * factor * residents).astype(int).tolist())]
    alone = []
    for k in range(classes):
        own = packer.stages[k].memory_sum / curve.server.usable_kv_tokens
        alone += [
            packer.tightest([count if k == j else 0 for j in range(classes)])
            for count in range(1, _ALONE + 1 if classes <= _VARIED_CLASSES else 2)
            if count == 1 or count * own * classes <= _WORK
        ]
    yield alone
    for size in range(2, _MIXED_AT_MOST.get(classes, 0) + 1):
        if size * spacing * classes <= _WORK:
            mixes = itertools.product(range(size), repeat=classes)
            yield [packer.tightest(counts) for counts in mixes if sum(counts) == size]
    for size in _SIZES:
        if size * spacing * classes > _WORK:
            break
        counts = _rounded(rates * size)
        yield list(_filled(packer, counts))
        if 1 < classes <= _VARIED_CLASSES:
            for k in np.flatnonzero(counts == 0).tolist():
                yield list(_filled(packer, counts + (np.arange(classes) == k)))


def _filled(packer: Packer, counts: NDArray[np.int64]) -> Iterator[Pattern]:
    """The tightest pattern of these requests, and what fits into its period beside them."""
    found = packer.tightest(counts.tolist())
    yield found
    more = found.counts
    for k in np.argsort([-one.memory_sum for one in packer.stages]).tolist():
        unit, step = np.eye(len(more), dtype=np.int64)[k], 1
        # Twice as many more while they fit, then half as many.
        while fuller := packer.pattern((more + step * unit).tolist(), found.iterations):
            more, step = fuller.counts, 2 * step
            yield fuller
        while step := step // 2:
            if fuller := packer.pattern((more + step * unit).tolist(), found.iterations):
                more = fuller.counts
                yield fuller


def _rounded(amounts: Floats) -> NDArray[np.int64]:
    """Whole numbers with the same sum, by largest remainders, shape (m,)."""
    whole = np.floor(amounts + 1e-9).astype(np.int64)
    missing = round(float(amounts.sum())) - int(whole.sum())
    order = np.argsort(whole - amounts, kind="stable")
    whole[order[:missing]] += 1
    return whole


def _mixed(patterns: list[Pattern], rates: Floats) -> tuple[float, tuple[Share, ...]]:
    """The largest multiple of the rates that the patterns reach together, and how."""
    served = np.array([one.counts / one.seconds for one in patterns])
    found = best_point(
        c=np.append(np.zeros(len(patterns)), -1.0),
        A_ub=np.column_stack([-served.T, rates]),
        b_ub=np.zeros(len(rates)),
        A_eq=np.append(np.ones(len(patterns)), 0.0)[None],
        b_eq=[1.0],
    )
    shares = tuple(
        Share(one, float(part) / one.seconds)
        for one, part in zip(patterns, found[:-1], strict=True)
        if part > 1e-9
    )
    return float(found[-1]), shares

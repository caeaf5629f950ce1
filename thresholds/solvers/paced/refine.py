"""Refines pace, cap and watermark on a simulator: what a closed form cannot know.

What is maximised is the *saturation throughput*: completions per second, as a share of the fluid
limit, while 5 % more than the limit arrives. It is the rate that a setting keeps up for ever, and
unlike a bisection for the largest stable rate it takes one run. Every setting sees the same
arrivals.

Three families are searched, from the simplest to the most restrained: a watermark alone; a cap and
a watermark; a pace and a watermark. A coarse grid over all three comes first, then COBYQA
(`scipy.optimize`) within each from its best grid point: a derivative-free method for few, noisy
and bounded variables that builds quadratic models, which smooth what is left of the noise, and
needs some ten evaluations where a global search needs hundreds. The winners meet again on fresh
arrivals, as the best of many is too good on those that chose it. The simplest family within
`AS_GOOD` of the best one wins.

The budget decides how much is simulated: a short run first shows what a request costs here, and the
largest of `SIZES` whose grid and final round fit is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.statistics import half_width
from fluid.workload import Workload
from thresholds.evaluator import Evaluation, Evaluator
from thresholds.fields import Scheduler
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import LARGEST_WATERMARK, LEAST_WATERMARK, BoundaryLoad

Floats = NDArray[np.float64]

OFFERED = 1.05
"""Multiple of the fluid limit at which saturation throughput is measured."""

AS_GOOD = 0.007
"""Share of the limit by which a simpler family may be worse and still win."""

_INDISTINCT = 0.001
"""Share of the limit that settings on the same arrivals need to differ by."""

_REQUESTS = (4_000, 40_000)
"""Of a run of 60 turnovers, at least and at most; shorter ones have their part of it."""


@dataclass(frozen=True)
class SearchSize:
    """How much is simulated.

    Attributes:
        turnovers: Requests of a run as a multiple of the fluid population.
        replications: Per setting of the search.
        fresh_replications: Per setting of the final round.
    """

    turnovers: int
    replications: int
    fresh_replications: int

    def requests(self, population: float) -> int:
        """Arrivals per run."""
        whole = float(np.clip(60 * population, *_REQUESTS))
        return round(whole * self.turnovers / 60)


SIZES = (SearchSize(60, 4, 12), SearchSize(60, 2, 8), SearchSize(40, 2, 6), SearchSize(30, 1, 4))
"""From the one that is wanted to the least, which runs whatever the budget. Short runs hide a slow
collapse, so that replications go first."""

_WARM_UP_REQUESTS, _PILOT_REPLICATIONS, _PILOT_SEED = 100, 2, 2
_SPARE = 0.8
"""Share of the remaining time that is planned: times of a busy machine vary."""

_EVALUATIONS = 15
"""At most so many per family in the local search."""

_WATERMARKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
_CAPS = (0.8, 0.9, 0.95, 1.0, 1.1, 1.2)
_PACES = (1.0, 1.1, 1.3)


@dataclass(frozen=True)
class Family:
    """Settings with one restraint beside the watermark.

    Attributes:
        setting: Of (multiple of the fluid pace or population, watermark).
        bounds: Of the multiple; None where the watermark is alone.
    """

    name: str
    setting: Callable[[BoundaryLoad, float, float], Limits]
    multiples: tuple[float, ...]
    watermarks: tuple[float, ...]
    bounds: tuple[float, float] | None


FAMILIES = (
    Family(
        "watermark alone",
        lambda load, multiple, watermark: Limits(watermark_fraction=watermark),
        (1.0,),
        _WATERMARKS,
        None,
    ),
    Family(
        "cap and watermark",
        lambda load, multiple, watermark: Limits(
            cap_requests=max(1, round(multiple * load.population)), watermark_fraction=watermark
        ),
        _CAPS,
        (0.0, 0.05),
        (0.7, 1.3),
    ),
    Family(
        "pace and watermark",
        lambda load, multiple, watermark: Limits(
            multiple * load.pace_per_iteration, watermark_fraction=watermark
        ),
        _PACES,
        (LEAST_WATERMARK, 0.05),
        (0.9, 1.6),
    ),
)
"""From the simplest to the most restrained."""


@dataclass(frozen=True)
class Finalist:
    """The best setting of a family.

    Attributes:
        throughput_shares: Saturation throughput ÷ fluid limit on fresh arrivals, per replication.
    """

    family: str
    limits: Limits
    throughput_shares: Floats

    @property
    def mean(self) -> float:
        """Mean saturation throughput ÷ fluid limit."""
        return float(self.throughput_shares.mean())

    @property
    def half_width(self) -> float:
        """Of its 95 % interval over replications."""
        return half_width(self.throughput_shares)


@dataclass(frozen=True)
class Refined:
    """Result of a refinement.

    Attributes:
        chosen: The simplest finalist within `AS_GOOD` of the best.
        finalists: One per family, in the order of `FAMILIES`.
        at_saturation: Their evaluations on fresh arrivals, alike.
        at_design: The chosen setting, then no restraint at all, at the workload's own rate.
        evaluations: Settings simulated, the fresh ones included.
        replications, requests, seed: Of the fresh evaluations.
    """

    chosen: Finalist
    finalists: tuple[Finalist, ...]
    at_saturation: tuple[Evaluation, ...]
    at_design: tuple[Evaluation, ...]
    evaluations: int
    replications: int
    requests: int
    seed: int


def refine(
    workload: Workload,
    server: Server,
    scheduler: Scheduler,
    load: BoundaryLoad,
    evaluator: Evaluator,
    budget_s: float,
) -> Refined:
    """Search for the setting of largest saturation throughput.

    The grid and the final round always run, sized to `budget_s`; the local searches share what is
    left beside them, and a setting once begun is finished. Only a budget below the least of
    `SIZES` is exceeded.

    Args:
        load: The workload's mix at the boundary; its closed form is a point of the grid.
    """
    deadline_s = time.monotonic() + budget_s
    trials = _Trials(workload, server, scheduler, load, evaluator)
    grid = _grid(load)
    trials.choose_size(sum(map(len, grid)), deadline_s)
    trials.throughputs([one for points in grid for one in points])
    until_s = deadline_s - trials.final_s()
    best = []
    for index, (family, points) in enumerate(zip(FAMILIES, grid, strict=True)):
        share_s = (until_s - time.monotonic()) / (len(FAMILIES) - index)
        tried = _local(trials, load, family, points, time.monotonic() + share_s)
        best.append(_least_restrained(trials, tried))
    return _final(trials, best)


class _Trials:
    """Simulates settings at saturation on one set of arrivals, each only once."""

    def __init__(
        self,
        workload: Workload,
        server: Server,
        scheduler: Scheduler,
        load: BoundaryLoad,
        evaluator: Evaluator,
    ) -> None:
        self.design = workload
        self.limit_per_s = load.rate_per_s
        self.saturated = workload.at_rate(OFFERED * load.rate_per_s)
        self.size = SIZES[-1]
        self.known: dict[Limits, float] = {}
        self._population = load.population
        self._place = (server, scheduler)
        self._evaluator = evaluator
        self._spent_s = 0.0
        self._simulated = 0

    @property
    def requests(self) -> int:
        """Arrivals per run."""
        return self.size.requests(self._population)

    def choose_size(self, grid: int, deadline_s: float) -> None:
        """The largest size whose grid, of so many settings, and final round fit.

        The first run compiles the policy and tells nothing about the next ones.
        """
        pilot = [Limits(watermark_fraction=LEAST_WATERMARK)]
        server, scheduler = self._place
        self._evaluator(
            self.saturated,
            server,
            scheduler,
            pilot,
            replications=1,
            requests=_WARM_UP_REQUESTS,
            seed=_PILOT_SEED,
        )
        self.evaluate(self.saturated, pilot, _PILOT_REPLICATIONS, _PILOT_SEED)
        left_s = _SPARE * (deadline_s - time.monotonic())
        for self.size in SIZES:
            if self._seconds(grid, self.size.replications) + self.final_s() <= left_s:
                return

    def final_s(self) -> float:
        """What the final round takes, about."""
        return self._seconds(len(FAMILIES) + 2, self.size.fresh_replications)

    def _seconds(self, settings: int, replications: int) -> float:
        """What so many runs take, by those that have been."""
        return settings * replications * self.requests * self._spent_s / self._simulated

    def throughputs(self, settings: Sequence[Limits]) -> list[float]:
        """Mean saturation throughput ÷ fluid limit of each."""
        new = [one for one in dict.fromkeys(settings) if one not in self.known]
        if new:
            for one in self.evaluate(self.saturated, new, self.size.replications, seed=0):
                self.known[one.limits] = float(np.mean(one.completed_per_s)) / self.limit_per_s
        return [self.known[one] for one in settings]

    def evaluate(
        self, workload: Workload, settings: Sequence[Limits], replications: int, seed: int
    ) -> list[Evaluation]:
        began_s = time.monotonic()
        found = self._evaluator(
            workload,
            *self._place,
            settings,
            replications=replications,
            requests=self.requests,
            seed=seed,
        )
        self._spent_s += time.monotonic() - began_s
        self._simulated += len(settings) * replications * self.requests
        return found


def _grid(load: BoundaryLoad) -> list[list[Limits]]:
    """The grid points of each family."""
    return [
        list(
            dict.fromkeys(
                family.setting(load, multiple, watermark)
                for multiple in family.multiples
                for watermark in (*family.watermarks, load.watermark_fraction)
            )
        )
        for family in FAMILIES
    ]


def _least_restrained(trials: _Trials, tried: Sequence[Limits]) -> Limits:
    """The smallest watermark among the settings that are as good as the best."""
    most = max(trials.known[one] for one in tried)
    good = [one for one in tried if trials.known[one] >= most - _INDISTINCT]
    return min(good, key=lambda one: one.watermark_fraction)


def _local(
    trials: _Trials,
    load: BoundaryLoad,
    family: Family,
    points: Sequence[Limits],
    deadline_s: float,
) -> list[Limits]:
    """Grid points of the family and all settings that COBYQA tries from the best of them.

    Variables are scaled to the unit interval.
    """
    from scipy.optimize import minimize

    multiples = family.bounds or (1.0, 1.0)
    least = np.array([multiples[0], LEAST_WATERMARK])
    width = np.array([multiples[1], LARGEST_WATERMARK]) - least
    free = slice(0 if family.bounds else 1, 2)

    def setting(x: Floats) -> Limits:
        point = least.copy()
        point[free] += width[free] * np.clip(x, 0.0, 1.0)
        return family.setting(load, float(point[0]), float(point[1]))

    tried = list(points)
    start = max(points, key=lambda one: trials.known[one])

    def loss(x: Floats) -> float:
        limits = setting(x)
        tried.append(limits)
        return -trials.throughputs([limits])[0]

    def stop_in_time(intermediate_result: object) -> None:
        if time.monotonic() > deadline_s:
            raise StopIteration

    if time.monotonic() < deadline_s:
        origin = ((_coordinates(load, start) - least)[free] / width[free]).clip(0.0, 1.0)
        minimize(
            loss,
            origin,
            method="COBYQA",
            bounds=[(0.0, 1.0)] * len(origin),
            callback=stop_in_time,
            options={
                "maxfev": _EVALUATIONS,
                "initial_tr_radius": 0.15,
                "final_tr_radius": 0.01,
            },
        )
    return tried


def _coordinates(load: BoundaryLoad, limits: Limits) -> Floats:
    """(multiple, watermark) of a setting."""
    multiple = 1.0
    if limits.cap_requests is not None:
        multiple = limits.cap_requests / load.population
    if limits.pace_per_iteration is not None:
        multiple = limits.pace_per_iteration / load.pace_per_iteration
    return np.array([multiple, limits.watermark_fraction])


def _final(trials: _Trials, best: Sequence[Limits]) -> Refined:
    """The families' winners on fresh arrivals."""
    seed = 1
    replications = trials.size.fresh_replications
    fresh = trials.evaluate(trials.saturated, best, replications, seed)
    finalists = tuple(
        Finalist(family.name, one.limits, np.array(one.completed_per_s) / trials.limit_per_s)
        for family, one in zip(FAMILIES, fresh, strict=True)
    )
    most = max(one.mean for one in finalists)
    chosen = next(one for one in finalists if one.mean >= most - AS_GOOD)
    at_design = trials.evaluate(trials.design, [chosen.limits, Limits()], replications, seed)
    return Refined(
        chosen=chosen,
        finalists=finalists,
        at_saturation=tuple(fresh),
        at_design=tuple(at_design),
        evaluations=len(trials.known) + len(fresh) + len(at_design),
        replications=replications,
        requests=trials.requests,
        seed=seed,
    )

"""A race over settings: many on short runs, the best of them on longer and longer ones.

Successive halving (Karnin, Koren & Somekh 2013, ICML; Jamieson & Talwalkar 2016, AISTATS): each
round simulates those left on twice the replications of the round before and keeps the better third.
All settings see the same arrivals (common random numbers), so that what tells them apart is mostly
not noise; where it is, a round keeps more: whoever is not worse than the best by more than the 95 %
interval of the paired difference, up to half. A grid and a race rather than a model of the
response (as in Optuna): the settings are few and mostly whole numbers or switches, one simulation
answers thousands of settings a minute, and the same seed gives the same answer on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from validation.experiments.boundary_search import Budget
from validation.experiments.planning.space import Setting
from validation.experiments.simulate import Sample, samples
from validation.simulator.metrics import Floats, Interval, interval
from validation.simulator.model import Model
from validation.simulator.recording import TPOT, TTFT
from validation.simulator.runs import Runs

Objective = Literal["goodput", "ttft"]

FIRST_REPLICATIONS, MOST_REPLICATIONS = 2, 16
FINALISTS = 3
_KEEP, _KEEP_AT_MOST = 1 / 3, 1 / 2
FEW_TIES = 40
"""Another round of so many costs little."""
_P99 = 2

SATURATED = 1.3
"""Multiple of the fluid limit that is offered where there are no service levels: who completes
most of it is best."""

_SLOPE, _STEP_UP, _STEP_DOWN = 15.0, 0.08, 0.15
"""Of the logarithm of what misses in that of the rate, about; and the largest steps in it."""

_CALIBRATIONS = 8
_NEAR = 0.3


@dataclass(frozen=True, eq=False)
class Tried:
    """What one setting did on one set of runs.

    Attributes:
        offered_per_s: Rate of arrivals.
        goodput_each_per_s: Requests per second that attain their levels (all that complete, where
            there are none), by replication.
        ttft_p99_each_s, tpot_p99_each_s: By replication; NaN where nobody has one.
    """

    setting: Setting
    offered_per_s: float
    goodput_each_per_s: Floats
    ttft_p99_each_s: Floats
    tpot_p99_each_s: Floats
    evictions_per_request: float

    @property
    def goodput_per_s(self) -> float:
        """Mean over replications."""
        return float(self.goodput_each_per_s.mean())

    @property
    def ttft_p99_s(self) -> float:
        return float(np.nanmean(self.ttft_p99_each_s))

    @property
    def tpot_p99_s(self) -> float:
        return float(np.nanmean(self.tpot_p99_each_s))

    def scores(self, objective: Objective) -> Floats:
        """By replication, the more the better."""
        return self.goodput_each_per_s if objective == "goodput" else -self.ttft_p99_each_s

    def better_by(self, other: Tried, objective: Objective) -> Interval:
        """Paired difference of the scores with its 95 % interval, over the mean of the other's."""
        mine, theirs = self.scores(objective), other.scores(objective)
        scale = abs(float(theirs.mean()))
        found = interval(mine - theirs)
        return Interval(found.mean / scale, found.half_width / scale) if scale else found


def tried(
    model: Model,
    settings: Sequence[Setting],
    runs: Runs,
    rate_per_s: float,
    promised: bool,
) -> list[Tried]:
    """Simulate settings on the same arrivals.

    Args:
        promised: Whether there are service levels to attain.
    """
    done = samples(model, [one.configured() for one in settings], runs, rate_per_s)
    return [_read(one, sample, promised) for one, sample in zip(settings, done, strict=True)]


def _read(setting: Setting, sample: Sample, promised: bool) -> Tried:
    rows = sample.replications
    if promised:
        met = np.array([one.met_limits[-1] for one in rows])
        goodput = sample.rate_per_s * met / np.array([max(one.limited[-1], 1) for one in rows])
    else:
        goodput = np.array([one.completed / one.window_s for one in rows])
    quantiles = np.array([one.quantile_s[-1, :, _P99] for one in rows])
    return Tried(
        setting,
        sample.rate_per_s,
        goodput,
        quantiles[:, TTFT],
        quantiles[:, TPOT],
        float(np.mean([one.evictions / one.arrived for one in rows])),
    )


@dataclass(frozen=True)
class Course:
    """What a race is about.

    Attributes:
        quantile: Share of the requests that has to attain; None without service levels.
        limit_per_s: The fluid limit: no rate above it keeps levels.
    """

    model: Model
    objective: Objective
    quantile: float | None
    limit_per_s: float

    def run(self, settings: Sequence[Setting], runs: Runs, rate_per_s: float) -> list[Tried]:
        """One round, the best first; of those that do equally well, who has more room."""
        found = tried(self.model, settings, runs, rate_per_s, self.quantile is not None)
        return sorted(
            found, key=lambda one: (-float(one.scores(self.objective).mean()), self.nearness(one))
        )

    def nearness(self, one: Tried) -> float:
        """The larger of p99 TTFT and p99 TPOT, each over the strictest limit; 0 without limits.

        In a short run below the largest rate nobody misses, whatever the setting.
        """
        shapes = self.model.shapes
        ttft, tpot = shapes["ttft_limit_s"].min(), shapes["tpot_limit_s"].min()
        return float(np.nan_to_num(max(one.ttft_p99_s / ttft, one.tpot_p99_s / tpot)))

    def next_rate(self, best: Tried, runs: Runs) -> float:
        """A rate nearer to that at which the best just keeps its promise."""
        if self.objective != "goodput" or self.quantile is None:
            return best.offered_per_s
        excess = self.excess(best, runs)
        step = min(max(-excess / _SLOPE, -_STEP_DOWN), _STEP_UP)
        return min(best.offered_per_s * math.exp(step), 0.999 * self.limit_per_s)

    def excess(self, one: Tried, runs: Runs) -> float:
        """Logarithm of the share that misses over the one that may."""
        assert self.quantile is not None
        missing = 1 - one.goodput_per_s / one.offered_per_s
        least = 0.5 / (runs.replications * runs.requests)
        return math.log(max(missing, least) / (1 - self.quantile))


@dataclass(frozen=True)
class Raced:
    """How a race went.

    Attributes:
        field: All settings, as they stood in the first round.
        best: Those left after the last one, the best first.
        rate_per_s: Offered in the last round.
        finished: Whether the budget lasted to the end.
    """

    field: tuple[Tried, ...]
    best: tuple[Tried, ...]
    rate_per_s: float
    runs: Runs
    finished: bool
    simulations: int


def race(
    course: Course,
    settings: Sequence[Setting],
    rate_per_s: float,
    runs: Runs,
    budget: Budget,
    on_done: Callable[[], None],
) -> Raced:
    """Race settings, the engine's defaults among them, from a first rate on.

    Args:
        runs: Requests per run, and the seed; replications are the race's own.
    """
    first = replace(runs, replications=FIRST_REPLICATIONS)
    rate_per_s = _calibrated(course, settings[0], rate_per_s, replace(runs, replications=4))
    field = ranking = course.run(settings, first, rate_per_s)
    simulations, size, finished = len(settings), first, True
    on_done()
    while len(ranking) > FINALISTS or size.replications < MOST_REPLICATIONS:
        if budget.clock() > budget.end_s:
            finished = False
            break
        left = _left(ranking, course.objective, size.replications == MOST_REPLICATIONS)
        rate_per_s = course.next_rate(ranking[0], size)
        size = replace(size, replications=min(2 * size.replications, MOST_REPLICATIONS))
        ranking = course.run(left, size, rate_per_s)
        simulations += len(left)
        on_done()
    return Raced(tuple(field), tuple(ranking), rate_per_s, size, finished, simulations)


def _left(ranking: Sequence[Tried], objective: Objective, last: bool = False) -> list[Setting]:
    """The better third, and who is not measurably worse than the best, up to half.

    Few who all do exactly as well stay until the `last` lengthening of the runs: where nobody
    misses anything, a round has told nothing.
    """
    best = ranking[0]
    count = max(math.ceil(len(ranking) * _KEEP), min(FINALISTS, len(ranking)))
    most = max(math.ceil(len(ranking) * _KEEP_AT_MOST), count)
    while count < most and ranking[count].better_by(best, objective).high >= 0:
        count += 1
    if not last:
        scores = best.scores(objective)
        ties = sum(np.array_equal(one.scores(objective), scores) for one in ranking)
        count = max(count, min(ties, FEW_TIES))
    return [one.setting for one in ranking[:count]]


def _calibrated(course: Course, default: Setting, rate_per_s: float, runs: Runs) -> float:
    """The rate at which the defaults about keep the promise: below it, all settings look alike."""
    if course.quantile is None or course.objective != "goodput":
        return rate_per_s
    for _ in range(_CALIBRATIONS):
        (found,) = course.run([default], runs, rate_per_s)
        if abs(course.excess(found, runs)) < _NEAR:
            break
        rate_per_s = course.next_rate(found, runs)
    return rate_per_s

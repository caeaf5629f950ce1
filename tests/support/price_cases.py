"""Prices of literal WAIT against one-sided differences of what they are derivatives of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.wait_cases import limited, server
from thresholds.solvers.majorant import Line
from thresholds.solvers.wait.batch import full_batch
from thresholds.solvers.wait.mean_limits import mean_limits
from thresholds.solvers.wait.relaxed import delay_program, relaxed_optimum
from thresholds.solvers.wait.solver import Wait

Floats = NDArray[np.float64]

_STEPS = (1e-4, 1e-5)
"""Next to a kink the optimum may be curved too much for the first."""

_CORNER_STEPS = (1e-6,)
"""Where the least thresholds fill the memory the optimum is known without an interior point."""

_RATE_STEP = 1e-6
_TOUCH = 3e-5
"""Prices of limits are those of limits that are longer by this share."""

_ROUNDING = 2e-8
"""Share of the objective that the accuracy of two optima hides; per relative step of a slope."""


_MOST_LISTED = 3_000_000
_NEAR = 1e-3
"""Thresholds whose latency is worse by a larger share are not the best at any rate nearby."""

_ALMOST = 1e-2
"""Unless a class is so near to its limit that a nearby rate changes much."""


@dataclass(frozen=True)
class PriceCheck:
    """A price beside the slopes to both sides of it; NaN where nothing is feasible there."""

    of: str
    price: float
    below: float
    above: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether it lies between the two slopes, or is the only one."""
        known = [one for one in (self.below, self.above) if not math.isnan(one)]
        if not known:
            return True
        room = self.tolerance + 0.02 * max(map(abs, known))
        return min(known) - room <= self.price <= max(known) + room


def price_instance(seed: int, wide: bool = False) -> tuple[Workload, Server]:
    """One to three short classes; memory binds in three of four, a limit on a mean in some.

    Wide: up to six classes, duplicate ones, prompts of one token, rates that differ a hundredfold.
    """
    rng = np.random.default_rng(seed)
    while True:
        m = int(rng.integers(1, 7 if wide else 4))
        load = workload(
            *(
                (float(rng.uniform(0.5, 10)), int(rng.integers(1, 60)), int(rng.integers(1, 6)))
                for _ in range(m)
            )
        )
        if wide:
            load = _widened(load, rng)
        tau = IterationTime.affine(
            rng.uniform(5e-3, 5e-2), rng.uniform(1e-7, 1e-5), rng.uniform(1e-8, 1e-6)
        )
        machine = server(tau, 10**7, ("prefill", "decode")[int(rng.integers(2))])
        load = load.at_rate(float(rng.uniform(2, 15)) / tau.overhead_s)
        batch = full_batch(load, machine)
        least = batch.least_thresholds()
        free = None if least is None else _relaxed(load, machine, 1e7)
        if least is None or free is None:
            continue
        tight, loose = float(batch.memory(least)), float(batch.memory(free.thresholds))
        share = float(rng.choice([0.0, rng.uniform(0.02, 0.95), rng.uniform(0.02, 0.95), 2.0]))
        tokens = math.ceil(tight + share * (loose - tight))
        machine = machine.model_copy(update={"kv_capacity_tokens": tokens})
        if rng.random() < 0.4:
            kind, index = str(rng.choice(["ttft_s", "latency_s", "tpot_s"])), int(rng.integers(m))
            ends = [getattr(batch, kind)(n)[index] for n in (least, free.thresholds)]
            single = load.classes[index].decode_tokens == 1
            if np.isfinite(ends).all() and not (kind == "tpot_s" and single):
                limit_s = float(ends[0] + rng.uniform(0.3, 1.0) * (ends[1] - ends[0]))
                load = limited(load, index, **{kind: limit_s})
        try:
            Wait().solve(load, machine)
        except InfeasibleError:
            continue
        return load, machine


def _widened(load: Workload, rng: np.random.Generator) -> Workload:
    rates = load.rates_per_s * 10 ** rng.uniform(-1, 1, len(load.classes))
    classes = [
        (float(rate), 1 if rng.random() < 0.3 else one.prefill_tokens, one.decode_tokens)
        for rate, one in zip(rates, load.classes, strict=True)
    ]
    if len(classes) > 1 and rng.random() < 0.5:
        classes[-1] = classes[0]
    return workload(*classes)


def price_checks(load: Workload, machine: Server) -> Iterator[PriceCheck]:
    """Every price of the table of least latency but those of the margin (THEORY 2.3)."""
    table = Wait().solve(load, machine)
    tokens = float(machine.usable_kv_tokens)
    assert table.solver.objective is not None
    for price in table.prices:
        if price.of == "kv_capacity_tokens":
            value = _relaxed_s(lambda scale: (load, tokens * scale), machine)
            steps = _CORNER_STEPS if _in_corner(load, machine) else _STEPS
            yield _check(price.of, price.value, value, tokens, steps)
        elif price.of.startswith("rate_per_s of "):
            index = [one.name for one in load.classes].index(price.of.split(" of ")[1])
            value = _whole_s(load, machine, index)
            yield _check(
                price.of, price.value, value, load.classes[index].rate_per_s, (_RATE_STEP,)
            )
        elif " of " in price.of and not price.of.startswith("margin"):
            kind, name = price.of.split(" of ")
            index = [one.name for one in load.classes].index(name)
            limit_s = float(getattr(load.classes[index].slo, kind))

            def moved(scale: float, *, at: int = index, of: str = kind, s: float = limit_s):  # type: ignore[no-untyped-def]
                return limited(load, at, **{of: s * scale}), tokens

            value = _relaxed_s(moved, machine)
            yield _check(price.of, price.value, value, limit_s, _STEPS, beyond=_TOUCH)


def _in_corner(load: Workload, machine: Server) -> bool:
    """Whether the least thresholds fill the memory, and no limit keeps one of them from growing."""
    batch, limits = full_batch(load, machine), mean_limits(load)
    least = limits.least_thresholds(batch)
    if least is None or batch.memory(least) < machine.usable_kv_tokens:
        return False
    grown = least * (1 + _TOUCH * np.eye(len(least)))
    return bool(limits.hold(batch, grown).all())


def _check(
    of: str,
    price: float,
    value_s: Callable[[float], float],
    limit: float,
    steps: tuple[float, ...],
    beyond: float = 0.0,
) -> PriceCheck:
    """By the first step that confirms the price, if any does.

    Args:
        beyond: Share of the limit that the slope above starts behind it.
    """
    value_s = cache(value_s)
    here = value_s(1.0)

    def slope(way: int, step: float) -> float:
        """One-sided, of second order: next to a kink the optimum is strongly curved."""
        start = 1 + beyond if way > 0 else 1.0
        at, once, twice = (value_s(start + k * way * step) for k in (0, 1, 2))
        return way * (4 * once - twice - 3 * at) / (2 * step * limit)

    for step in steps:
        exact = steps in (_CORNER_STEPS, (_RATE_STEP,))
        tolerance = _ROUNDING / (1e-4 if exact else step) * abs(here) / limit
        found = PriceCheck(of, price, slope(-1, step), slope(1, step), tolerance)
        if found.holds:
            break
    return found


def _relaxed(load: Workload, machine: Server, tokens: float):  # type: ignore[no-untyped-def]
    batch, limits = full_batch(load, machine), mean_limits(load)
    least = limits.least_thresholds(batch)
    assert least is not None
    tau = machine.iteration_time
    line = Line(tau.overhead_s, tau.last_slope_s)
    return relaxed_optimum(delay_program(batch, limits, batch.stages - 1, line, least, tokens))


def _relaxed_s(
    at: Callable[[float], tuple[Workload, float]], machine: Server
) -> Callable[[float], float]:
    """The best real thresholds' mean latency; at the least thresholds that of these."""

    def value_s(scale: float) -> float:
        load, tokens = at(scale)
        batch, limits = full_batch(load, machine), mean_limits(load)
        least = limits.least_thresholds(batch)
        if least is None or batch.memory(least) > tokens:
            return math.nan
        found = _relaxed(load, machine, tokens)
        if found is not None:
            return float(found.value_s)
        # Next to the least thresholds: all that there is beyond to one class, or to none.
        spare = np.diag((tokens - batch.memory(least)) / batch.memory_tokens)
        n = np.vstack([least, least + spare])
        n = n[limits.hold(batch, n)]
        return float(batch.mean_latency_s(n).min(initial=math.inf))

    return value_s


def _whole_s(load: Workload, machine: Server, index: int) -> Callable[[float], float]:
    """The best whole thresholds' mean latency at another rate of one class, nearby."""

    def at(scale: float) -> Workload:
        classes = list(load.classes)
        one = classes[index]
        classes[index] = one.model_copy(update={"rate_per_s": scale * one.rate_per_s})
        return load.model_copy(update={"classes": tuple(classes)})

    def solved_s(scale: float) -> float:
        try:
            return float(Wait().solve(at(scale), machine).solver.objective or math.nan)
        except InfeasibleError:
            return math.nan

    near = _near_optimal(load, machine, solved_s(1.0))
    if near is None:
        return solved_s

    def value_s(scale: float) -> float:
        batch, limits = full_batch(at(scale), machine), mean_limits(load)
        allowed = batch.feasible(near) & limits.hold(batch, near)
        return float(batch.mean_latency_s(near[allowed]).min()) if allowed.any() else math.nan

    return value_s


def _near_optimal(load: Workload, machine: Server, known_s: float) -> Floats | None:
    """All whole thresholds that may be best at nearby rates, shape (k, m); None: too many to list.

    A mean latency of `known_s` is possible. Each n_j that is no worse fits into memory, and its
    stages alone take no longer.
    """
    batch = full_batch(load, machine)
    stages = batch.stages - 0.5  # (n_j − 1)/2 + (S_j − 1)n_j requests in all
    room = known_s * load.rate_per_s * (1 + _NEAR) + len(stages) / 2
    most = np.minimum(room / stages, machine.usable_kv_tokens / batch.memory_tokens)
    least = np.maximum(np.floor(load.rates_per_s * machine.iteration_time.overhead_s), 1)
    sizes = np.maximum(np.floor(most) - least + 1, 1)
    if np.prod(sizes) > _MOST_LISTED:
        return None
    ranges = [np.arange(size) + begin for size, begin in zip(sizes, least, strict=True)]
    n = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, len(sizes))
    n = n[(n @ stages <= room) & (batch.memory(n) <= machine.usable_kv_tokens)]
    almost = np.abs(batch.loads(n).max(axis=1) - 1) < _ALMOST
    return np.asarray(n[almost | (batch.mean_latency_s(n) <= known_s * (1 + _NEAR))])

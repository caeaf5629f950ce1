"""Literal WAIT over real thresholds: an interior-point method at O(m) per step.

With y = log n and ΔT(n) = d0 + Σ n_j w_j along a line, everything that THEORY 3.5 puts into the
problem is a sum over classes of convex functions of y_j and ℓ = log ΔT (a geometric program):

    minimise Σ_j [k_j n_j + φ(u_j)] + Λ ΔT,   φ(u) = u/(2(1 − u)),   u_j = λ_j ΔT/n_j,
    Σ n_j m_j ≤ C,   (k/λ)_j n_j + ΔT + φ(u_j)/λ_j ≤ limit_j + 1/(2λ_j),   low ≤ n ≤ high

where k_j = s_j + ½ for the delay until stage s_j (latency, TTFT); divided by Λ = Σ λ_j and less the
constant m/(2Λ) this is the mean delay. Second derivatives are a diagonal plus three products of two
vectors, so that a Newton step costs O(m).

The bound does not rely on convergence: the Lagrangian with the multipliers found is convex, hence
above its tangent at the point found, whose minimum over the box is a sum over classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line
from thresholds.solvers.wait.batch import MANY_CLASSES, FullBatch
from thresholds.solvers.wait.mean_limits import MeanLimits

Floats = NDArray[np.float64]

_MARGINS = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5)
"""Relative distances from all constraints at which a starting point is looked for."""

_LOOSE = 2.0
"""Thresholds end at this multiple of what memory allows, so that the memory constraint alone is
tight there and has the whole multiplier."""

_SHARPEN = 20.0
_ACCURACY = 1e-8
_ACCURACY_OF_MANY = 1e-4
"""A tenth of a second for each factor of 20, where whole thresholds are within 1e-2."""

_NEWTON_STEPS = 60
_NEAR = 1e-2
_CENTRED = 1e-15
"""Newton decrements below which full steps are taken, and none any more."""

_CLIMB = 10_000


@dataclass(frozen=True)
class DelayRows:
    """Limits on one kind of delay, for the classes that have one; each of shape (r,).

    Attributes:
        classes: Their indices.
        slope_s: k_j/λ_j.
        room_s: limit_j + 1/(2λ_j).
    """

    name: str
    classes: NDArray[np.intp]
    slope_s: Floats
    room_s: Floats


@dataclass(frozen=True)
class DelayProgram:
    """The problem with f replaced by `line`; arrays of shape (m,).

    Attributes:
        stages_waited: k_j.
        capacity_tokens: C.
        memory: m_j/C.
        low: Least thresholds; high: a bound on the largest ones, or a limit on TPOT.
    """

    batch: FullBatch
    limits: MeanLimits
    intercept_s: float
    work_s: Floats
    stages_waited: Floats
    capacity_tokens: float
    memory: Floats
    rows: tuple[DelayRows, ...]
    low: Floats
    high: Floats

    @cached_property
    def log_low(self) -> Floats:
        """log of `low`."""
        return np.asarray(np.log(self.low))

    @cached_property
    def log_high(self) -> Floats:
        """log of `high`."""
        return np.asarray(np.log(self.high))

    @cached_property
    def rate_per_s(self) -> float:
        """Λ."""
        return float(self.batch.rates_per_s.sum())

    def mean_s(self, total: float) -> float:
        """The mean delay in seconds that belongs to a value of the objective."""
        return (total - len(self.low) / 2) / self.rate_per_s


@dataclass(frozen=True)
class Relaxed:
    """The best real thresholds of a program.

    Attributes:
        thresholds: n, shape (m,).
        value_s: Their mean delay in seconds.
        bound_s: No real thresholds of the program have a smaller one.
        time_price: Λ + Σ ∂φ/∂ΔT: what one second of ΔT costs, in units of the objective.
        memory_price_s: What one more token of capacity takes off the mean delay, in seconds.
        limit_prices: What one more second of a limit takes off, by (name, class).
    """

    thresholds: Floats
    value_s: float
    bound_s: float
    time_price: float
    memory_price_s: float
    limit_prices: dict[tuple[str, int], float]


def delay_program(
    batch: FullBatch,
    limits: MeanLimits,
    last_stage: Floats,
    line: Line,
    low: Floats,
    capacity_tokens: float | None = None,
) -> DelayProgram:
    """The program of the mean delay until `last_stage`, shape (m,), with thresholds ≥ `low`.

    Args:
        capacity_tokens: C, that of the server unless told.
    """
    capacity = batch.server.usable_kv_tokens if capacity_tokens is None else capacity_tokens
    memory = batch.memory_tokens / capacity
    high = _LOOSE * ((1 - low @ memory) / memory + low)
    rows = []
    for name, stage, limit_s in limits.delays(batch):
        (classes,) = np.nonzero(np.isfinite(limit_s))
        rates = batch.rates_per_s[classes]
        slope_s, room_s = (stage[classes] + 0.5) / rates, limit_s[classes] + 0.5 / rates
        rows.append(DelayRows(name, classes, slope_s, room_s))
    return DelayProgram(
        batch=batch,
        limits=limits,
        intercept_s=line.intercept_s,
        work_s=batch.work_seconds(line.slope_s),
        stages_waited=last_stage + 0.5,
        capacity_tokens=capacity,
        memory=memory,
        rows=tuple(rows),
        low=low,
        high=np.minimum(high, batch.rates_per_s * limits.tpot_s),
    )


def relaxed_optimum(program: DelayProgram) -> Relaxed | None:
    """Best real thresholds with a proven bound; None where no point inside the constraints exists.

    "Inside" means by a relative distance of 1e-5 from every constraint.
    """
    start = _inside(program)
    if start is None:
        return None
    y = np.log(start)
    constraints = 1 + 2 * len(y) + sum(len(one.classes) for one in program.rows)
    weight = constraints / float(start @ program.stages_waited)
    accuracy = _ACCURACY if len(y) <= MANY_CLASSES else _ACCURACY_OF_MANY
    best: Relaxed | None = None
    while True:
        y, point = _centred(program, y, weight)
        found = _result(program, y, point, weight)
        # Close to a constraint rounding spoils its multiplier: the last bound need not be the best.
        if best is None or found.bound_s > best.bound_s:
            best = found
        if constraints / weight <= accuracy * point.objective.value:
            return best
        weight *= _SHARPEN


@dataclass(frozen=True)
class _Terms:
    """Value and derivatives of Σ_j ψ_j(y_j, ℓ): by y_j, by ℓ, and of second order."""

    value: float
    y: Floats
    time: float
    y2: Floats
    y_time: Floats
    time2: float


@dataclass(frozen=True)
class _Point:
    """Everything at one y; the barrier is without weight.

    Attributes:
        share: ∂ℓ/∂y_j = n_j w_j/ΔT.
        full: Memory in use, below 1.
        slacks_s: Distance to the limits, one array per kind of delay.
    """

    thresholds: Floats
    time_s: float
    share: Floats
    full: float
    slacks_s: tuple[Floats, ...]
    objective: _Terms
    barrier: _Terms


def _point(program: DelayProgram, y: Floats) -> _Point | None:
    """Derivatives at y, or None where y is not strictly inside."""
    n = np.exp(y)
    time_s = program.intercept_s + float(program.work_s @ n)
    loads = program.batch.rates_per_s * time_s / n
    full = float(program.memory @ n)
    below, above = y - program.log_low, program.log_high - y
    if loads.max() >= 1 or full >= 1 or below.min() <= 0 or above.min() <= 0:
        return None
    idle = 1 - loads
    queue, queue1 = loads / (2 * idle), loads / (2 * idle**2)
    queue2 = queue1 * (1 + loads) / idle
    linear, clock = program.stages_waited * n, program.rate_per_s * time_s
    objective = _Terms(
        value=float(linear.sum() + clock + queue.sum()),
        y=linear - queue1,
        time=clock + float(queue1.sum()),
        y2=linear + queue2,
        y_time=-queue2,
        time2=clock + float(queue2.sum()),
    )
    value = -float(np.log(below * above).sum() + np.log(1 - full))
    by_y, y2, y_time = 1 / above - 1 / below, 1 / below**2 + 1 / above**2, np.zeros_like(y)
    by_time = time2 = 0.0
    slacks_s = []
    for rows in program.rows:
        j, rates = rows.classes, program.batch.rates_per_s[rows.classes]
        slack_s = rows.room_s - rows.slope_s * n[j] - time_s - queue[j] / rates
        if len(j) and slack_s.min() <= 0:
            return None
        slacks_s.append(slack_s)
        first_y = (rows.slope_s * n[j] - queue1[j] / rates) / slack_s
        first_time = (time_s + queue1[j] / rates) / slack_s
        value -= float(np.log(slack_s).sum())
        by_y[j] += first_y
        y2[j] += (rows.slope_s * n[j] + queue2[j] / rates) / slack_s + first_y**2
        y_time[j] += first_y * first_time - queue2[j] / rates / slack_s
        by_time += float(first_time.sum())
        time2 += float(((time_s + queue2[j] / rates) / slack_s + first_time**2).sum())
    barrier = _Terms(value, by_y, by_time, y2, y_time, time2)
    share = program.work_s * n / time_s
    return _Point(n, time_s, share, full, tuple(slacks_s), objective, barrier)


def _centred(program: DelayProgram, y: Floats, weight: float) -> tuple[Floats, _Point]:
    """Newton's method on weight·objective + barrier, with backtracking, from a y inside."""
    point = _point(program, y)
    assert point is not None
    last = np.inf
    for _ in range(_NEWTON_STEPS):
        gradient, step = _newton_step(program, point, weight)
        decrement = float(-gradient @ step)
        if decrement <= _CENTRED:
            break
        if decrement <= _NEAR:
            # Full steps converge by themselves here, and rounding hides what they gain.
            tried = _point(program, y + step)
            if tried is None or decrement >= last:
                break
            y, point, last = y + step, tried, decrement
            continue
        value = weight * point.objective.value + point.barrier.value
        length = 1.0
        while length > 1e-12:
            tried = _point(program, y + length * step)
            if tried is not None:
                gain = value - weight * tried.objective.value - tried.barrier.value
                if gain >= 0.1 * length * decrement:
                    break
            length /= 2
        else:
            break
        y, point = y + length * step, tried
    return y, point


def _newton_step(program: DelayProgram, at: _Point, weight: float) -> tuple[Floats, Floats]:
    """Gradient and −H⁻¹·gradient, by the matrix inversion lemma on the three products.

    H = diag(d) + h p' + p h' + (Σψ_ℓℓ − Σψ_ℓ) p p' + q q' for p = ∂ℓ/∂y, h = ψ_yℓ and q of memory.
    """
    first, second = at.objective, at.barrier
    by_time = weight * first.time + second.time
    filled = program.memory * at.thresholds / (1 - at.full)
    gradient = weight * first.y + second.y + by_time * at.share + filled
    diagonal = weight * first.y2 + second.y2 + by_time * at.share + filled
    vectors = np.column_stack([weight * first.y_time + second.y_time, at.share, filled])
    core = np.array([[0, 1, 0], [1, weight * first.time2 + second.time2 - by_time, 0], [0, 0, 1.0]])
    scaled = vectors / diagonal[:, None]
    inner = np.linalg.inv(core) + vectors.T @ scaled
    plain = gradient / diagonal
    return gradient, -(plain - scaled @ np.linalg.solve(inner, vectors.T @ plain))


def _result(program: DelayProgram, y: Floats, at: _Point, weight: float) -> Relaxed:
    """Multipliers from the barrier, and the bound from the Lagrangian's tangent at y."""
    low, high = program.log_low, program.log_high
    memory_multiplier = 1 / (weight * (1 - at.full))
    gradient = at.objective.y + at.objective.time * at.share
    gradient = gradient + memory_multiplier * program.memory * at.thresholds
    lagrangian = at.objective.value + memory_multiplier * (at.full - 1)
    prices: dict[tuple[str, int], float] = {}
    idle = 1 - program.batch.rates_per_s * at.time_s / at.thresholds
    queue1 = (1 - idle) / (2 * idle**2)
    for rows, slack_s in zip(program.rows, at.slacks_s, strict=True):
        j, rates = rows.classes, program.batch.rates_per_s[rows.classes]
        multipliers = 1 / (weight * slack_s)
        lagrangian -= float(multipliers @ slack_s)
        gradient[j] += multipliers * (rows.slope_s * at.thresholds[j] - queue1[j] / rates)
        gradient += float(multipliers @ (at.time_s + queue1[j] / rates)) * at.share
        for index, one in zip(j.tolist(), multipliers.tolist(), strict=True):
            prices[rows.name, index] = one / program.rate_per_s
    bound = lagrangian + float(np.minimum(gradient * (low - y), gradient * (high - y)).sum())
    for index in np.flatnonzero(np.isfinite(program.limits.tpot_s)).tolist():
        limit_s = program.limits.tpot_s[index]
        if program.high[index] == program.batch.rates_per_s[index] * limit_s:
            multiplier = 1 / (weight * float(high[index] - y[index]))
            prices["tpot_s", index] = multiplier / float(limit_s) / program.rate_per_s
    return Relaxed(
        thresholds=at.thresholds,
        value_s=program.mean_s(at.objective.value),
        bound_s=program.mean_s(bound),
        time_price=at.objective.time / at.time_s,
        memory_price_s=memory_multiplier / program.capacity_tokens / program.rate_per_s,
        limit_prices=prices,
    )


def _inside(program: DelayProgram) -> Floats | None:
    """Thresholds strictly inside all constraints, as far as can be."""
    for margin in _MARGINS:
        found = _inside_by(program, margin)
        if found is not None and _point(program, np.log(found)) is not None:
            return found
    return None


def _inside_by(program: DelayProgram, margin: float) -> Floats | None:
    """Climb in ΔT to thresholds that allow an iteration time longer by `margin` than their own."""
    for time_s in _climb(program, margin):
        n, high = _lowest(program, time_s, margin)
        if (n >= np.minimum(high, program.high)).any() or program.memory @ n >= 1:
            return None
        if program.intercept_s + program.work_s @ n <= (1 + margin / 2) * time_s:
            return n
    return None


def _climb(program: DelayProgram, margin: float) -> Iterator[float]:
    time_s = program.intercept_s
    for _ in range(_CLIMB):
        yield time_s
        n, _ = _lowest(program, time_s, margin)
        time_s = program.intercept_s + float(program.work_s @ n)


def _lowest(program: DelayProgram, time_s: float, margin: float) -> tuple[Floats, Floats]:
    low, high = program.limits.interval(program.batch, (1 + margin) * time_s)
    return np.maximum(program.low, low) * (1 + margin), high

"""Transient fluid model: the population over (class, stage) as time goes on.

The mass x_j(s) of class j about to pass stage s is carried by a transport equation in iteration
time: in an iteration everybody resident advances one stage, x_j(s + 1) ← x_j(s), admitted mass
enters at the first stage, and the iteration lasts τ of the composition (THEORY 1.3). Admission is
greedy with watermark, cap and pace (THEORY 3.5), eviction the paper's rule: last admitted first,
all progress lost, front of the queue. Mass is real-valued and nothing is random, so that
randomness and the granularity of whole requests are what the model leaves out; the age of every
resident is kept, and with it the synchronised generations that make greedy collapse (THEORY 6.4).
What one whole request frees when it is evicted counts most with watermark 0: there a simulated
server readmits at once what the fluid, at exactly C, does not.

A fixed point is the equilibrium of THEORY 2.2, for an f that is not affine that of the mean
composition (method "mean" of THEORY 2.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server, require_fits
from fluid.stages import Stages, class_stages
from fluid.steady.equilibrium import equilibrium
from fluid.transient.inflow import Burst, RateProfile
from fluid.workload import Workload

Floats = NDArray[np.float64]
Start = Literal["empty", "equilibrium"]


@dataclass(frozen=True)
class Admission:
    """Greedy admission and what restrains it (POLICIES "greedy").

    Attributes:
        watermark: Share of memory kept free at admission.
        cap: Most residents.
        pace: Admissions per iteration; credit starts at 1 and is capped at 1 + pace.

    Raises:
        InputError: A value out of range.
    """

    watermark: float = 0.0
    cap: float = math.inf
    pace: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.watermark < 1:
            raise InputError("watermark", self.watermark, "a share from 0 to below 1")
        if not self.cap >= 1:
            raise InputError("cap", self.cap, "at least 1")
        if not self.pace >= 0:
            raise InputError("pace", self.pace, "at least 0")


@dataclass(frozen=True)
class Transient:
    """A path of the fluid model. Rows are the starts of iterations, all of shape (rows,).

    The last row is the first iteration that starts at the horizon or later.

    Attributes:
        time_s: When the iteration starts.
        iteration: Its number; more than one apart where rows are thinned out.
        waiting: Mass waiting after admission.
        residents: Mass in the batch.
        kv_tokens: KV occupied during the iteration, block-rounded.
        arrived: Mass that was there at time 0 or arrived since.
        completed: Mass completed since time 0.
        evicted: Mass evicted since time 0, each eviction counted.
        snapshots_s: Times asked for, shape (snapshots,).
        population: x_j(s) in the first iteration from each of these times on, by position of the
            stage within its class, shape (snapshots, stages, classes); NaN beyond the horizon.
    """

    time_s: Floats
    iteration: NDArray[np.int64]
    waiting: Floats
    residents: Floats
    kv_tokens: Floats
    arrived: Floats
    completed: Floats
    evicted: Floats
    snapshots_s: Floats
    population: Floats

    def rates_between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Completions and evictions per second between two times.

        Raises:
            InputError: No two rows lie in between.
        """
        inside = (self.time_s >= start_s) & (self.time_s <= end_s)
        if inside.sum() < 2:
            raise InputError("start_s", start_s, f"a time with two rows between it and {end_s}")
        time_s, completed, evicted = (
            column[inside] for column in (self.time_s, self.completed, self.evicted)
        )
        span_s = time_s[-1] - time_s[0]
        return (
            float((completed[-1] - completed[0]) / span_s),
            float((evicted[-1] - evicted[0]) / span_s),
        )


def simulate_fluid(
    workload: Workload,
    server: Server,
    *,
    horizon_s: float,
    rule: Admission | None = None,
    rate_profile: RateProfile | None = None,
    bursts: Sequence[Burst] = (),
    start: Start = "empty",
    every: int = 1,
    snapshots_s: Sequence[float] = (),
) -> Transient:
    """Solve the transport equation from time 0 to `horizon_s`.

    Args:
        rule: Admission; plain greedy if None.
        rate_profile: Arrival rates over time; those of the workload, constant, if None.
        bursts: Mass that arrives at once, on top of the rates.
        start: Nobody there, or the equilibrium of the workload's own rates.
        every: Iterations per row of the result.
        snapshots_s: When to keep the population, in increasing order.

    Raises:
        InputError: An argument out of range, or a class of which no request fits into memory.
        InfeasibleError: Start at an equilibrium that does not exist.
    """
    from fluid.transient import kernel

    require_fits(workload, server)
    if not 0 < horizon_s < math.inf:
        raise InputError("horizon_s", horizon_s, "positive finite seconds")
    if every < 1:
        raise InputError("every", every, "at least 1")
    shots_s = np.asarray(snapshots_s, dtype=float).reshape(-1)
    if (np.diff(shots_s) < 0).any():
        raise InputError("snapshots_s", list(snapshots_s), "increasing seconds")
    stages = [class_stages(one, server) for one in workload.classes]
    costs = _costs(stages, server)
    residents, waiting = _at_start(workload, server, stages, start)
    rows = math.ceil(_most_iterations(horizon_s, server, rate_profile, bursts) / every) + 2
    series = np.empty((rows, kernel.COLUMNS))
    shots = np.full((len(shots_s), *residents.shape), np.nan)
    rule = rule or Admission()
    capacity = float(server.usable_kv_tokens)
    written = kernel.simulate(
        costs,
        _coming(workload, rate_profile or RateProfile.steps(workload), bursts),
        kernel.Limits(capacity, capacity * (1 - rule.watermark), rule.cap, rule.pace),
        residents,
        waiting,
        float(horizon_s),
        every,
        series,
        shots_s,
        shots,
    )
    columns = series[:written].T.copy()
    return Transient(
        time_s=columns[kernel.TIME],
        iteration=columns[kernel.ITERATION].astype(np.int64),
        waiting=columns[kernel.WAITING],
        residents=columns[kernel.RESIDENTS],
        kv_tokens=columns[kernel.KV],
        arrived=columns[kernel.ARRIVED],
        completed=columns[kernel.COMPLETED],
        evicted=columns[kernel.EVICTED],
        snapshots_s=shots_s,
        population=shots,
    )


def _most_iterations(
    horizon_s: float, server: Server, profile: RateProfile | None, bursts: Sequence[Burst]
) -> int:
    """No iteration is shorter than d0, and idle jumps end at a change or a burst."""
    jumps = len(bursts) + (len(profile.starts_s) if profile else 1)
    return math.ceil(horizon_s / server.iteration_time.overhead_s) + jumps + 1


def _costs(stages: Sequence[Stages], server: Server) -> Any:
    """What the kernel reads of stages and server."""
    from fluid.transient import kernel

    shape = (max(one.count for one in stages), len(stages))
    held, read = np.zeros(shape), np.zeros(shape)
    for index, one in enumerate(stages):
        held[: one.count, index] = one.held_kv_tokens
        read[: one.count, index] = np.where(one.decodes, one.kv_tokens, 0)
    tau = server.iteration_time
    return kernel.Costs(
        counts=np.array([one.count for one in stages]),
        held=held,
        read=read,
        prompts=np.array([float(one.prefill_tokens) for one in stages]),
        token_granular=server.block_tokens == 1,
        knots=np.array([tau.tokens_knots, tau.seconds_knots], dtype=float),
        overhead_s=tau.overhead_s,
        per_unit_s=np.array(
            [
                tau.per_kv_token_s,
                tau.per_prefill_token_s,
                tau.per_decode_request_s,
                tau.per_prefill_token_sq_s,
            ]
        ),
    )


def _coming(workload: Workload, profile: RateProfile, bursts: Sequence[Burst]) -> Any:
    """Rates and bursts as the kernel reads them."""
    from fluid.transient import kernel

    classes = len(workload.classes)
    if profile.rates_per_s.shape[1] != classes:
        value = f"{profile.rates_per_s.shape[1]} classes"
        raise InputError("rate_profile", value, f"the {classes} classes of the workload")
    ordered = sorted(bursts, key=lambda one: one.time_s)
    return kernel.Coming(
        starts_s=profile.starts_s,
        rates=profile.rates_per_s,
        burst_times_s=np.array([one.time_s for one in ordered], dtype=float),
        burst_masses=np.array([one.masses(workload) for one in ordered]).reshape(-1, classes),
    )


def _at_start(
    workload: Workload, server: Server, stages: Sequence[Stages], start: Start
) -> tuple[Floats, Floats]:
    """Population (stages, classes) and waiting mass (classes,) at time 0.

    At equilibrium every stage holds n* = λΔT*. As one iteration has just ended, stage 0 is empty
    and its n* waits to be admitted.
    """
    residents = np.zeros((max(one.count for one in stages), len(stages)))
    waiting = np.zeros(len(stages))
    if start == "empty":
        return residents, waiting
    if start != "equilibrium":
        raise InputError("start", start, "empty or equilibrium")
    affine = server.iteration_time.is_affine
    found = equilibrium(workload, server, None if affine else "mean")
    if not found.stable:
        raise InfeasibleError(
            "there is no equilibrium to start from",
            found.binding,
            f"multiply all rates by less than {found.max_scale:.4g}",
            found.max_scale,
        )
    for index, (one, stage) in enumerate(zip(found.classes, stages, strict=True)):
        waiting[index] = one.in_service_per_stage or 0.0
        residents[1 : stage.count, index] = waiting[index]
    return residents, waiting

"""Recovery from bursts in simulation: what `metastable` predicts, measured by its criterion.

A burst meets a server in its good state: Poisson arrivals for a warm-up from empty, with nobody
waiting when the burst comes. Near the limit a warm-up may collapse by itself; it is then drawn anew
and counted, because the question is what the burst does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.traces.tape import Tape
from fluid.transient.inflow import Burst
from fluid.transient.metastable import Criterion
from fluid.workload import Workload
from validation.policies import ConfiguredPolicy
from validation.simulator.cpu import Job, run_traced
from validation.simulator.model import tape_model
from validation.simulator.window import WINDOW_END

MOST_DRAWS = 10
"""Warm-ups drawn before a server counts as one that cannot be warmed up: it has collapsed."""

_BEYOND = 1.03
"""Arrivals go on for so much longer than needed, against the scatter of the mark at which a run
ends."""


@dataclass(frozen=True)
class RecoveryMap:
    """Simulated recovery over total rate × burst.

    Attributes:
        never_share: Share of replications that never recover, shape (rates, bursts).
        redrawn: Warm-ups drawn anew, over all replications.
        given_up: Replications without a warm-up that held; they count as never.
    """

    never_share: NDArray[np.float64]
    redrawn: int
    given_up: int


def burst_tape(workload: Workload, burst: Burst, end_s: float, rng: np.random.Generator) -> Tape:
    """Poisson arrivals with a burst of whole requests, enough for a run to reach `end_s`.

    Raises:
        InputError: A decode-only class, which a tape cannot hold, or an unknown class of the burst.
    """
    masses = np.round(burst.masses(workload)).astype(int)
    span_s = _BEYOND * (end_s + masses.sum() / workload.rate_per_s) / WINDOW_END
    times, kinds = [], []
    for index, (one, mass) in enumerate(zip(workload.classes, masses, strict=True)):
        poisson = rng.uniform(0, span_s, rng.poisson(one.rate_per_s * span_s))
        times += [poisson, np.full(mass, burst.time_s)]
        kinds.append(np.full(len(poisson) + mass, index))
    time_s, kind = np.concatenate(times), np.concatenate(kinds)
    # Requests of the burst come at one instant, their classes in random order.
    order = np.lexsort((rng.random(len(time_s)), time_s))
    prompts = np.array([one.prefill_tokens for one in workload.classes])
    outputs = np.array([one.decode_tokens for one in workload.classes])
    return Tape(time_s[order], prompts[kind[order]], outputs[kind[order]])


def simulated_recovery_s(
    workload: Workload,
    server: Server,
    policy: ConfiguredPolicy,
    burst_requests: float,
    criterion: Criterion,
    *,
    warm_up_s: float,
    seed: Sequence[int],
) -> tuple[float | None, int]:
    """Recovery time of one replication, None for never, and the number of warm-ups drawn anew.

    `MOST_DRAWS` warm-ups drawn anew means that none held.
    """
    end_s = warm_up_s + criterion.horizon_s + criterion.hold_s
    for draw in range(MOST_DRAWS):
        rng = np.random.default_rng([*seed, draw])
        tape = burst_tape(workload, Burst(warm_up_s, burst_requests), end_s, rng)
        path = run_traced(tape_model(tape, server), Job(policy, 0), len(tape))
        clock_s, _, _, waiting = path.series.T
        if waiting[np.searchsorted(clock_s, warm_up_s) - 1] == 0:
            return criterion.recovery_time_s(clock_s, waiting, warm_up_s), draw
    return None, MOST_DRAWS


def simulated_map(
    workload: Workload,
    server: Server,
    policy: ConfiguredPolicy,
    rates_per_s: Sequence[float],
    burst_requests: Sequence[float],
    criterion: Criterion,
    *,
    warm_up_s: float,
    replications: int,
    seed: int = 0,
    threads: int | None = None,
) -> RecoveryMap:
    """The map of `fluid.transient.metastable.recovery_map`, simulated."""
    shape = (len(rates_per_s), len(burst_requests), replications)

    def one(cell: tuple[int, ...]) -> tuple[float | None, int]:
        rate, burst = rates_per_s[cell[0]], burst_requests[cell[1]]
        return simulated_recovery_s(
            workload.at_rate(rate),
            server,
            policy,
            burst,
            criterion,
            warm_up_s=warm_up_s,
            seed=(seed, *cell),
        )

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, np.ndindex(*shape)))
    never = np.array([time_s is None for time_s, _ in found], dtype=float)
    return RecoveryMap(
        never_share=never.reshape(shape).mean(axis=-1),
        redrawn=sum(draws for _, draws in found),
        given_up=sum(draws == MOST_DRAWS for _, draws in found),
    )

"""Recovery from bursts under greedy admission: the fluid map against simulation (THEORY 6.4).

    python tests/benchmarks/metastable_map.py [--replications 5] [--plot map.svg]

512/1000 on server paper-long-decode, greedy with 1 % watermark, rates 1.5–2.7 per s × bursts 0–600.
A burst meets a server in its good state: in the fluid its equilibrium, in simulation Poisson
arrivals for WARM_UP_S from empty with nobody waiting at the end. Warm-ups that collapse by
themselves are redrawn and counted. Verdict by `CRITERION`, in simulation by majority.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fluid.metastable import Criterion, recovery_map
from fluid.plots_transient import plot_recovery_map
from fluid.server import load_server
from fluid.traces.tape import Tape
from fluid.transient import Admission
from fluid.workload import RequestClass, Workload
from validation.policies import parse_policy
from validation.simulator.cpu import Job, run_traced
from validation.simulator.model import tape_model

LONG = RequestClass(name="long", rate_per_s=2.6, prefill_tokens=512, decode_tokens=1000)
WORKLOAD = Workload(name="long", classes=(LONG,))
SERVER = load_server("paper-long-decode")
RATES = np.linspace(1.5, 2.7, 10)
BURSTS = np.linspace(0, 600, 10)
WARM_UP_S = 300.0
CRITERION = Criterion(horizon_s=8000.0, hold_s=200.0)
MOST_DRAWS = 10
"""Warm-ups drawn per replication before its cell is given up."""


def burst_tape(rate_per_s: float, burst: int, rng: np.random.Generator, end_s: float) -> Tape:
    """Poisson arrivals, and a burst at WARM_UP_S; long enough for the run to reach `end_s`."""
    # The engine runs to the 80 % mark of the arrivals.
    poisson = rng.poisson(rate_per_s * end_s / 0.78 + burst)
    times = rng.uniform(0, (end_s / 0.78 + burst / rate_per_s), poisson)
    times = np.sort(np.concatenate([times, np.full(burst, WARM_UP_S)]))
    lengths = np.full(len(times), LONG.prefill_tokens), np.full(len(times), LONG.decode_tokens)
    return Tape(times, *lengths)


def simulated_recovery_s(
    rate_per_s: float, burst: int, seed: tuple[int, ...], criterion: Criterion = CRITERION
) -> tuple[float | None, int] | None:
    """Recovery time of one replication and the warm-ups redrawn for it; None if all collapsed."""
    policy = parse_policy("greedy:watermark=0.01")
    end_s = WARM_UP_S + criterion.horizon_s + criterion.hold_s
    for draw in range(MOST_DRAWS):
        rng = np.random.default_rng([*seed, draw])
        model = tape_model(burst_tape(rate_per_s, burst, rng, end_s), SERVER)
        clock, _, _, waiting = run_traced(model, Job(policy, 0), 0).series.T
        if waiting[np.searchsorted(clock, WARM_UP_S) - 1] == 0:
            return criterion.recovery_time_s(clock, waiting, WARM_UP_S), draw
    return None


def simulated_map(replications: int) -> tuple[np.ndarray, int, int]:
    """Share of replications that never recover (rates, bursts); warm-ups redrawn; given up."""
    cells = [
        (i, j, k)
        for i in range(len(RATES))
        for j in range(len(BURSTS))
        for k in range(replications)
    ]
    with ThreadPoolExecutor() as pool:
        found = list(
            pool.map(lambda c: simulated_recovery_s(RATES[c[0]], round(BURSTS[c[1]]), c), cells)
        )
    # A server that cannot even be warmed up has collapsed.
    never = [one is None or one[0] is None for one in found]
    shares = np.reshape(never, (len(RATES), len(BURSTS), replications)).mean(axis=-1)
    return shares, sum(one[1] for one in found if one), sum(one is None for one in found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replications", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    fluid = recovery_map(WORKLOAD, SERVER, RATES, BURSTS, CRITERION, Admission(watermark=0.01))
    between = time.perf_counter()
    shares, redrawn, given_up = simulated_map(options.replications)
    end = time.perf_counter()
    never = np.isnan(fluid)
    agree = never == (shares > 0.5)
    print("share of simulated replications that never recover; * where the fluid disagrees")
    print("rate/s  burst " + "".join(f"{burst:7.0f}" for burst in BURSTS))
    for i, rate in enumerate(RATES):
        row = (
            f"{share:6.2f}{' ' if same else '*'}"
            for share, same in zip(shares[i], agree[i], strict=True)
        )
        print(f"{rate:6.3f}        " + "".join(row))
    print(f"agreement {agree.mean():.0%}; fluid: {never.sum()} never, {(~never).sum()} recover")
    print(f"simulated: {(shares > 0.5).sum()} never, {(shares <= 0.5).sum()} recover")
    print(f"warm-ups redrawn {redrawn}, replications given up {given_up}")
    print(f"fluid {between - start:.1f} s, simulation {end - between:.1f} s")
    if options.plot:
        plot_recovery_map(RATES, BURSTS, fluid, options.plot, simulated_never=shares)


if __name__ == "__main__":
    main()

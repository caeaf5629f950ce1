"""Recovery from bursts under greedy admission: the fluid map against simulation (THEORY 6.4).

    python tests/benchmarks/metastable_map.py [--replications 5] [--plot map.svg]

512/1000 on server paper-long-decode, greedy with 1 % watermark, rates 1.5–2.7 per s × bursts 0–600.
The fluid starts at its equilibrium, a simulated server is warmed up; verdicts by one criterion, in
simulation by majority.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from fluid.plots.style import save
from fluid.server import load_server
from fluid.transient.admission import Admission
from fluid.transient.metastable import Criterion, recovery_map
from fluid.workload import RequestClass, Workload
from validation.experiments.recovery_map import simulated_map
from validation.policies import parse_policy

LONG = RequestClass(name="long", rate_per_s=2.6, prefill_tokens=512, decode_tokens=1000)
RATES, BURSTS = np.linspace(1.5, 2.7, 10).tolist(), np.linspace(0, 600, 10).tolist()
WARM_UP_S = 300.0
CRITERION = Criterion(horizon_s=8000.0, hold_s=200.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replications", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    workload, server = Workload(name="long", classes=(LONG,)), load_server("paper-long-decode")
    start = time.perf_counter()
    found = recovery_map(workload, server, RATES, BURSTS, CRITERION, Admission(watermark=0.01))
    between = time.perf_counter()
    simulated = simulated_map(
        workload,
        server,
        parse_policy("greedy:watermark=0.01"),
        RATES,
        BURSTS,
        CRITERION,
        warm_up_s=WARM_UP_S,
        replications=options.replications,
        seed=options.seed,
    )
    end = time.perf_counter()
    never, simulated_never = np.isnan(found.recovery_s), simulated.never_share > 0.5
    print("share of simulated replications that never recover; * where the fluid disagrees")
    print("rate/s  burst " + "".join(f"{burst:7.0f}" for burst in BURSTS))
    for rate, shares, agrees in zip(
        RATES, simulated.never_share, never == simulated_never, strict=True
    ):
        row = (f"{s:6.2f}{' ' if a else '*'}" for s, a in zip(shares, agrees, strict=True))
        print(f"{rate:6.3f}        " + "".join(row))
    print(f"agreement {(never == simulated_never).mean():.0%} of {never.size} cells")
    print(f"fluid: {never.sum()} never, {(~never).sum()} recover")
    print(f"simulated: {simulated_never.sum()} never, {(~simulated_never).sum()} recover")
    print(f"warm-ups drawn anew {simulated.redrawn}, given up {simulated.given_up}")
    print(f"fluid {between - start:.1f} s, simulation {end - between:.1f} s")
    if options.plot:
        save(lambda: found.plot(simulated_never=simulated.never_share), options.plot)


if __name__ == "__main__":
    main()

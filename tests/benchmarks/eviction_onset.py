"""Simulated evictions at the predicted onsets (THEORY 9.6) on thirty random servers.

At the rate at which memory is predicted full in 1e-4 of iterations nobody should be evicted, well
above that of 1e-2 many. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from fluid.steady.latency.onset import eviction_onset_per_s
from fluid.steady.stability import largest_scale
from tests.support.latency_cases import drawn_case
from validation.experiments.simulate import simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

PROBABILITIES = (1e-4, 1e-2, 3e-2)
MEMORY_TOKENS = 30_000
"""Small, so that memory binds before compute on most of the servers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=30)
    parser.add_argument("--requests", type=int, default=8000)
    arguments = parser.parse_args()
    print("server  share of the fluid limit and evictions per request at 1e-4, 1e-2, 3e-2  seconds")
    before, after, seconds = [], [], []
    for seed in range(200, 200 + arguments.servers):
        case = drawn_case(seed)
        server = case.server.model_copy(update={"kv_capacity_tokens": MEMORY_TOKENS})
        load = case.workload
        limit_per_s = largest_scale(load, server) * load.rate_per_s
        cells = []
        for probability in PROBABILITIES:
            start = time.process_time()
            onset_per_s = eviction_onset_per_s(load, server, probability)
            seconds.append(time.process_time() - start)
            if onset_per_s == 0 or onset_per_s >= 0.99 * limit_per_s:
                cells.append(f"{onset_per_s / limit_per_s:.3f} –")
                continue
            model = poisson_model(load.at_rate(onset_per_s), server)
            (result,) = simulate(model, "greedy", Runs(4, arguments.requests))
            evicted = result.evictions_per_request
            (before if probability == PROBABILITIES[0] else after).append(evicted)
            cells.append(f"{onset_per_s / limit_per_s:.3f} {evicted:.1e}")
        print(f"r{seed}  {'   '.join(cells)}  {seconds[-1]:.2f}", flush=True)
    print(f"at 1e-4: {np.count_nonzero(before)} of {len(before)} evict, at most {max(before):.1e}")
    print(f"at 1e-2 and 3e-2: {np.count_nonzero(after)} of {len(after)} evict")
    print(f"seconds per onset: median {np.median(seconds):.2f}, worst {max(seconds):.2f}")


if __name__ == "__main__":
    main()

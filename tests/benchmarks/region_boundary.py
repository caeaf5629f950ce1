"""Simulated boundary of the paced table ÷ exact fluid boundary: three workloads, nine mixes.

Prints one line per mix; the shares should lie between 0.95 and 1.01. About seven minutes on two
cores; with 6 replications of 15,000 requests two minutes, and shares 2 % lower, because a rate that
few runs leave undecided counts as not stable. ``--replications`` and ``--requests`` change the
effort, ``--policy`` the policy.
"""

from __future__ import annotations

import argparse
import time

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from validation.experiments.region import region
from validation.simulator.runs import Runs

CASES = (
    ("paper-long-decode", (512, 1000), (512, 400)),
    ("paper-long-decode", (2048, 300), (256, 800)),
    ("engine-long-decode", (512, 1000), (1024, 250)),
)


def pair(*lengths: tuple[int, int]) -> Workload:
    """Two classes of (prompt, output) tokens."""
    classes = tuple(
        RequestClass(name=f"{p}/{o}", rate_per_s=1.0, prefill_tokens=p, decode_tokens=o)
        for p, o in lengths
    )
    return Workload(name="pair", classes=classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="paced")
    parser.add_argument("--mixes", type=int, default=9)
    parser.add_argument("--replications", type=int, default=20)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    for server, *lengths in CASES:
        start = time.perf_counter()
        runs = Runs(arguments.replications, arguments.requests)
        found = region(pair(*lengths), load_server(server), arguments.policy, arguments.mixes, runs)
        print(f"{server}, classes {' and '.join(found.names)}:")
        for one in found.simulated[arguments.policy]:
            rates = ", ".join(f"{rate:.4g}" for rate in one.fluid_per_s)
            print(f"  fluid boundary ({rates}) /s: {one.share:.4f} of it  {one.policy}")
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()

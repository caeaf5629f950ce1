"""Measured beside simulated latency of the tiny model: python tests/benchmarks/closed_loop.py

Sweeps the model, calibrates a server from the sweep, then serves and simulates the same tapes under
greedy admission and under a paced limit. Aim: within 15 %. All in CPU seconds of this process, so
that other programs on the machine do not count; `--wall` takes the wall clock instead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from fluid.server import Server
from fluid.steady.stability import largest_scale
from fluid.workload import RequestClass, Workload
from thresholds.limits import Limits
from validation.measure.batching import simulated_policy
from validation.measure.calibrate import calibrate
from validation.measure.closed_loop import closed_loop, poisson_tape
from validation.measure.design import sweep_design
from validation.measure.importers import read_measurements
from validation.measure.model import random_decoder
from validation.measure.shapes import SHAPES
from validation.measure.timed_sweep import sweep
from validation.measure.timer import Timer

PROMPT, OUTPUT, REQUESTS = 64, 20, 400


def main() -> None:
    """Print one line per policy and load."""
    clock = time.perf_counter if "--wall" in sys.argv else time.process_time
    torch.set_num_threads(1)
    decoder = random_decoder(SHAPES["tiny"], torch.device("cpu"), torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.csv"
        sweep(decoder, sweep_design(32, 256, 256), path, Timer(3, 20, clock))
        found = calibrate(read_measurements(path))
    print(f"held-out error: {found.held_out.mean:.1%} mean, {found.held_out.p95:.1%} at 95 %")
    tau = found.iteration_time
    server = Server(name="tiny", source="this CPU", kv_capacity_tokens=4000, iteration_time=tau)
    one = RequestClass(name="a", rate_per_s=1.0, prefill_tokens=PROMPT, decode_tokens=OUTPUT)
    most_per_s = largest_scale(Workload(name="w", classes=(one,)), server)
    for rate_per_s in (0.3 * most_per_s, 0.5 * most_per_s, 0.7 * most_per_s):
        for limits in (
            Limits(watermark_fraction=0.01),
            Limits(0.5, 32, 0.01),
        ):
            tape = poisson_tape(rate_per_s, REQUESTS, PROMPT, OUTPUT, seed=1)
            loop = closed_loop(decoder, server, tape, limits, clock=clock)
            simulated_s = loop.simulated.latency_s
            ratio = loop.measured.latency_s / simulated_s
            print(
                f"{rate_per_s:8.1f} /s  {simulated_policy(limits)}: "
                f"measured {loop.measured.latency_s:.4f} s, simulated {simulated_s:.4f} s, "
                f"ratio {ratio:.3f}"
            )


if __name__ == "__main__":
    main()

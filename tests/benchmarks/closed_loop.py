"""Measured beside simulated latency of the tiny model on this CPU: python tests/benchmarks/closed_loop.py

Sweeps the model, calibrates a server from the sweep, then serves and simulates the same tapes under
greedy admission and under a paced limit. Aim: within 15 % on an otherwise idle machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from fluid.server import Server
from validation.measure.calibrate import calibrate
from validation.measure.closed_loop import closed_loop, poisson_tape
from validation.measure.design import sweep_design
from validation.measure.engine import Limits
from validation.measure.importers import read_measurements
from validation.measure.model import random_decoder
from validation.measure.shapes import SHAPES
from validation.measure.sweep import sweep
from validation.measure.timer import Timer

PROMPT, OUTPUT, REQUESTS = 64, 20, 400


def main() -> None:
    """Print one line per policy and load."""
    torch.set_num_threads(1)
    decoder = random_decoder(SHAPES["tiny"], torch.device("cpu"), torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.csv"
        sweep(decoder, sweep_design(32, 256, 256), path, Timer(3, 20))
        found = calibrate(read_measurements(path))
    print(f"held-out error: {found.held_out.mean:.1%} mean, {found.held_out.p95:.1%} at 95 %")
    tau = found.iteration_time
    server = Server(name="tiny", source="this CPU", kv_capacity_tokens=4000, iteration_time=tau)
    alone_s = OUTPUT * tau.overhead_s
    for rate_per_s in (0.5 / alone_s, 2 / alone_s, 4 / alone_s):
        for limits in (Limits(watermark=0.01), Limits(pace=0.5, cap=32, watermark=0.01)):
            tape = poisson_tape(rate_per_s, REQUESTS, PROMPT, OUTPUT, seed=1)
            loop = closed_loop(decoder, server, tape, limits)
            simulated = loop.simulated.latency_s
            if simulated is None:
                print(f"{rate_per_s:8.1f} /s  {limits.policy}: simulated unstable")
                continue
            ratio = loop.measured.latency_s / simulated.mean
            print(
                f"{rate_per_s:8.1f} /s  {limits.policy}: measured {loop.measured.latency_s:.4f} s, "
                f"simulated {simulated.mean:.4f} s, ratio {ratio:.3f}"
            )


if __name__ == "__main__":
    main()

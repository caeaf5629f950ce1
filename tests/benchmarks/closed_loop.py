"""Measured beside simulated latency of the tiny model: python -m tests.benchmarks.closed_loop

Times the model, calibrates a server from that, then serves and simulates the same tapes under
greedy admission and under a paced limit. Aim: within 15 %. All in CPU seconds of this process, so
that other programs on the machine do not count; `--wall` takes the wall clock instead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from fluid.steady.stability import largest_scale
from tests.support.builders import one_class
from thresholds.limits import Limits
from validation.measure.batching import simulated_policy
from validation.measure.calibrate import calibrate
from validation.measure.closed_loop import ServedModel, closed_loop, poisson_tape
from validation.measure.design import BatchDesign
from validation.measure.model import random_decoder
from validation.measure.shapes import SHAPES
from validation.measure.timed_batches import time_batches
from validation.measure.timer import Timer

PROMPT, OUTPUT, REQUESTS = 64, 20, 400


def main() -> None:
    """Print one line per policy and load."""
    clock = time.perf_counter if "--wall" in sys.argv else time.process_time
    torch.set_num_threads(1)
    decoder = random_decoder(SHAPES["tiny"], torch.device("cpu"), torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.csv"
        time_batches(decoder, BatchDesign(32, 256, 256).batches(), path, Timer(3, 20, clock))
        found = calibrate(path, name="tiny", kv_tokens=4000, block_tokens=1)
    print(f"held-out error: {found.held_out.mean:.1%} mean, {found.held_out.p95:.1%} at 95 %")
    most_per_s = largest_scale(one_class(1.0, PROMPT, OUTPUT), found.server)
    for rate_per_s in (0.3 * most_per_s, 0.5 * most_per_s, 0.7 * most_per_s):
        tape = poisson_tape(rate_per_s, REQUESTS, PROMPT, OUTPUT, seed=1)
        model = ServedModel.ready_for(decoder, found.server, tape)
        for limits in (
            Limits(watermark_fraction=0.01),
            Limits(0.5, 32, 0.01),
        ):
            loop = closed_loop(model, found.server, tape, limits, clock=clock)
            simulated_s = loop.simulated.latency_s
            ratio = loop.measured.latency_s / simulated_s
            print(
                f"{rate_per_s:8.1f} /s  {simulated_policy(limits)}: "
                f"measured {loop.measured.latency_s:.4f} s, simulated {simulated_s:.4f} s, "
                f"ratio {ratio:.3f}"
            )


if __name__ == "__main__":
    main()

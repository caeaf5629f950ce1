"""Pace or watermark? Saturation throughput against the spread of output lengths.

    python tests/benchmarks/spread_lengths.py

Prompts of 512 tokens, outputs uniform around 1,000 tokens, `engine-long-decode`; 5 % more than the
fluid limit arrives. Printed: completions per second ÷ fluid limit, means over four replications.
The coefficient of variation at which the columns cross is `thresholds.limits.SPREAD_LENGTHS`.
"""

from __future__ import annotations

import numpy as np

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from thresholds.limits import LEAST_WATERMARK, Limits, boundary_load
from thresholds.refine import OFFERED
from validation.evaluate import simulate_settings

HALF_WIDTHS = (0, 50, 100, 200, 300, 500, 800, 990)


def uniform(half_width: int) -> Workload:
    """25 equally likely output lengths around 1,000."""
    lengths = np.unique(np.linspace(1000 - half_width, 1000 + half_width, 25).round().astype(int))
    classes = tuple(
        RequestClass(name=f"d{one}", rate_per_s=1.0, prefill_tokens=512, decode_tokens=int(one))
        for one in lengths
    )
    return Workload(name="uniform", classes=classes)


def main() -> None:
    server = load_server("engine-long-decode")
    print("scheduler  variation  no restraint  watermark 1 %  closed-form watermark      pace")
    for scheduler in ("greedy", "vllm-v1"):
        for half_width in HALF_WIDTHS:
            workload = uniform(half_width)
            load = boundary_load(workload, server)
            settings = [
                Limits(),
                Limits(0.01),
                Limits(load.watermark_fraction),
                Limits(LEAST_WATERMARK, pace_per_iteration=load.pace_per_iteration),
            ]
            found = simulate_settings(
                workload.at_rate(OFFERED * load.rate_per_s),
                server,
                scheduler,
                settings,
                replications=4,
                requests=8_000,
                seed=0,
            )
            shares = [float(np.mean(one.completed_per_s)) / load.rate_per_s for one in found]
            row = "{:>13.3f}  {:>13.3f}  {:>21.3f}  {:>8.3f}".format(*shares)
            print(f"{scheduler:9s}  {load.output_variation:9.3f} {row}")


if __name__ == "__main__":
    main()

"""Pace or watermark? Saturation throughput against the spread of output lengths.

    python tests/benchmarks/spread_lengths.py [--fresh]

Many distributions of output length on `engine-long-decode`, prompts of 512 tokens and longer; 5 %
more than the fluid limit arrives. Printed as a Markdown table: synchrony and swing, and completions
per second ÷ fluid limit, means over four replications. `IN_STEP` of
`thresholds/solvers/paced/boundary.py` is the swing at which the better of the last two columns
changes. With ``--fresh`` loads that were drawn after it was fixed, by which it is judged: prompts,
lengths and shares at random, and of the draws those whose swing lies within a factor of four of it
either way, where the choice is in doubt. Some five minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import norm

from fluid.server import Server, load_server
from fluid.workload import RequestClass, Workload
from thresholds.fields import Scheduler
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import IN_STEP, LEAST_WATERMARK, boundary_load
from thresholds.solvers.paced.refine import OFFERED
from validation.experiments.evaluate import simulate_settings

UNIFORM = (0, 50, 100, 200, 300, 400, 500, 800, 990)
"""Half widths of uniform lengths around 1,000, 25 of them."""

FEW = (
    ((400, 1), (1000, 1)),
    ((400, 10), (1000, 1)),
    ((100, 1), (1000, 1)),
    ((500, 1), (1500, 1)),
    ((300, 1), (700, 1), (1100, 1)),
    ((100, 3), (400, 2), (1600, 1)),
    ((250, 1), (500, 1), (750, 1), (1000, 1)),
    ((100, 5), (300, 4), (600, 3), (1000, 2), (2000, 1)),
    ((200, 1), (400, 1), (600, 1), (900, 1), (1200, 1), (1500, 1)),
)
"""A few lengths with their shares."""

PROMPTS = (2700, 1700, 1200, 700, 300, 100)
"""Prompts before 300 output tokens."""

FRESH = 20
NEAR = 4.0
SEED = 2311


def mixtures() -> Iterator[tuple[str, Workload]]:
    for half_width in UNIFORM:
        lengths = np.linspace(1000 - half_width, 1000 + half_width, 25).round().astype(int)
        yield f"1,000 ± {half_width}", mixture([(int(one), 1.0) for one in np.unique(lengths)])
    for few in FEW:
        name = ", ".join(
            f"{length}" + (f" (× {share})" if share > 1 else "") for length, share in few
        )
        yield name, mixture(few)
    middles = (np.arange(100) + 0.5) / 100
    geometric = np.ceil(np.log1p(-middles) / np.log1p(-1 / 1000)).astype(int)
    yield "geometric, mean 1,000", mixture([(int(one), 1.0) for one in geometric])
    lognormal = np.exp(6 + 0.8 * norm.ppf(middles)).astype(int)
    yield "log-normal, median 403", mixture([(int(one), 1.0) for one in lognormal])

    for prompt in PROMPTS:
        yield f"300 after {prompt:,}", mixture([(300, 1.0)], prompt)


def mixture(parts: Sequence[tuple[int, float]], prompt: int = 512) -> Workload:
    classes = tuple(
        RequestClass(name=f"c{k}", rate_per_s=share, prefill_tokens=prompt, decode_tokens=length)
        for k, (length, share) in enumerate(parts)
    )
    return Workload(name="mixture", classes=classes)


def fresh(server: Server) -> Iterator[tuple[str, Workload]]:
    """Random loads near the cut: half of a few lengths, half of lengths spread evenly."""
    rng = np.random.default_rng(SEED)
    found = 0
    while found < FRESH:
        prompt = int(np.exp(rng.uniform(np.log(100), np.log(3000))))
        middle = np.exp(rng.uniform(np.log(150), np.log(1500)))
        if found % 2:
            count = int(rng.integers(2, 8))
            lengths = np.maximum(20, middle * np.exp(rng.normal(0, 0.7, count))).astype(int)
            parts = [
                (int(one), float(share))
                for one, share in zip(lengths, rng.gamma(2, 1, count), strict=True)
            ]
            name = f"{count} lengths from {lengths.min()} to {lengths.max()}"
        else:
            half_width = rng.uniform(0, 0.95) * middle
            lengths = np.linspace(middle - half_width, middle + half_width, 25).astype(int)
            parts = [(int(one), 1.0) for one in np.unique(lengths)]
            name = f"{middle:.0f} ± {half_width:.0f}"
        workload = mixture(parts, prompt)
        if 1 / NEAR < boundary_load(workload, server).swing / IN_STEP < NEAR:
            found += 1
            yield f"{name} after {prompt}", workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    server = load_server("engine-long-decode")
    schedulers: tuple[Scheduler, ...] = ("greedy", "vllm-v1")
    print("| output lengths | synchrony | swing | scheduler | no restraint | watermark | pace |")
    print("|---" * 7 + "|")
    losses: dict[Scheduler, list[float]] = {one: [] for one in schedulers}
    for name, workload in fresh(server) if options.fresh else mixtures():
        load = boundary_load(workload, server)
        settings = [
            Limits(),
            Limits(watermark_fraction=load.watermark_fraction),
            Limits(load.pace_per_iteration, watermark_fraction=LEAST_WATERMARK),
        ]
        for scheduler in schedulers:
            found = simulate_settings(
                workload.at_rate(OFFERED * load.rate_per_s),
                server,
                scheduler,
                settings,
                replications=4,
                requests=6_000,
                seed=0,
            )
            shares = [float(np.mean(one.completed_per_s)) / load.rate_per_s for one in found]
            row = " | ".join(f"{one:.3f}" for one in shares)
            print(
                f"| {name} | {load.synchrony:.2f} | {load.swing:.3f} | {scheduler} | {row} |",
                flush=True,
            )
            taken = shares[2] if load.swing > IN_STEP else shares[1]
            losses[scheduler].append(max(shares[1:]) - taken)
    for scheduler, lost in losses.items():
        print(
            f"{scheduler}: the cut takes the better limit on {sum(one == 0 for one in lost)} of "
            f"{len(lost)} loads; points of the limit lost where it does not: "
            + ", ".join(f"{100 * one:.1f}" for one in lost if one > 0)
        )


if __name__ == "__main__":
    main()

"""Predicted latencies of the README's load beside simulated ones, with intervals of 1 %.

    python -m tests.benchmarks.readme_latency

What ``fluidwait equilibrium`` predicts for the two classes on the built-in A100, and what
``fluidwait compare`` finds for ``greedy:watermark=0.01`` and ``vllm-v1``. About five minutes on two
cores; it fails where a mean is off by more than 3 %, or an interval is wider.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from fluid.result import number, with_half_width
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import Workload
from validation.experiments.compare import compare
from validation.simulator.runs import Runs

ROOT = Path(__file__).resolve().parents[2]
SCHEDULERS = ("greedy:watermark=0.01", "vllm-v1")
RUNS = Runs(replications=30, requests=60_000, seed=1)
GOAL, WIDTH = 0.03, 0.01
TIMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "latency_s": "latency"}


def readme_load() -> tuple[Workload, Server]:
    """The load that the README writes into ``load.yaml``, and the server that it names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r'```yaml title="load.yaml"\n(.*?)```', text, re.DOTALL)
    assert block is not None
    return Workload.from_document(yaml.safe_load(block[1])), Server.named("a100-80gb-llama-2-7b")


def main() -> None:
    load, server = readme_load()
    missed = []
    print("| scheduler | mean | first order s | predicted s | simulated s | difference |")
    print("|---|---|---|---|---|---|")
    for scheduler in SCHEDULERS:
        balance = equilibrium(load, server, scheduler=scheduler)
        (measured,) = compare(load, server, scheduler, runs=RUNS).results
        assert balance.prediction is not None
        for name, word in TIMES.items():
            predicted, found = balance.prediction.mean_s(name), getattr(measured, name)
            assert predicted is not None
            difference = predicted / found.mean - 1
            if abs(difference) > GOAL or found.half_width > WIDTH * found.mean:
                missed.append(f"{scheduler} {word}")
            cells = (
                *(scheduler, word, number(getattr(balance.first_order, name)), number(predicted)),
                *(with_half_width(found.mean, found.half_width), f"{100 * difference:+.1f} %"),
            )
            print(f"| {' | '.join(cells)} |", flush=True)
    if missed:
        raise SystemExit(
            f"off by more than {GOAL:.0%}, or not sure to {WIDTH:.0%}: {', '.join(missed)}"
        )


if __name__ == "__main__":
    main()

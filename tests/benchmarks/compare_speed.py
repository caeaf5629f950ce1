"""Time and memory of a comparison: 40 rates × 8 policies × 20 seeds, 2,000 requests each.

Prompt 512, output 20 on the A100 server, rates 10 to 25.6 per second. Run by ``make bench``.
"""

from __future__ import annotations

import resource
import time

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from validation.policies import parse_policy
from validation.simulator.model import poisson_model
from validation.sweep import grid, sweep

POLICIES = (
    "greedy",
    "greedy:watermark=0.05",
    "greedy:pace=2",
    "wait:thresholds=2",
    "vllm-v1",
    "vllm-v1:watermark=0.05",
    "vllm-v0",
    "sarathi",
)
RATES = [10 + 0.4 * index for index in range(40)]


def main() -> None:
    chat = RequestClass(name="chat", rate_per_s=1.0, prefill_tokens=512, decode_tokens=20)
    workload = Workload(name="chat", classes=(chat,))
    model = poisson_model(workload, load_server("a100-80gb-llama-2-7b"))
    policies = [parse_policy(one) for one in POLICIES]
    start = time.perf_counter()
    sweep(model, grid(policies, RATES[:1], replications=2, requests=100))
    compiled = time.perf_counter()
    rows = grid(policies, RATES, replications=20, requests=2000)
    sweep(model, rows)
    seconds = time.perf_counter() - compiled
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"kernels ready in {compiled - start:.1f} s")
    print(f"{len(rows)} configurations × 20 seeds × 2,000 requests in {seconds:.1f} s")
    print(f"peak memory {peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()

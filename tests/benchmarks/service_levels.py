"""Does the rate that keeps service levels hold: over seeds, run lengths, and in fresh simulations?

Run with ``python -m tests.benchmarks.service_levels [--case NAME] [--fresh 13]`` (about an hour on
two cores); the table is that of docs/service-levels.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import typer
from scipy.optimize import brentq

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.service_levels import required_promises
from fluid.workload import Requests, Slo, Workload
from validation.experiments.slo.answer import FIRST_RUNS, Answer
from validation.experiments.slo.attained import attained, criteria
from validation.experiments.slo.rate import SloRate, slo_rate
from validation.policies import configured
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

SEEDS = (0, 1, 2, 3)
BUDGET_S = 600.0
BEYOND = 0.03
"""Beside the stated error, how far from the answer a fresh simulation is."""

HEADER = (
    "case",
    "rate /s",
    "binds",
    "seeds ±",
    "twice as long",
    "stated",
    "law",
    "kept below",
    "broken above",
    "last runs",
    "seconds",
)


@dataclass(frozen=True)
class Case:
    """A workload on a server under a scheduler."""

    name: str
    load: Workload
    server: Server
    scheduler: str


def cases() -> Iterator[Case]:
    """Eight of them: one limit and several, means and quantiles, memory and compute."""
    affine = IterationTime.affine(0.0095, per_token_s=65e-6, per_kv_token_s=0.275e-6)
    gpu = Server(
        name="512/120",
        source="benchmark",
        kv_capacity_tokens=118_784,
        block_tokens=16,
        iteration_time=affine,
    )
    fast = Slo(tpot_s=0.05)
    yield Case("tpot", Workload.of(chat=Requests(10, 512, 120, slo=fast)), gpu, "vllm-v1")
    mean = Slo(latency_s=6.0, quantile="mean")
    both = Slo(ttft_s=0.5, tpot_s=0.06, quantile=0.95)
    a100 = load_server("a100-80gb-llama-2-7b")
    yield Case("mean", Workload.of(chat=Requests(10, 512, 120, slo=mean)), a100, "greedy")
    two = Workload.of(
        chat=Requests(8, 256, 100, slo=both), code=Requests(2, 1024, 200, slo=Slo(ttft_s=1.0))
    )
    yield Case("classes", two, load_server("engine-long-decode"), "greedy")
    paper = Workload.of(lmsys=Requests(10, 128, 120, slo=Slo(latency_s=4.0, quantile=0.9)))
    yield Case("paper", paper, load_server("paper-lmsys"), "greedy:watermark=0.05")
    long = Workload.of(report=Requests(1, 512, 900, slo=Slo(ttft_s=5.0)))
    yield Case("memory", long, load_server("engine-long-decode"), "vllm-v1:watermark=0.05")
    small = load_server("llama-3.1-8b-h100-sxm-vllm")
    shared = Workload.of(chat=Requests(20, 800, 200), search=Requests(5, 2500, 60))
    shared = shared.model_copy(update={"slo": Slo(ttft_s=0.4, tpot_s=0.03, quantile=0.99)})
    yield Case("catalogue 8B", shared, small, "vllm-v1")
    big = load_server("llama-3.3-70b-h100-sxm-tp4-vllm")
    slow = Workload.of(chat=Requests(4, 1500, 250, slo=Slo(ttft_s=2.0, tpot_s=0.05)))
    yield Case("catalogue 70B", slow, big, "vllm-v1")
    yield Case("sarathi", Workload.of(a=Requests(8, 700, 80, slo=both)), a100, "sarathi")


def measured(case: Case, fresh: int) -> tuple[str, ...]:
    """A row of the table."""
    begun = time.monotonic()
    found = [searched(case, replace(FIRST_RUNS, seed=seed)) for seed in SEEDS]
    first = found[0]
    rates = np.array([one.rate_per_s for one in found])
    spread = (rates.max() - rates.min()) / rates.mean()
    longer = Runs(first.runs.replications, 2 * first.runs.requests)
    doubled = searched(case, longer).rate_per_s / first.rate_per_s - 1
    stated = stated_error(first)
    below = fresh_words(case, first, first.rate_per_s * (1 - BEYOND - stated), fresh)
    above = fresh_words(case, first, first.rate_per_s * (1 + BEYOND + stated), fresh)
    law = first.predicted_per_s
    return (
        case.name,
        f"{first.rate_per_s:.4g}" + ("" if all(one.decided for one in found) else " (open)"),
        f"{first.binding_limit.removesuffix('_s')} of {first.binding}",
        f"{100 * spread:.2f} %",
        f"{100 * doubled:+.2f} %",
        f"{100 * stated:.2f} %",
        "–" if law is None else f"{100 * (law / first.rate_per_s - 1):+.1f} %",
        f"{below.count('kept')} / {below.count('broken')} / {below.count('undecided')}",
        f"{above.count('kept')} / {above.count('broken')} / {above.count('undecided')}",
        f"{first.runs.replications} × {first.runs.requests:,}",
        f"{time.monotonic() - begun:.0f}",
    )


def searched(case: Case, runs: Runs) -> SloRate:
    """The answer from these first runs."""
    return slo_rate(case.load, case.server, case.scheduler, runs=runs, budget_s=BUDGET_S)


def stated_error(found: SloRate) -> float:
    """Relative distance of the answer from the farther end of its bracket."""
    ends = (found.low_per_s or math.nan, found.high_per_s or math.nan)
    return max(abs(end / found.rate_per_s - 1) for end in ends)


def fresh_words(case: Case, found: SloRate, rate_per_s: float, fresh: int) -> list[str]:
    """Verdicts of simulations on other seeds, as long as the search's last ones."""
    if rate_per_s >= found.limit_per_s:
        return []
    kept = required_promises(case.load)
    (policy,) = configured(case.scheduler)
    model = model_of(case.load, case.server)
    words = []
    for seed in range(1_000, 1_000 + fresh):
        one = attained(model, policy, kept, rate_per_s, replace(found.runs, seed=seed), 1.0)
        words.append(Answer(one, criteria(kept)).kept)
    return words


def wait_share_of_m_d_1(time_s: float, rate_per_s: float, service_s: float) -> float:
    """P(wait ≤ t) of M/D/1 (Erlang 1909)."""
    total = 0.0
    for k in range(int(time_s / service_s + 1e-9) + 1):
        u = rate_per_s * (time_s - k * service_s)
        total += math.exp(u) * (-u) ** k / math.factorial(k)
    return (1 - rate_per_s * service_s) * total


def of_m_d_1(wait_s: float, service_s: float = 0.01) -> tuple[str, ...]:
    """One seat, one class, constant iterations: the answer beside the exact one."""
    tau = IterationTime.affine(service_s)
    server = Server(name="M/D/1", source="test", kv_capacity_tokens=10_000, iteration_time=tau)
    slo = Slo(ttft_s=wait_s + service_s)
    load = Workload.of(a=Requests(50.0, prompt=20, output=1, slo=slo))
    begun = time.monotonic()
    found = slo_rate(load, server, "greedy:cap=1", budget_s=BUDGET_S)

    def missing(rate_per_s: float) -> float:
        return wait_share_of_m_d_1(wait_s, rate_per_s, service_s) - 0.99

    exact = float(brentq(missing, 1.0, 0.999 / service_s))
    return (
        f"M/D/1, wait {1000 * wait_s:g} ms",
        f"{found.rate_per_s:.4g}",
        f"exact {exact:.4g}",
        f"{100 * (found.rate_per_s / exact - 1):+.2f} %",
        f"{time.monotonic() - begun:.0f} s",
    )


def main(
    case: Annotated[str | None, typer.Option(help="Only this one, or m-d-1.")] = None,
    fresh: Annotated[int, typer.Option(help="Fresh simulations on either side, each case.")] = 13,
) -> None:
    """Print the tables, a row as soon as it is there."""
    print("| " + " | ".join(HEADER) + " |")
    print("|" + "---|" * len(HEADER))
    for one in cases():
        if case in (None, one.name):
            print("| " + " | ".join(measured(one, fresh)) + " |", flush=True)
    if case in (None, "m-d-1"):
        print()
        for wait_s in (0.033, 0.083):
            print("| " + " | ".join(of_m_d_1(wait_s)) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)

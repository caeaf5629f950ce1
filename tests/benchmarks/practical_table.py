"""The practical table against twelve tuned baselines: the table of docs/practical-table.md.

    python tests/benchmarks/practical_table.py --store practical-rows

For each workload and scheduler: the table refined with a budget of 30 s, its closed form, and
greedy admission with watermarks of 0–20 % and caps of 0.8–1.2 times the fluid population. Largest
stable rates by bisection to 0.5 % (20 replications of 20,000 requests) as a share of the fluid
limit, and the table's mean latency at half the limit against unrestrained admission. About half an
hour on two cores; ``--store`` keeps finished simulations, so that a killed run continues.
"""

from __future__ import annotations

import argparse
import math
from contextlib import nullcontext
from pathlib import Path

from fluid.server import Server, load_server
from fluid.workload import RequestClass, Workload
from thresholds.fields import Scheduler
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.solvers.paced.solver import Paced
from validation.experiments.evaluate import simulate_settings
from validation.experiments.following import policy_of, restrained
from validation.experiments.largest_rate import largest_stable_rate
from validation.experiments.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"
WATERMARKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
CAPS = (0.8, 0.9, 0.95, 1.0, 1.1, 1.2)
BUDGET_S = 30.0
DESIGN = 0.9


def one_class() -> Workload:
    return _mix("512/1000", (1.0, 512, 1000))


def two_classes() -> Workload:
    return _mix("512/20 and 512/50", (0.7, 512, 20), (0.3, 512, 50))


def geometric(classes: int = 200, mean: float = 1000.0) -> Workload:
    """Equally likely quantiles of a geometric output length."""
    middles = [(index + 0.5) / classes for index in range(classes)]
    lengths = [math.ceil(math.log1p(-q) / math.log1p(-1 / mean)) for q in middles]
    return _mix("512/geometric 1000", *((1 / classes, 512, one) for one in lengths))


def _mix(name: str, *classes: tuple[float, int, int]) -> Workload:
    return Workload(
        name=name,
        classes=tuple(
            RequestClass(name=f"c{k}", rate_per_s=rate, prefill_tokens=prompt, decode_tokens=output)
            for k, (rate, prompt, output) in enumerate(classes)
        ),
    )


def cases() -> list[tuple[Workload, Server, Scheduler]]:
    """All pairs of workload and server, under both schedulers where the server allows it."""
    engine, a100 = load_server("engine-long-decode"), load_server("a100-80gb-llama-2-7b")
    small = engine.model_copy(update={"name": "C = 20,000", "kv_capacity_tokens": 20_000})
    pairs = [
        (one_class(), engine),
        (Workload.read(EXAMPLES / "lmsys-chat.yaml"), small),
        (geometric(), engine),
        (two_classes(), a100),
        (Workload.read(EXAMPLES / "azure-conv-2023.yaml"), a100),
        (Workload.read(EXAMPLES / "azure-code-2023.yaml"), a100),
    ]
    schedulers: tuple[Scheduler, ...] = ("greedy", "vllm-v1")
    return [
        (one_class(), load_server("paper-long-decode"), "greedy"),
        *((load, server, one) for one in schedulers for load, server in pairs),
    ]


def measure(workload: Workload, server: Server, scheduler: Scheduler, store: Store | None) -> str:
    """One row of the table in Markdown."""
    load = boundary_load(workload, server)
    solver = Paced(budget_s=BUDGET_S, scheduler=scheduler)
    table = solver.solve(workload.at_rate(DESIGN * load.rate_per_s), server, simulate_settings)

    def share(limits: Limits) -> float:
        policy = restrained(scheduler, limits)
        found = largest_stable_rate(
            workload, server, policy, start_per_s=load.rate_per_s, store=store
        )
        return (found.largest_stable_rate_per_s or 0.0) / load.rate_per_s

    watermarks = (Limits(watermark_fraction=one) for one in WATERMARKS)
    caps = (Limits(cap_requests=max(1, round(one * load.population))) for one in CAPS)
    names = [*(f"watermark {one:g}" for one in WATERMARKS), *(f"cap × {one:g}" for one in CAPS)]
    baselines = [share(one) for one in (*watermarks, *caps)]
    best = max(range(len(names)), key=lambda k: baselines[k])
    own, closed = share(table.limits), share(load.closed_form())
    half = simulate_settings(
        workload.at_rate(load.rate_per_s / 2),
        server,
        scheduler,
        [table.limits, Limits()],
        replications=20,
        requests=20_000,
        seed=0,
    )
    own_s, free_s = (one.row.latency_s for one in half)
    assert own_s is not None
    assert free_s is not None
    return (
        f"| {workload.name} | {server.name} | {scheduler} | {load.rate_per_s:.4g} "
        f"| {policy_of(table).label} | {own:.3f} | {closed:.3f} | {baselines[0]:.3f} "
        f"| {baselines[best]:.3f} ({names[best]}) | {own_s.mean / free_s.mean - 1:+.2%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    path = parser.parse_args().store
    with nullcontext() if path is None else Store(path) as store:
        print_table(store)


def print_table(store: Store | None) -> None:
    """The table in Markdown, row by row."""
    print(
        "| workload | server | scheduler | fluid limit /s | refined table | table | closed form "
        "| no restraint | best of twelve | latency at half load |"
    )
    print("|---" * 10 + "|")
    for workload, server, scheduler in cases():
        print(measure(workload, server, scheduler, store), flush=True)


if __name__ == "__main__":
    main()

"""The predicted loss of full memory against simulation after a flood: docs/practical-table.md.

    python -m tests.benchmarks.predicted_loss [--gentle] [--others]

The 26 distributions of output length of `spread_lengths`, on `engine-long-decode`; 5 % more than
the fluid limit arrives behind a flood that fills memory at once (``--gentle``: without the flood,
so that memory fills by and by). Printed as a Markdown table: swing, spectral radius, and
completions per second ÷ fluid limit, predicted for the theory's rule and simulated under it and
under vLLM's, means over four replications; then rank correlations of the simulated losses with
each predictor, and the errors of the prediction. With ``--others`` other servers and loads in place
of the 26. Some five minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from fluid.server import Server, load_server
from fluid.stages import class_stages
from fluid.steady.full_memory.stability import full_memory
from fluid.transient.admission import Admission
from fluid.transient.saturated import WATERMARK, predicted_loss
from fluid.workload import Requests, Workload
from tests.benchmarks.practical_table import cases
from tests.benchmarks.spread_lengths import mixtures
from thresholds.fields import Scheduler
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import BoundaryLoad, boundary_load
from thresholds.solvers.paced.refine import OFFERED
from validation.experiments.following import restrained
from validation.experiments.simulate import simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

SCHEDULERS: tuple[Scheduler, ...] = ("greedy", "vllm-v1")
RULES = ("no restraint", "5 % watermark", "closed-form watermark")


def settings(load: BoundaryLoad) -> list[Limits]:
    return [
        Limits(),
        Limits(watermark_fraction=WATERMARK),
        Limits(watermark_fraction=load.watermark_fraction),
    ]


def simulated(
    workload: Workload, server: Server, load: BoundaryLoad, scheduler: Scheduler, gentle: bool
) -> list[float]:
    """Completions ÷ limit under each rule."""
    held = [
        one.rate_per_s * float(class_stages(one, server).held_kv_tokens[0])
        for one in workload.classes
    ]
    flood = 0 if gentle else round(2.5 * server.usable_kv_tokens * workload.rate_per_s / sum(held))
    found = simulate(
        poisson_model(
            workload.at_rate(OFFERED * load.rate_per_s), server, f"poisson:burst={flood}"
        ),
        [restrained(scheduler, one) for one in settings(load)],
        Runs(4, max(6_000, 6 * flood)),
    )
    return [one.completed_per_s / load.rate_per_s for one in found]


def predicted(workload: Workload, server: Server, load: BoundaryLoad) -> list[float]:
    """The same, predicted."""
    rules = {RULES[2]: Admission(load.watermark_fraction)}
    found = predicted_loss(workload, server, rules)
    assert found is not None
    return [1 - one.lost_share for one in found.rules]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gentle", action="store_true")
    parser.add_argument("--others", action="store_true")
    options = parser.parse_args()
    engine = load_server("engine-long-decode")
    loads = others() if options.others else [(name, one, engine) for name, one in mixtures()]
    print("| output lengths | swing | radius | predicted | greedy | vllm-v1 |")
    print("|---" * 6 + "|")
    rows = []
    for name, workload, server in loads:
        load, state = boundary_load(workload, server), full_memory(workload, server)
        cells = [
            predicted(workload, server, load),
            *(simulated(workload, server, load, one, options.gentle) for one in SCHEDULERS),
        ]
        words = " | ".join(" / ".join(f"{one:.3f}" for one in shares) for shares in cells)
        radius = state.spectral_radius
        print(f"| {name} | {load.swing:.2f} | {radius:.5f} | {words} |", flush=True)
        rows.append((-load.swing, -state.growth_per_service, cells))
    report(rows)


def others() -> list[tuple[str, Workload, Server]]:
    """The loads of `practical_table` under engine rules, and two classes on the A100."""
    pairs = {(load.name, server.name): (load, server) for load, server, _ in cases()}
    chat, code = Requests(7.0, 512, 120), Requests(1.0, 2048, 250)
    a100 = load_server("a100-80gb-llama-2-7b")
    found = [
        (f"{load.name} on {server.name}", load, server)
        for load, server in pairs.values()
        if server.first_token == "prefill"
    ]
    return [*found, (f"chat and code on {a100.name}", Workload.of(chat=chat, code=code), a100)]


def report(rows: Sequence[tuple[float, float, list[list[float]]]]) -> None:
    """Correlations and errors."""
    found = np.array([cells for _, _, cells in rows])
    predictors: dict[str, list[NDArray[np.float64]]] = {
        "predicted": [found[:, 0, k] for k in range(len(RULES))],
        "swing": [np.array([one for one, _, _ in rows])] * len(RULES),
        "radius ^ mean stages": [np.array([one for _, one, _ in rows])] * len(RULES),
    }
    print("\n| rank correlation with what is completed | " + " | ".join(RULES) + " |")
    print("|---" * 4 + "|")
    for s, scheduler in enumerate(SCHEDULERS, start=1):
        for name, columns in predictors.items():
            ranks = [spearmanr(columns[k], found[:, s, k])[0] for k in range(len(RULES))]
            cells = " | ".join(f"{one:.2f}" for one in ranks)
            print(f"| {scheduler}: {name} | {cells} |")
    print("\n| error of the predicted share, points | " + " | ".join(RULES) + " |")
    print("|---" * 4 + "|")
    for s, scheduler in enumerate(SCHEDULERS, start=1):
        error = 100 * (found[:, 0] - found[:, s])
        cells = " | ".join(
            f"{np.abs(one).mean():.1f} mean, {one.min():+.1f} to {one.max():+.1f}"
            for one in error.T
        )
        print(f"| {scheduler} | {cells} |")


if __name__ == "__main__":
    main()

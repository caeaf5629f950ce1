"""Is a plan within 1 % of the best of an exhaustive grid? Both simulated again on fresh seeds.

Run with ``python -m tests.benchmarks.plans [--case NAME] [--budget-s 60]`` (some ten minutes on two
quiet cores, nearly all of it the grid), and ``--watermarks`` for the public measurement of one
server: completions and preemptions by watermark.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fluid.server import Server, load_server
from fluid.workload import Requests, Slo, Workload
from validation.experiments.largest_rate import fluid_limit_per_s
from validation.experiments.planning.plan import plan
from validation.experiments.planning.race import SATURATED, tried
from validation.experiments.planning.space import ENGINES, Setting, settings_of
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

PUBLIC = Path(__file__).parents[1] / "data" / "cases"
GRID_RUNS = Runs(8, 1_000, seed=100)
FRESH = Runs(40, 1_000, seed=200)
FINALISTS = 5
WATERMARKS = (0.0, 0.02, 0.05, 0.10)


@dataclass(frozen=True)
class Case:
    """A workload on a server."""

    name: str
    load: Workload
    server: Server


def public_case() -> Case:
    """Qwen with long outputs on a GB200, as in a public comparison of watermarks."""
    server = load_server(PUBLIC / "long-outputs-server.json")
    return Case("long outputs", Workload.read(PUBLIC / "long-outputs.yaml"), server)


def cases() -> Iterator[Case]:
    """Memory and compute, with levels and without, on the engines that there are."""
    yield public_case()
    long = load_server("engine-long-decode")
    slo = Slo(ttft_s=4.0, tpot_s=0.06, quantile=0.95)
    mixed = Workload.of(a=Requests(1.0, 512, 600, slo=slo), b=Requests(2.0, 512, 100, slo=slo))
    yield Case("levels", mixed, long)
    for engine in ("sglang", "trtllm"):
        yield Case(f"levels {engine}", mixed, long.model_copy(update={"engine": engine}))
    yield Case("one length", Workload.of(a=Requests(1.0, 512, 1000)), long)
    yield Case(
        "short outputs",
        Workload.of(a=Requests(4.0, 1024, 30, slo=Slo(ttft_s=1.0, quantile=0.95))),
        load_server("a100-80gb-llama-2-7b"),
    )


def judged(case: Case, budget_s: float) -> tuple[str, ...]:
    """A row: what the plan took, what the grid, and the paired difference on fresh arrivals."""
    start_s = time.perf_counter()
    found = plan(case.load, case.server, budget_s=budget_s).best
    seconds = time.perf_counter() - start_s
    model, promised = model_of(case.load, case.server), found.slo is not None
    space = ENGINES[found.engine]
    settings = settings_of(space, case.load, case.server, model)
    rate_per_s = found.best.offered_per_s
    grid = tried(model, settings, GRID_RUNS, rate_per_s, promised)
    grid.sort(key=lambda one: -one.goodput_per_s)
    finalists = [one.setting for one in grid[:FINALISTS]]
    own, *others = tried(model, [found.setting, *finalists], FRESH, rate_per_s, promised)
    best = max(others, key=lambda one: one.goodput_per_s)
    behind = best.better_by(own, "goodput")
    return (
        case.name,
        str(len(settings)),
        found.setting.label,
        best.setting.label,
        f"{100 * behind.mean:+.2f} ± {100 * behind.half_width:.2f} %",
        f"{100 * found.gain.mean:+.1f} ± {100 * found.gain.half_width:.1f} %",
        f"{seconds:.0f}",
        "yes" if found.raced.finished else "no",
    )


def by_watermark() -> Iterator[tuple[str, ...]]:
    """Completions and preemptions of the public case when saturated."""
    case = public_case()
    limit_per_s = fluid_limit_per_s(case.load, case.server)
    assert limit_per_s is not None
    settings = [Setting("vllm-v1", (("watermark", one),)) for one in WATERMARKS]
    model = model_of(case.load, case.server)
    for one in tried(model, settings, FRESH, SATURATED * limit_per_s, False):
        watermark = dict(one.setting.values)["watermark"]
        yield (f"{watermark:g}", f"{one.goodput_per_s:.3f}", f"{one.evictions_per_request:.3f}")


def main(
    case: Annotated[str | None, typer.Option(help="One of them only.")] = None,
    budget_s: float = 60.0,
    watermarks: Annotated[bool, typer.Option("--watermarks")] = False,
) -> None:
    """Print a table, a row as it is found."""
    if watermarks:
        print("| watermark | completed /s | preemptions /request |\n|---|---|---|")
        for row in by_watermark():
            print("| " + " | ".join(row) + " |", flush=True)
        return
    heads = ("case", "settings", "plan", "best of the grid", "grid better by")
    heads += ("plan over defaults", "seconds", "race finished")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for one in cases():
        if case in (None, one.name):
            print("| " + " | ".join(judged(one, budget_s)) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)

"""What could stand between the published figures and these: one change at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from validation.paper.experiment import (
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    best,
    cell,
    faster,
    find,
    named,
)
from validation.paper.pictures import latency_lines, side_by_side
from validation.paper.published import LARGEST_RATES_PER_S, TWENTY_RUNS
from validation.paper.settings import (
    CLIPPED_RATE,
    READ_SHARE,
    SARATHI,
    SINGLE,
    TODAY,
    TWO,
    VLLM,
    a100,
    cheap_reads,
    limit_per_s,
    straight,
)

RATES_PER_S = (17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0)
CAPS = (18, 20, 22, 24, 29, 48, 128)
"""Most residents of vLLM. 128 is Vidur's default; 29 whole contexts of 4,096 fit into the cache."""

CHUNKS = (384, 512, 544, 768)
WAITS = (
    "wait:thresholds=1",
    "wait:thresholds=2",
    "nested-cap:thresholds=100",
    "wait-authors:thresholds=2,cap=30",
)
STEP_TOKENS = (512, 531)
"""A prompt, and a prompt with the other 19 stages of a full literal batch."""

_LOADS = {"single": SINGLE, "two classes": TWO}


def run_differences(lab: Lab) -> ExperimentResult:
    """Batch caps of vLLM, chunks of Sarathi, and three servers."""
    server = a100()
    capped = {
        load: lab.simulate(workload, server, named(map(_capped, CAPS)), RATES_PER_S)
        for load, workload in _LOADS.items()
    }
    chunked = [f"{SARATHI}:chunk={chunk}" for chunk in CHUNKS]
    chunks = lab.simulate(SINGLE, server, named(chunked), RATES_PER_S)
    servers = {
        "as measured": server,
        "straight line": straight(),
        f"KV read in {READ_SHARE:.0%} of the time": cheap_reads(READ_SHARE),
    }
    policies = named((VLLM, SARATHI, TODAY, *WAITS))
    by_server = {
        name: lab.simulate(SINGLE, one, policies, RATES_PER_S) for name, one in servers.items()
    }
    facts = {
        "capped": capped,
        "by_server": by_server,
        "limits": {name: limit_per_s(SINGLE, one) / CLIPPED_RATE for name, one in servers.items()},
        "wait": {name: best(runs, WAITS, 22.0) for name, runs in by_server.items()},
        "wait_published_s": TWENTY_RUNS["single", 22.0]["WAIT"].mean_s,
        "wait_first": {name: _wait_first(runs) for name, runs in by_server.items()},
        "chunks": {chunk: find(chunks, f"{SARATHI}:chunk={chunk}", 22.0) for chunk in CHUNKS},
        "step_s": {tokens: float(server.iteration_time(tokens)) for tokens in STEP_TOKENS},
        "published_rates": LARGEST_RATES_PER_S,
        **_fit_facts(capped),
    }
    tables = (
        *(_table(f"vLLM by its most residents, {load}", runs) for load, runs in capped.items()),
        _table("Sarathi by its chunk", chunks),
        *(_table(f"Iteration time: {name}", runs) for name, runs in by_server.items()),
    )
    return ExperimentResult((*capped["single"], *chunks), tables, (), facts)


def _capped(cap: int) -> str:
    return f"{VLLM}:cap={cap}"


def _fit_facts(capped: Mapping[str, Sequence[Run]]) -> dict[str, object]:
    """The cap whose latencies are closest to the four published ones, by their logarithms."""
    fit = min(CAPS, key=lambda cap: _distance(capped, cap))
    pairs = [
        (load, rate, found["vLLM"], find(capped[load], _capped(fit), rate))
        for (load, rate), found in TWENTY_RUNS.items()
    ]
    stable = {
        load: max(
            (
                run.rate_per_s
                for run in runs
                if run.name == _capped(fit) and run.verdict == "stable"
            ),
            default=math.nan,
        )
        for load, runs in capped.items()
    }
    return {
        "fit": fit,
        "pairs": pairs,
        "stable": stable,
        "factor": math.exp(_distance(capped, fit)),
    }


def _distance(capped: Mapping[str, Sequence[Run]], cap: int) -> float:
    """Mean |log(measured ÷ published)| over the published latencies of vLLM."""
    logs = [
        abs(math.log(find(capped[load], _capped(cap), rate).mean_s / found["vLLM"].mean_s))
        for (load, rate), found in TWENTY_RUNS.items()
    ]
    return sum(logs) / len(logs)


def _wait_first(runs: Sequence[Run]) -> str:
    """Whether the best form of WAIT is faster than Sarathi at 22/s."""
    return faster("", best(runs, WAITS, 22.0), find(runs, SARATHI, 22.0)).verdict


def _table(caption: str, runs: Sequence[Run]) -> PageTable:
    names = dict.fromkeys(one.name for one in runs)
    rows = tuple(
        (f"`{name}`", *(cell(find(runs, name, rate)) for rate in RATES_PER_S)) for name in names
    )
    rates = tuple(f"{rate:g}/s" for rate in RATES_PER_S)
    header = ("policy", *rates)
    return PageTable(f"{caption}: mean latency ± standard deviation, seconds", header, rows)


def draw(result: ExperimentResult) -> Figure:
    """Caps of vLLM with the published points on both loads; the policies on a straight line."""
    with side_by_side(3, width=12) as (figure, axes):
        for one, (load, runs) in zip(axes, result.facts["capped"].items(), strict=False):
            latency_lines(one, runs)
            for rate in (22.0, 23.0):
                one.plot([rate], [TWENTY_RUNS[load, rate]["vLLM"].mean_s], "k*", ms=8)
            one.set_title(f"vLLM by most residents, {load}; stars: published", fontsize=9)
        latency_lines(axes[2], result.facts["by_server"]["straight line"])
        axes[2].set_title("one class, iteration time a straight line", fontsize=9)
        for one in axes:
            one.set_xlabel("nominal rate (requests/s)")
        return figure


DIFFERENCES = Experiment(
    "differences",
    "What could explain the differences",
    "Nothing: these runs change one thing at a time.",
    run_differences,
    draw,
)

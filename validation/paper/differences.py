"""What could stand between the published figures and these: one change at a time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from validation.paper.experiment import (
    Experiment,
    Lab,
    Result,
    Run,
    Table,
    cell,
    faster,
    find,
    named,
)
from validation.paper.pictures import latency_lines, panels
from validation.paper.published import TWENTY_RUNS
from validation.paper.settings import (
    CLIPPED_RATE,
    SARATHI,
    SINGLE,
    TODAY,
    VLLM,
    a100,
    cheap_reads,
    limit_per_s,
    straight,
)

RATES_PER_S = (18.0, 19.0, 20.0, 21.0, 22.0, 23.0)
CAPS = (16, 20, 24, 29, 48, 128)
"""Most residents of vLLM. 128 is Vidur's default; 29 whole contexts of 4,096 fit into the cache."""

CHUNKS = (384, 512, 544, 768)
WAITS = ("wait:thresholds=1", "wait:thresholds=2", "nested-cap:thresholds=100")
READ_SHARE = 0.25


def run_differences(lab: Lab) -> Result:
    """Batch caps of vLLM, chunks of Sarathi, and three servers."""
    server = a100()
    cap_names = [f"{VLLM}:cap={cap}" for cap in CAPS]
    chunk_names = [f"{SARATHI}:chunk={chunk}" for chunk in CHUNKS]
    caps = lab.simulate(SINGLE, server, named(cap_names), RATES_PER_S)
    chunks = lab.simulate(SINGLE, server, named(chunk_names), RATES_PER_S)
    servers = {
        "as measured": server,
        "straight line": straight(),
        f"KV read in {READ_SHARE:.0%}": cheap_reads(READ_SHARE),
    }
    policies = named((VLLM, SARATHI, TODAY, *WAITS))
    by_server = {
        name: lab.simulate(SINGLE, one, policies, RATES_PER_S) for name, one in servers.items()
    }
    limits = {name: limit_per_s(SINGLE, one) / CLIPPED_RATE for name, one in servers.items()}
    facts = {
        "caps": _around_published(caps),
        "by_server": by_server,
        "limits": limits,
        "faster_wait": {name: _verdict(runs) for name, runs in by_server.items()},
        "chunks": {chunk: find(chunks, f"{SARATHI}:chunk={chunk}", 22.0) for chunk in CHUNKS},
        "step": {tokens: float(server.iteration_time(tokens)) for tokens in (512, 531)},
    }
    tables = (
        _table("vLLM by its most residents", caps),
        _table("Sarathi by its chunk", chunks),
        *(_table(f"Iteration time: {name}", runs) for name, runs in by_server.items()),
    )
    return Result((*caps, *chunks), tables, (), facts)


def _around_published(caps: Sequence[Run]) -> dict[float, tuple[int | None, int | None]]:
    """At 22 and 23/s: the largest cap slower than published, the smallest that is faster."""
    found = {}
    for rate in (22.0, 23.0):
        published_s = TWENTY_RUNS["single", rate]["vLLM"].mean_s
        mean_s = {cap: find(caps, f"{VLLM}:cap={cap}", rate).mean_s for cap in CAPS}
        slower = max((cap for cap in CAPS if mean_s[cap] >= published_s), default=None)
        quicker = min((cap for cap in CAPS if mean_s[cap] < published_s), default=None)
        found[rate] = (slower, quicker)
    return found


def _verdict(runs: Sequence[Run]) -> str:
    """Whether the best form of WAIT is faster than Sarathi at 22/s."""
    wait = min((find(runs, name, 22.0) for name in WAITS), key=lambda one: one.mean_s)
    return faster("", wait, find(runs, SARATHI, 22.0)).verdict


def _table(caption: str, runs: Sequence[Run]) -> Table:
    names = dict.fromkeys(one.name for one in runs)
    rows = tuple(
        (f"`{name}`", *(cell(find(runs, name, rate)) for rate in RATES_PER_S)) for name in names
    )
    rates = tuple(f"{rate:g}/s" for rate in RATES_PER_S)
    header = ("policy", *rates)
    return Table(f"{caption}: mean latency ± standard deviation, seconds", header, rows)


def draw(result: Result) -> Figure:
    """Caps of vLLM with the published points; Sarathi and WAIT by server."""
    with panels(3, width=12) as (figure, axes):
        caps = [run for run in result.runs if run.name.startswith(VLLM)]
        latency_lines(axes[0], caps)
        for rate in (22.0, 23.0):
            axes[0].plot([rate], [TWENTY_RUNS["single", rate]["vLLM"].mean_s], "k*", ms=8)
        axes[0].set_title("vLLM by most residents; stars: published")
        for one, name in zip(axes[1:], ("as measured", "straight line"), strict=True):
            runs = result.facts["by_server"][name]
            latency_lines(one, runs)
            one.set_title(f"iteration time: {name}")
        for one in axes:
            one.set_xlabel("nominal rate (requests/s)")
        return figure


DIFFERENCES = Experiment(
    "differences",
    "What could explain the differences",
    "Nothing: these runs change one thing at a time, on one class.",
    run_differences,
    draw,
)

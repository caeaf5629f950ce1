"""``fluidwait replay``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fluid.files import require_folder
from fluid.traces.registry import read_trace
from fluidwait.commands.common import checked_rate
from fluidwait.console import new_table, number, percent, print_json, progress, say, show_table
from fluidwait.options import (
    Arrivals,
    AsJson,
    Device,
    PlotFile,
    Rate,
    Replications,
    Requests,
    Seed,
    TableFile,
    new_app,
)
from thresholds.table import ThresholdTable
from validation.experiments.compare import PolicyResult, Spread, latency_difference
from validation.experiments.replay import BASELINES, Replay, replay
from validation.simulator.arrivals import parse_arrivals

_NOTICEABLE = 5e-4
"""Differences of the mean latency below this share are printed as none."""


@dataclass(frozen=True)
class ReplayOptions:
    """Options of the command, as given."""

    policies: list[str] | None
    tape: Path | None
    rate: float | None
    replications: int
    requests: int
    seed: int
    out: Path | None
    plot: Path | None
    as_json: bool
    arrivals: str | None = None
    device: str = "cpu"


def run_replay(path: Path, options: ReplayOptions) -> None:
    """Simulate, print, and write table and plot where asked to."""
    if options.plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(options.plot)
    if options.out:
        require_folder(options.out)
    table = ThresholdTable.read(path)
    tape = read_trace(options.tape) if options.tape else None
    arrivals = parse_arrivals(options.arrivals) if options.arrivals else None
    offered = tape.rate_per_s if tape else table.workload.rate_per_s
    scale = checked_rate(options.rate) / offered if options.rate is not None else 1.0
    baselines = options.policies or BASELINES
    runs = (1 if tape else options.replications) * (1 + len(baselines))
    with progress("replay", runs) as advance:
        found = replay(
            table,
            baselines=baselines,
            tape=tape,
            arrivals=arrivals,
            replications=options.replications,
            requests=options.requests,
            seed=options.seed,
            rate_scale=scale,
            device=options.device,
            on_done=advance,
        )
    if options.plot:
        from validation.experiments.pictures import plot_replay

        plot_replay(found, options.plot, tape=tape, rate_scale=scale, arrivals=arrivals)
    if options.out:
        found.validated_table().write(options.out)
    if options.as_json:
        print_json(replay_document(found))
        return
    print_replay(found)
    for written in filter(None, (options.plot, options.out)):
        say(f"Wrote {written}.")


def replay_document(found: Replay) -> dict[str, object]:
    """The ``--json`` document; the table's own policy comes first."""
    return {
        "table": found.table.policy,
        "workload": found.table.workload.name,
        "server": found.table.server.name,
        "seed": found.seed,
        "policies": [one.as_dict() for one in found.results],
    }


def print_replay(found: Replay) -> None:
    """One row per policy, then the verdict in a sentence."""
    first = found.results[0]
    title = (
        f"{found.table.workload.name} on {found.table.server.name} at "
        f"{number(first.rate_per_s)} /s: {first.replications} × {first.requests:,} requests"
    )
    table = new_table(
        title,
        "policy",
        "verdict",
        "completed",
        "collapsed",
        "latency s",
        "p99 s",
        "TTFT s",
        "TPOT s",
        "evictions /req",
        "KV mean",
    )
    for index, one in enumerate(found.results):
        table.add_row(*_row(found.table, one, own=index == 0))
    show_table(table)
    say(conclusion(found.results))


def _row(table: ThresholdTable, one: PolicyResult, own: bool) -> tuple[str, ...]:
    name = f"this table ({table.policy})" if own else one.label
    return (
        name,
        one.verdict,
        percent(one.completed_share, 2),
        percent(one.collapsed_share, 0),
        _mean(one.latency_s),
        number(one.latency_s.p99) if one.latency_s else "–",
        _mean(one.ttft_s),
        _mean(one.tpot_s),
        number(one.evictions_per_request, 3),
        percent(one.kv_mean_tokens / table.memory.capacity_tokens),
    )


def _mean(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    if spread.half_width is None:
        return number(spread.mean)
    return f"{number(spread.mean)} ± {number(spread.half_width, 2)}"


def conclusion(results: Sequence[PolicyResult]) -> str:
    """What the figures say, without flattery: also when the table does not help."""
    own, others = results[0], results[1:]
    stable = [one for one in others if one.verdict == "stable" and one.latency_s]
    if own.verdict == "undecided":
        return "UNDECIDED: too few requests to tell whether the table holds; ask for more."
    if own.latency_s is None:
        return "The table is UNSTABLE here: do not use it at this rate."
    if others and not stable:
        return "The table HOLDS; none of the policies beside it is stable at this rate."
    if not others:
        return "The table HOLDS."
    best = min(stable, key=lambda one: one.latency_s.mean if one.latency_s else float("inf"))
    assert best.latency_s is not None
    difference = latency_difference(own, best)
    ratio = own.latency_s.mean / best.latency_s.mean
    within = difference is not None and difference.low <= 0 <= difference.high
    if within or abs(ratio - 1) < _NOTICEABLE:
        return "The table HOLDS, and makes no measurable difference to the best policy beside it."
    better = "below" if ratio < 1 else "ABOVE"
    return (
        f"The table HOLDS; its mean latency is {percent(abs(ratio - 1))} {better} that of the best "
        f"stable policy beside it (same arrivals, paired)."
    )


app = new_app()


@app.command()
def command(
    table: TableFile,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Compare with NAME[:key=value,…] instead of the greedy baselines."),
    ] = None,
    tape: Annotated[
        Path | None,
        typer.Option(help="Recorded arrivals, not Poisson ones: a tape, or any trace with times."),
    ] = None,
    arrivals: Arrivals = None,
    rate: Rate = None,
    replications: Replications = 20,
    requests: Requests = 10_000,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the table with its validation here.")
    ] = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """A table beside greedy admission, simulated on equal arrivals."""
    options = ReplayOptions(
        policy, tape, rate, replications, requests, seed, out, plot, as_json, arrivals, device
    )
    run_replay(table, options)

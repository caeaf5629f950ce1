"""``fluidwait compare``: policies × rates, with capacities and plots."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from fluidwait.commands.simulation import Load, Place, offered_rates
from fluidwait.console import new_table, number, percent, print_json, progress, say, show_table
from fluidwait.options import (
    Arrivals,
    AsJson,
    ClusterAddress,
    Device,
    LoadFile,
    PlotFile,
    Rates,
    Replications,
    Requests,
    Seed,
    ServerName,
    TapeFile,
    Workers,
    new_app,
)
from validation.experiments.compare import PolicyResult
from validation.experiments.largest_rate import Capacity, find_capacities
from validation.experiments.recovery import Recovery, recovery
from validation.experiments.store import Store
from validation.experiments.sweep import Runner, grid, sweep
from validation.policies import ConfiguredPolicy, parse_policy
from validation.simulator.model import Model


@dataclass(frozen=True)
class CompareOptions:
    """Options of the command, as given."""

    load: Load
    policies: list[str]
    rates: str | None
    find_capacity: bool
    burst: int | None
    replications: int
    requests: int
    seed: int
    resume: Path | None
    place: Place
    plot: Path | None
    device: str
    as_json: bool


def run_compare(options: CompareOptions) -> None:
    """Validate everything, simulate, print and plot."""
    if options.plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(options.plot)
    policies = [parse_policy(one) for one in options.policies]
    model, limit_per_s = options.load.model()
    rates = offered_rates(options.rates, model)
    rows = grid(
        policies,
        rates,
        replications=options.replications,
        requests=options.requests,
        seed=options.seed,
    )
    kept = Store(options.resume) if options.resume else nullcontext()
    with kept as store, options.place.runner() as runner:
        with progress("compare", len(rows)) as advance:
            results = sweep(
                model, rows, store, device=options.device, runner=runner, on_done=advance
            )
        capacities = _capacities(model, policies, limit_per_s, options, runner, store)
    recoveries = _recoveries(model, policies, rates, options)
    if options.plot:
        from validation.experiments.pictures import plot_compare

        plot_compare(results, limit_per_s, options.plot)
    if options.as_json:
        print_json(_document(results, capacities, recoveries))
        return
    print_comparison(results, capacities, limit_per_s)
    if recoveries:
        _print_recoveries(recoveries)
    if options.plot:
        say(f"Wrote {options.plot}.")


def _capacities(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    limit_per_s: float | None,
    options: CompareOptions,
    runner: Runner,
    store: Store | None,
) -> list[Capacity]:
    if not options.find_capacity:
        return []
    start_per_s = limit_per_s or model.rate_per_s
    with progress("capacity", len(policies)) as advance:
        return find_capacities(
            model,
            policies,
            start_per_s,
            replications=options.replications,
            requests=options.requests,
            seed=options.seed,
            store=store,
            device=options.device,
            runner=runner,
            on_done=advance,
        )


def _recoveries(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    rates: Sequence[float],
    options: CompareOptions,
) -> list[Recovery]:
    if options.burst is None:
        return []
    runs = len(policies) * len(rates) * options.replications
    with progress("recovery", runs) as advance:
        return [
            recovery(
                model,
                policy,
                options.burst,
                rate_per_s=rate,
                replications=options.replications,
                requests=options.requests,
                seed=options.seed,
                on_done=advance,
            )
            for rate in rates
            for policy in policies
        ]


def _document(
    results: Sequence[PolicyResult],
    capacities: Sequence[Capacity],
    recoveries: Sequence[Recovery],
) -> dict[str, object]:
    document: dict[str, object] = {"policies": [one.as_dict() for one in results]}
    if capacities:
        document["capacities"] = [asdict(one) for one in capacities]
        document["largest_stable_rate_per_s"] = {
            one.policy: one.largest_stable_rate_per_s for one in capacities
        }
    if recoveries:
        document["recoveries"] = [one.as_dict() for one in recoveries]
    return document


def _print_recoveries(recoveries: Sequence[Recovery]) -> None:
    title = f"Recovery from {recoveries[0].burst_requests} requests at one instant"
    table = new_table(title, "policy", "rate /s", "recovered", "after s", "watched for s")
    for one in recoveries:
        width = one.recovery_half_width_s
        time = number(one.recovery_s) + (f" ± {number(width, 2)}" if width else "")
        table.add_row(
            one.policy,
            number(one.rate_per_s),
            percent(one.recovered_share, 0),
            time if one.recovered_share else "never",
            number(one.horizon_s),
        )
    show_table(table)


def print_comparison(
    results: Sequence[PolicyResult], capacities: Sequence[Capacity], limit_per_s: float | None
) -> None:
    """One row per policy and rate, then the fluid limit and the largest stable rates."""
    columns = ("policy", "rate /s", "verdict", "completed", "collapsed", "latency s", "p99 s")
    table = new_table("Policies by rate", *columns, "evictions /req", "wasted", "KV mean")
    for one in results:
        latency = one.latency_s
        width = f" ± {number(latency.half_width, 2)}" if latency and latency.half_width else ""
        table.add_row(
            one.label,
            number(one.rate_per_s),
            one.verdict,
            percent(one.completed_share, 2),
            percent(one.collapsed_share, 0),
            number(latency.mean) + width if latency else "–",
            number(latency.p99) if latency else "–",
            number(one.evictions_per_request, 3),
            percent(one.wasted_token_share),
            number(one.kv_mean_tokens),
        )
    show_table(table)
    if limit_per_s is not None:
        say(f"Fluid limit: {number(limit_per_s)} /s.")
    for capacity in capacities:
        stable = number(capacity.largest_stable_rate_per_s)
        share = ""
        if limit_per_s and capacity.largest_stable_rate_per_s:
            share = f", {percent(capacity.largest_stable_rate_per_s / limit_per_s)} of that"
        say(f"{capacity.policy}: stable up to {stable} /s{share}.")


app = new_app()


@app.command()
def command(
    server: ServerName,
    policy: Annotated[
        list[str], typer.Option(metavar="NAME[:key=value,…]", help="Policy; repeat for more.")
    ],
    workload: LoadFile = None,
    tape: TapeFile = None,
    rates: Rates = None,
    arrivals: Arrivals = None,
    find_capacity: Annotated[
        bool, typer.Option("--find-capacity", help="Bisect each policy's largest stable rate.")
    ] = False,
    burst: Annotated[
        int | None,
        typer.Option(min=1, help="Also measure the recovery from so many requests at once."),
    ] = None,
    replications: Replications = 20,
    requests: Requests = 20_000,
    seed: Seed = 0,
    resume: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished rows; continue from it.")
    ] = None,
    cluster: ClusterAddress = None,
    workers: Workers = None,
    plot: PlotFile = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Policies by rate: verdicts, latencies, largest stable rates."""
    from fluidwait.commands.simulation import Load, Place

    run_compare(
        CompareOptions(
            Load(workload, tape, server, arrivals),
            policy,
            rates,
            find_capacity,
            burst,
            replications,
            requests,
            seed,
            resume,
            Place(cluster, workers),
            plot,
            device,
            as_json,
        )
    )

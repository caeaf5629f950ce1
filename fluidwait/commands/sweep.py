"""``fluidwait sweep``: policies × rates × seeds into a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from fluid.errors import InputError
from fluidwait.commands.simulation import Load, Place, offered_rates, parse_policies
from fluidwait.console import new_table, note, number, print_json, progress, say, show_table
from fluidwait.options import (
    Arrivals,
    AsJson,
    ClusterAddress,
    Device,
    LoadFile,
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
from validation.experiments.store import Store
from validation.experiments.sweep import grid, sweep

MOST_ROWS = 1_000_000
"""They are held in memory, some kilobytes each."""

_MOST_SHOWN = 30


@dataclass(frozen=True)
class SweepOptions:
    """Options of the command, as given."""

    load: Load
    policies: list[str]
    rates: str | None
    seeds: int
    replications: int
    requests: int
    seed: int
    out: Path
    place: Place
    device: str
    as_json: bool


@dataclass(frozen=True)
class PolicySummary:
    """The rows of a policy, counted by verdict.

    Attributes:
        stable_up_to_per_s: The highest rate up to which every row is stable; None where the lowest
            has one that is not.
    """

    policy: str
    rows: int
    stable: int
    undecided: int
    unstable: int
    stable_up_to_per_s: float | None


def run_sweep(options: SweepOptions) -> None:
    """Validate everything, run what the folder does not hold yet, summarise."""
    policies = [one for text in options.policies for one in parse_policies(text)]
    model, _ = options.load.model()
    rates = offered_rates(options.rates, model)
    count = len(policies) * len(rates) * options.seeds
    if count > MOST_ROWS:
        raise InputError("--policy × --rates × --seeds", count, f"at most {MOST_ROWS:,} rows")
    rows = grid(
        policies,
        rates,
        replications=options.replications,
        requests=options.requests,
        seed=options.seed,
        seeds=options.seeds,
    )
    with Store(options.out) as store, options.place.runner() as runner:
        kept = len(store)
        if kept:
            note(f"{options.out} holds {kept:,} rows: those of this sweep are not run again.")
        with progress("sweep", count) as advance:
            results = sweep(
                model, rows, store, device=options.device, runner=runner, on_done=advance
            )
        new = len(store) - kept
    summaries = summarise(results)
    if options.as_json:
        print_json(
            {
                "folder": str(options.out),
                "rows": count,
                "new_rows": new,
                "policies": [asdict(one) for one in summaries],
            }
        )
        return
    _print(summaries)
    say(f"{count:,} rows, {new:,} of them new, in {options.out}.")


def summarise(results: Sequence[PolicyResult]) -> list[PolicySummary]:
    """One summary per policy, in the order in which they first appear."""
    of_policy: dict[str, list[PolicyResult]] = {}
    for one in results:
        of_policy.setdefault(one.label, []).append(one)
    return [_summary(label, rows) for label, rows in of_policy.items()]


def _summary(label: str, rows: Sequence[PolicyResult]) -> PolicySummary:
    verdicts = [one.verdict for one in rows]
    failing = [one.rate_per_s for one in rows if one.verdict != "stable"]
    lowest_failing = min(failing, default=float("inf"))
    holding = [one.rate_per_s for one in rows if one.rate_per_s < lowest_failing]
    return PolicySummary(
        label,
        len(rows),
        verdicts.count("stable"),
        verdicts.count("undecided"),
        verdicts.count("unstable"),
        max(holding, default=None),
    )


def _print(summaries: Sequence[PolicySummary]) -> None:
    columns = ("policy", "rows", "stable", "undecided", "unstable", "stable up to /s")
    table = new_table("Rows by policy", *columns)
    for one in summaries[:_MOST_SHOWN]:
        counts = (one.rows, one.stable, one.undecided, one.unstable)
        table.add_row(one.policy, *map(str, counts), number(one.stable_up_to_per_s))
    show_table(table)
    if len(summaries) > _MOST_SHOWN:
        say(f"The first {_MOST_SHOWN} of {len(summaries)} policies; all are in the rows.")


app = new_app()


@app.command()
def command(
    server: ServerName,
    policy: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:key=value,…]", help="Policy, a value also as a:b:step; repeat for more."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the rows; continue with those in it.")
    ],
    workload: LoadFile = None,
    tape: TapeFile = None,
    rates: Rates = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds from --seed on, a row each.")] = 1,
    arrivals: Arrivals = None,
    replications: Replications = 20,
    requests: Requests = 20_000,
    seed: Seed = 0,
    cluster: ClusterAddress = None,
    workers: Workers = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Policies × rates × seeds into a folder of Parquet."""
    from fluidwait.commands.simulation import Load, Place

    run_sweep(
        SweepOptions(
            Load(workload, tape, server, arrivals),
            policy,
            rates,
            seeds,
            replications,
            requests,
            seed,
            out,
            Place(cluster, workers),
            device,
            as_json,
        )
    )

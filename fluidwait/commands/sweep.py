"""``fluidwait sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import note, progress, show
from fluidwait.options import (
    AsJson,
    ClientOptions,
    PlaceOptions,
    Rates,
    RunOptions,
    TrafficOptions,
    grouped,
    new_app,
)

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    traffic: TrafficOptions,
    policy: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:key=value,…]",
            help="Policy, a value also as a:b:step; repeat for more.",
            autocompletion=names.policies,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            writable=True,
            file_okay=False,
            help="Folder for the rows; continue with those in it.",
        ),
    ],
    rates: Rates = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds from --seed on, a row each.")] = 1,
    size: RunOptions = RunOptions(20, 20_000),
    clients: ClientOptions = ClientOptions(),
    place: PlaceOptions = PlaceOptions(),
    as_json: AsJson = False,
) -> None:
    """Policies × rates × seeds into a folder of Parquet."""
    from validation.experiments.ranges import parse_policies, parse_rates
    from validation.experiments.rows import row_count
    from validation.experiments.store import Store
    from validation.experiments.sweep import sweep

    policies = [one for text in policy for one in parse_policies(text)]
    runs = size.runs()
    behaviour = clients.traffic(context)
    load, server = traffic.read(context, behaviour)
    offered_per_s = parse_rates(rates) if rates else None
    total = row_count(policies, offered_per_s, seeds)
    with Store(out) as store, place.runner() as runner, progress("sweep", total) as advance:
        if len(store):
            note(f"{out} holds {len(store):,} rows: those of this sweep are not run again.")
        found = sweep(
            load,
            server,
            policies,
            rates=offered_per_s,
            seeds=seeds,
            arrivals=traffic.arrivals,
            traffic=behaviour,
            runs=runs,
            store=store,
            runner=runner,
            on_done=advance,
        )
    show(found, as_json)

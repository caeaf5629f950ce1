"""``fluidwait compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import note_undecided, progress, show
from fluidwait.options import (
    AsJson,
    ClientOptions,
    PlaceOptions,
    PlotFile,
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
            help="Policy; repeat for more.",
            autocompletion=names.policies,
        ),
    ],
    rates: Rates = None,
    find_capacity: Annotated[
        bool, typer.Option("--find-capacity", help="Bracket each policy's largest stable rate.")
    ] = False,
    burst: Annotated[
        int | None,
        typer.Option(min=1, help="Also measure the recovery from so many requests at once."),
    ] = None,
    size: RunOptions = RunOptions(20, 20_000),
    resume: Annotated[
        Path | None,
        typer.Option(
            writable=True,
            file_okay=False,
            help="Folder that keeps finished rows; continue from it.",
        ),
    ] = None,
    clients: ClientOptions = ClientOptions(),
    place: PlaceOptions = PlaceOptions(),
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Policies by rate: verdicts, latencies, largest stable rates."""
    from validation.experiments.compare import compare
    from validation.experiments.ranges import parse_rates

    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    runs = size.runs()
    behaviour = clients.traffic(context)
    load, server = traffic.read(context, behaviour)
    with place.runner() as runner:
        found = compare(
            load,
            server,
            policy,
            rates=parse_rates(rates) if rates else None,
            arrivals=traffic.arrivals,
            traffic=behaviour,
            runs=runs,
            find_capacity=find_capacity,
            burst=burst,
            store=resume,
            runner=runner,
            progress=progress,
        )
    show(found, as_json, plot)
    if not as_json and traffic.tape is None:
        note_undecided(found.results, size.requests, size.replications)

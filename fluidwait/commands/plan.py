"""``fluidwait plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import note, progress, show
from fluidwait.options import (
    AsJson,
    PlotFile,
    Rate,
    WorkloadFile,
    by_name,
    new_app,
    read_workload,
)

app = new_app()

ROUNDS = 8
"""Of simulations for each server, about, for the progress bar."""


@app.command()
def command(
    workload: WorkloadFile,
    server: Annotated[
        list[str], typer.Option("--server", "-s", help="One that can be had; repeat for more.")
    ],
    objective: Annotated[
        str,
        typer.Option(
            help="goodput: most requests/s that attain their service levels; cost: least of the "
            "replicas that keep them; ttft: least p99 TTFT at the load's rate."
        ),
    ] = "goodput",
    cost: Annotated[
        list[str] | None, typer.Option(metavar="NAME=X", help="Cost per hour; 1 unless told.")
    ] = None,
    budget_s: Annotated[
        float, typer.Option(help="Seconds in all, after which no round is started.")
    ] = 60.0,
    rate: Rate = None,
    requests: Annotated[int, typer.Option(help="Arrivals per run.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write the table here.")
    ] = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Settings of an engine, a server and replicas, by simulation."""
    from fluid.errors import InputError
    from fluid.server import load_server
    from validation.experiments.planning.plan import plan
    from validation.simulator.runs import Runs

    load = read_workload(workload, rate)
    servers = [load_server(one) for one in server]
    costs = by_name("--cost", cost or (), [one.name for one in servers])
    with progress("plan", ROUNDS * len(servers)) as advance:
        found = plan(
            load,
            servers,
            objective=objective,  # type: ignore[arg-type]
            costs=costs,
            budget_s=budget_s,
            runs=Runs(2, requests, seed),
            on_done=advance,
        )
    if out:
        if found.best.table is None:
            raise InputError("out", str(out), f"nothing: no table says this to {found.best.engine}")
        found.best.table.write(out)
    show(found, as_json, plot)
    if out:
        note(f"Wrote {out}.")

"""``fluidwait fleet``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import show, waiting
from fluidwait.options import (
    AsJson,
    Rate,
    WorkloadFile,
    by_name,
    new_app,
    read_workload,
    require_use,
)

app = new_app()


@app.command()
def command(
    context: typer.Context,
    workload: WorkloadFile,
    server: Annotated[
        list[str], typer.Option("--server", "-s", help="A type that can be had; repeat for more.")
    ],
    cost: Annotated[
        list[str] | None, typer.Option(metavar="NAME=X", help="Cost of one; 1 unless told.")
    ] = None,
    max_count: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="At most so many of a type.")
    ] = None,
    policy: Annotated[
        str,
        typer.Option(help="Of the tables for the replicas.", autocompletion=names.solvers),
    ] = "paced",
    rate: Rate = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:key=value,…]",
            help="With service levels: policy of the replicas; that of a server's engine if none.",
        ),
    ] = None,
    budget_s: Annotated[
        float, typer.Option(help="With service levels: seconds for each server and mix.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """The cheapest servers for a load, and a table for each."""
    from fluid.errors import InputError
    from fluid.server import load_server
    from fluid.service_levels import promises
    from thresholds.checks import is_whole
    from thresholds.fleet import ServerType, fleet
    from thresholds.solvers.registry import solver_named

    solver = solver_named(policy)
    load = read_workload(workload, rate)
    servers = [load_server(one) for one in server]
    called = [one.name for one in servers]
    costs = by_name("--cost", cost or (), called)
    counts = by_name("--max-count", max_count or (), called)
    for name, count in counts.items():
        if not is_whole(count):
            raise InputError("--max-count", f"{name}={count:g}", "a whole number")
    types = [
        ServerType(
            one,
            costs.get(one.name, 1.0),
            int(counts[one.name]) if one.name in counts else None,
        )
        for one in servers
    ]
    if not promises(load):
        require_use(context, ["scheduler", "budget_s"], "only for a workload with service levels")
        show(fleet(load, types, solver), as_json)
        return
    from validation.experiments.slo.load import SloLoad

    with waiting("simulating the service levels"):
        measured = SloLoad(scheduler, budget_s=budget_s)
        found = fleet(load, types, solver, load_of=measured, sized_by=measured.words)
    show(found, as_json)

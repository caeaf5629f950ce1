"""``fluidwait capacity``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fluidwait import names
from fluidwait.console import progress, show
from fluidwait.options import (
    Arrivals,
    AsJson,
    BudgetTokens,
    LoadOptions,
    PlotFile,
    RunOptions,
    grouped,
    new_app,
    require_use,
)

if TYPE_CHECKING:
    from fluid.result import Result

app = new_app()

RATES = 40
"""Simulations of a query, about, for the progress bar."""


@app.command()
@grouped
def command(
    context: typer.Context,
    load: LoadOptions,
    query: Annotated[
        str,
        typer.Option(
            help="rate, kv_tokens, overhead_s, bandwidth, servers or output; by the workload's "
            "service levels: slo-rate, slo-servers or slo-queue.",
            autocompletion=names.queries,
        ),
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class that query output asks about.")
    ] = None,
    budget_tokens: BudgetTokens = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:key=value,…]", help="slo-…: policy; that of the server's engine if none."
        ),
    ] = None,
    router: Annotated[
        str,
        typer.Option(
            help="slo-servers: random (an even Poisson split), round-robin, or "
            "least-outstanding-tokens.",
            autocompletion=names.routers,
        ),
    ] = "random",
    arrivals: Arrivals = None,
    budget_s: Annotated[
        float, typer.Option(help="slo-…: seconds after which no longer runs are started.")
    ] = 60.0,
    size: RunOptions = RunOptions(20, 2_500),
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """The most or least of one thing with which a load is stable."""
    from fluid.errors import InputError

    if query in names.SIMULATED_QUERIES:
        only = f"nothing beside query {query}"
        if class_name is not None:
            raise InputError("class", class_name, only)
        require_use(context, ["budget_tokens", "device"], only)
        if plot:
            from fluid.plots.style import require_plot_path

            require_use(
                context, [] if query == "slo-queue" else ["plot"], "only with query slo-queue"
            )
            require_plot_path(plot)
        found = _by_levels(context, load, query, scheduler, router, arrivals, budget_s, size)
        show(found, as_json, plot)
        return
    from fluid.steady.capacity import capacity

    require_use(context, ["router"], "only with query slo-servers")
    simulated = ["scheduler", "arrivals", "budget_s", "replications", "requests", "seed", "device"]
    require_use(context, ["plot"], "only with query slo-queue")
    require_use(context, simulated, "only with query " + " or ".join(names.SIMULATED_QUERIES))
    show(capacity(*load.read(), query, class_name, budget_tokens=budget_tokens), as_json)


def _by_levels(
    context: typer.Context,
    load: LoadOptions,
    query: str,
    scheduler: str | None,
    router: str,
    arrivals: str | None,
    budget_s: float,
    size: RunOptions,
) -> Result:
    """The answer to a query about service levels; its runs, or its first ones, are of this size."""
    from validation.experiments.slo.overload import overload_curve
    from validation.experiments.slo.rate import slo_rate
    from validation.experiments.slo.servers import slo_servers

    workload, server = load.read()
    runs = size.runs()
    if query != "slo-servers":
        require_use(context, ["router"], "only with query slo-servers")
    if query != "slo-rate":
        allowed = "only with query slo-rate: elsewhere they are Poisson, split by the router"
        require_use(context, ["arrivals"], allowed)
    with progress(query, RATES) as advance:
        if query == "slo-queue":
            require_use(context, ["budget_s"], "nothing beside query slo-queue")
            return overload_curve(workload, server, scheduler, runs=runs, on_done=advance)
        if query == "slo-rate":
            return slo_rate(
                workload,
                server,
                scheduler,
                arrivals=arrivals,
                runs=runs,
                budget_s=budget_s,
                on_done=advance,
            )
        return slo_servers(
            workload,
            server,
            scheduler,
            router=router,  # type: ignore[arg-type]
            runs=runs,
            budget_s=budget_s,
            on_done=advance,
        )

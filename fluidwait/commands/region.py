"""``fluidwait region``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import progress, show
from fluidwait.options import (
    AsJson,
    BudgetTokens,
    LoadOptions,
    PlotFile,
    Replications,
    Requests,
    Seed,
    grouped,
    new_app,
    require_use,
)

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    load: LoadOptions,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Simulate the boundary of NAME[:key=value,…], or of paced, solved at each mix.",
            autocompletion=names.policies,
        ),
    ] = None,
    mixes: Annotated[int, typer.Option(min=2, help="Mixes of the simulated boundary.")] = 9,
    replications: Replications = 6,
    requests: Requests = 15_000,
    seed: Seed = 0,
    budget_tokens: BudgetTokens = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """All rates that a server carries, by theory and simulation."""
    from validation.experiments.region import region, require_two_classes
    from validation.simulator.runs import Runs

    if not policy:
        simulated = ["mixes", "replications", "requests", "seed"]
        require_use(context, simulated, "only with --policy, whose boundary is simulated")
    workload, server = load.read()
    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
        require_two_classes(workload, "a picture")
    if policy:
        runs = Runs(replications, requests, seed)
        with progress("region", mixes * len(policy)) as advance:
            found = region(
                workload,
                server,
                policy,
                mixes,
                runs,
                budget_tokens=budget_tokens,
                on_done=advance,
            )
    else:
        found = region(workload, server, budget_tokens=budget_tokens)
    show(found, as_json, plot)
    raise typer.Exit(0 if found.is_certain else 3)

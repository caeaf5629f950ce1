"""``fluidwait equilibrium``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import show
from fluidwait.options import AsJson, LoadOptions, PlotFile, grouped, new_app, require_use

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    load: LoadOptions,
    evictions: Annotated[
        float | None,
        typer.Option(help="Also: memory and rate at which this share of iterations overflows."),
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(help="In place of arrivals: so many clients, each waiting for its answer."),
    ] = None,
    think_s: Annotated[
        float, typer.Option(help="--clients: mean seconds between an answer and the next request.")
    ] = 0.0,
    plot: PlotFile = None,
    picture: Annotated[
        str, typer.Option(help="What to plot: latency (by rate), stages (KV by stage) or phase.")
    ] = "latency",
    as_json: AsJson = False,
) -> None:
    """Balanced state of a load on a server, and what limits it."""
    from fluid.steady.equilibrium import equilibrium

    if clients is not None:
        _closed_loop(context, load, clients, think_s, plot, as_json)
        return
    require_use(context, ["think_s"], "only with --clients")
    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    else:
        require_use(context, ["picture"], "only with --plot")
    found = equilibrium(*load.read(), evictions=evictions, loss=True)
    if plot:
        from fluid.plots.style import save

        save(lambda: found.plot(picture=picture), plot)
    show(found, as_json)
    raise typer.Exit(0 if found.stable else 3)


def _closed_loop(
    context: typer.Context,
    load: LoadOptions,
    clients: int,
    think_s: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """The balanced state of a closed loop."""
    from fluid.overload.fixed_clients import fixed_clients

    require_use(
        context, ["rate", "evictions", "picture"], "nothing beside --clients: they make the rate"
    )
    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    show(fixed_clients(*load.read(), clients, think_s=think_s), as_json, plot)

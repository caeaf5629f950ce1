"""``fluidwait equilibrium``."""

from __future__ import annotations

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
    plot: PlotFile = None,
    picture: Annotated[
        str, typer.Option(help="What to plot: latency (by rate), stages (KV by stage) or phase.")
    ] = "latency",
    as_json: AsJson = False,
) -> None:
    """Balanced state of a load on a server, and what limits it."""
    from fluid.steady.equilibrium import equilibrium

    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    else:
        require_use(context, ["picture"], "only with --plot")
    found = equilibrium(*load.read(), evictions=evictions)
    if plot:
        from fluid.plots.style import save

        save(lambda: found.plot(picture=picture), plot)
    show(found, as_json)
    raise typer.Exit(0 if found.stable else 3)

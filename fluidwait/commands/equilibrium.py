"""``fluidwait equilibrium``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluidwait import names
from fluidwait.console import SOLVING, progress, show, waiting
from fluidwait.options import (
    AsJson,
    LoadOptions,
    PlotFile,
    Replications,
    Requests,
    Seed,
    grouped,
    new_app,
    require_use,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluid.steady.equilibrium import Equilibrium
    from validation.experiments.simulate import PolicyResult

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    load: LoadOptions,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:key=value,…]",
            help="Whose latencies: greedy, vllm-v1 or sarathi, with the parameters of the policy; "
            "that of the server's engine if not given, or greedy.",
            autocompletion=names.schedulers,
        ),
    ] = None,
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
    simulate: Annotated[
        str | None,
        typer.Option(metavar="RATES", help="Simulate these rates too, as points: a:b:step or a,b."),
    ] = None,
    replications: Replications = 6,
    requests: Requests = 5_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Balanced state of a load on a server, limits and latencies."""
    from fluid.steady.equilibrium import equilibrium

    if clients is not None:
        _closed_loop(context, load, clients, think_s, plot, as_json)
        return
    require_use(context, ["think_s"], "only with --clients")
    _require_picture(context, plot, picture, simulate)
    read = load.read()
    with waiting(SOLVING):
        found = equilibrium(*read, scheduler=scheduler, evictions=evictions, loss=True)
        _ = found.prediction  # solved when first asked for
    if plot:
        from fluid.plots.style import save

        size = replications, requests, seed
        points = _simulated(found, simulate, *size) if simulate else ()
        save(lambda: found.plot(picture=picture, simulated=points), plot)
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

    open_arrivals = ["rate", "scheduler", "evictions", "picture", "simulate"]
    sizes = ["replications", "requests", "seed"]
    require_use(context, [*open_arrivals, *sizes], "nothing beside --clients: they make the rate")
    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    show(fixed_clients(*load.read(), clients, think_s=think_s), as_json, plot)


def _require_picture(
    context: typer.Context, plot: Path | None, picture: str, simulate: str | None
) -> None:
    """Refuse options of a picture that is not drawn, and a path that cannot be drawn to."""
    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    else:
        require_use(context, ["picture", "simulate"], "only with --plot")
    if picture != "latency":
        require_use(context, ["simulate"], "only with --picture latency")
    if simulate is None:
        sizes = ["replications", "requests", "seed"]
        require_use(context, sizes, "only with --simulate")


def _simulated(
    found: Equilibrium, rates: str, replications: int, requests: int, seed: int
) -> Sequence[PolicyResult]:
    """The scheduler in simulation, at those of these rates at which it has mean times."""
    from validation.experiments.compare import compare
    from validation.experiments.ranges import parse_rates
    from validation.simulator.runs import Runs

    compared = compare(
        found.workload,
        found.server,
        found.scheduler,
        rates=parse_rates(rates),
        runs=Runs(replications, requests, seed),
        progress=progress,
    )
    return [one for one in compared.results if one.verdict != "unstable"]

"""``fluidwait replay``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import note_undecided, progress, say, show
from fluidwait.options import (
    Arrivals,
    AsJson,
    ClientOptions,
    PlotFile,
    Rate,
    RunOptions,
    TableFile,
    TapeLongest,
    TapePart,
    grouped,
    new_app,
    read_tape,
    require_use,
)

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    table: TableFile,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare with NAME[:key=value,…] instead of the greedy baselines.",
            autocompletion=names.policies,
        ),
    ] = None,
    tape: Annotated[
        Path | None,
        typer.Option(help="Recorded arrivals, not Poisson ones: a tape, or any trace with times."),
    ] = None,
    part: TapePart = None,
    drop_longer_than: TapeLongest = None,
    arrivals: Arrivals = None,
    rate: Rate = None,
    clients: ClientOptions = ClientOptions(),
    size: RunOptions = RunOptions(20, 10_000),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", writable=True, help="Write the table with its validation here."
        ),
    ] = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """A table beside greedy admission, simulated on equal arrivals."""
    from thresholds.table import ThresholdTable
    from validation.experiments.replay import BASELINES, replay

    if plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    runs = size.runs()
    traffic = clients.traffic(context)
    if traffic is not None:
        require_use(context, ["out"], "nothing beside clients, jobs, bounds and patience")
    recorded = read_tape(context, tape, part, drop_longer_than, traffic)
    policies = policy or BASELINES
    total = (1 if recorded else runs.replications) * (1 + len(policies))
    with progress("replay", total) as advance:
        found = replay(
            ThresholdTable.read(table),
            policies,
            tape=recorded,
            arrivals=arrivals,
            traffic=traffic,
            rate_per_s=rate,
            runs=runs,
            on_done=advance,
        )
    if out:
        found.validated_table.write(out)
    show(found, as_json, plot)
    if not as_json and recorded is None:
        note_undecided(found.results, size.requests, size.replications)
    if out and not as_json:
        say(f"Wrote {out}.")

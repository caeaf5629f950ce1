"""``fluidwait solve``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluidwait.console import SOLVING, say, show, waiting
from fluidwait.options import AsJson, LoadOptions, grouped, new_app, require_use

if TYPE_CHECKING:
    pass

SOLVER_OPTIONS = (
    *("objective", "scheduler", "budget_s", "overflow_probability", "horizon_s", "segments"),
    *("prompts", "certificate", "time_limit_s"),
)
"""Options of the command that belong to the solver: each has those that it knows."""

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    load: LoadOptions,
    policy: Annotated[
        str,
        typer.Option(
            help="paced (the practical form), wait (literal WAIT), nested-wait (literal Nested "
            "WAIT, lengths unknown) or nested-cap (caps per segment)."
        ),
    ] = "paced",
    objective: Annotated[
        str | None,
        typer.Option(
            help="wait: latency (unless told), ttft, memory, slack, rate or sharp-latency; "
            "nested-wait: the same without sharp-latency."
        ),
    ] = None,
    overload: Annotated[
        bool, typer.Option("--overload", help="Above capacity: admit what is worth most of it.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="paced: greedy (unless told) or vllm-v1, whose batching and eviction the limits "
            "refine."
        ),
    ] = None,
    budget_s: Annotated[
        float | None,
        typer.Option(help="paced: seconds to refine on the simulator; else the closed form."),
    ] = None,
    overflow_probability: Annotated[
        float | None,
        typer.Option(help="nested-wait: of any overflow within the horizon; 0.01 unless told."),
    ] = None,
    horizon_s: Annotated[
        float | None, typer.Option(help="nested-wait: seconds of that horizon; 3600 unless told.")
    ] = None,
    segments: Annotated[
        int | None, typer.Option(help="nested-*: segments of output length; default the best.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="nested-*: worst (unless told) or weighted, the prompt that memory counts."
        ),
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option(
            help="nested-wait: what memory must fit by, theorem (unless told) or law, that of the "
            "boundary queues."
        ),
    ] = None,
    time_limit_s: Annotated[
        float | None,
        typer.Option(
            help="nested-wait: seconds to look for the best; 10 unless told. What is then left to "
            "prove is said."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            writable=True, help="nested-wait: draw base memory and buffers against segments."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write the table here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Threshold table for a load, or one per window of its profile."""
    from thresholds.schedule import Schedule
    from thresholds.solvers.nested.nested_wait import NestedWait
    from thresholds.solvers.registry import solver_named
    from validation.experiments.solve import solve

    given = {name: context.params[name] for name in SOLVER_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    solver = solver_named(policy, **given)
    if not isinstance(solver, NestedWait):
        require_use(context, ["plot"], "only with --policy nested-wait")
    elif plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(plot)
    workload, server = load.read()
    with waiting("refining on the simulator" if budget_s else SOLVING):
        found = solve(workload, server, solver, overload=overload, loss=True)
    if plot and isinstance(solver, NestedWait):
        from fluid.plots.style import save

        save(solver.buffers(workload, server).plot, plot)
    if out:
        found.write(out)
    show(found, as_json)
    if as_json:
        return
    if plot:
        say(f"Wrote {plot}.")
    if out:
        next_step = (
            ""
            if isinstance(found, Schedule)
            else f" Next: fluidwait replay {shlex.quote(str(out))}"
        )
        say(f"Wrote {out}.{next_step}")

"""``fluidwait solve``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluidwait import names
from fluidwait.console import SOLVING, say, show, waiting
from fluidwait.options import AsJson, LoadOptions, grouped, new_app, require_use

if TYPE_CHECKING:
    from thresholds.uncertain.rates import RateUncertainty

FROM_TRACE = "from-trace"
ANY_MIX = "mix"

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
            "WAIT, lengths unknown) or nested-cap (caps per segment).",
            autocompletion=names.solvers,
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
    rate_uncertainty: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|mix|mix:SHARE|from-trace",
            help="The table holds for all rates within this share of the given ones, for any mix "
            "at the given total rate (or one of which this share is unknown), or for those rates "
            "that the recording behind them makes likely.",
        ),
    ] = None,
    uncertain_classes: Annotated[
        float | None,
        typer.Option(
            help="--rate-uncertainty SHARE: so many classes deviate by all of it at most."
        ),
    ] = None,
    miss_probability: Annotated[
        float | None,
        typer.Option(help="--rate-uncertainty from-trace: that it fails; 0.05 unless told."),
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
    uncertainty = _uncertainty(context, rate_uncertainty, uncertain_classes, miss_probability)
    workload, server = load.read()
    with waiting("refining on the simulator" if budget_s else SOLVING):
        found = solve(
            workload, server, solver, overload=overload, loss=True, uncertainty=uncertainty
        )
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


def _uncertainty(
    context: typer.Context, given: str | None, classes: float | None, miss: float | None
) -> RateUncertainty | None:
    """What the rates may be.

    Raises:
        InputError: None of the kinds of uncertainty, or an option of another one.
    """
    from fluid.errors import InputError
    from thresholds.uncertain.rates import RateBox, RateMix, RatePosterior

    if given != FROM_TRACE:
        require_use(context, ["miss_probability"], f"only with --rate-uncertainty {FROM_TRACE}")
    kind, _, of_mix = (given or "").partition(":")
    if given is None or given == FROM_TRACE or kind == ANY_MIX:
        require_use(context, ["uncertain_classes"], "only with --rate-uncertainty SHARE")
    if given is None:
        return None
    if given == FROM_TRACE:
        return RatePosterior() if miss is None else RatePosterior(miss)
    if given == ANY_MIX:
        return RateMix()
    allowed = f"a share, 0 or more and below 1, {ANY_MIX}, {ANY_MIX}:SHARE or {FROM_TRACE}"
    try:
        share = float(of_mix if kind == ANY_MIX else given)
    except ValueError:
        raise InputError("rate_uncertainty", given, allowed) from None
    if not 0 <= share < 1:
        raise InputError("rate_uncertainty", given, allowed)
    if kind == ANY_MIX:
        return RateMix(share)
    try:
        return RateBox(share, classes)
    except InputError as error:
        raise InputError("uncertain_classes", classes, error.allowed) from None

"""``fluidwait solve``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import typer

from fluid.errors import InfeasibleError, InputError
from fluid.server import load_server
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, note, number, percent, print_json, say, show_table, waiting
from fluidwait.options import AsJson, Rate, ServerName, WorkloadFile, new_app
from thresholds.evaluator import Evaluator
from thresholds.export.jsonio import write_table
from thresholds.problem import Problem
from thresholds.schedule import Schedule, solve_admitted, solve_schedule
from thresholds.solve import solve
from thresholds.solvers.nested.segments import Prompts
from thresholds.table import PARAMETER_MEANINGS, Memory, Scheduler, ThresholdTable


@dataclass(frozen=True)
class NestedOptions:
    """Options of the nested policies, as given."""

    overflow_probability: float = 0.01
    horizon_s: float = 3600.0
    segments: int | None = None
    prompts: str = "worst"
    plot: Path | None = None


@dataclass(frozen=True)
class SolveOptions:
    """Options of the command, as given."""

    workload: Path
    server: str
    policy: str = "paced"
    objective: str = "latency"
    overload: bool = False
    rate: float | None = None
    scheduler: str = "greedy"
    budget_s: float = 0.0
    nested: NestedOptions = field(default_factory=NestedOptions)
    out: Path | None = None
    as_json: bool = False


def run_solve(options: SolveOptions) -> None:
    """Solve, print, and write the table, or the schedule, where asked to."""
    problem = _problem(options)
    plot = options.nested.plot
    if plot:
        _require_plottable(problem, plot)
    with waiting("refining on the simulator" if options.budget_s else "solving"):
        found = _solved(problem, options.overload)
    if plot:
        _draw_buffers(problem, plot)
    if options.out:
        write_table(found, options.out)
    if options.as_json:
        print_json(found.document())
        return
    if isinstance(found, Schedule):
        print_schedule(found)
    else:
        print_table(found)
    if plot:
        say(f"Wrote {plot}.")
    if options.out:
        next_step = "" if isinstance(found, Schedule) else f" Next: fluidwait replay {options.out}"
        say(f"Wrote {options.out}.{next_step}")


def _problem(options: SolveOptions) -> Problem:
    nested = options.nested
    return Problem(
        load_workload(options.workload, options.rate),
        load_server(options.server),
        options.policy,
        objective=options.objective,
        scheduler=cast(Scheduler, options.scheduler),
        budget_s=options.budget_s,
        evaluator=_evaluator() if options.budget_s else None,
        overflow_probability=nested.overflow_probability,
        horizon_s=nested.horizon_s,
        segments=nested.segments,
        prompts=cast(Prompts, nested.prompts),
    )


def _solved(problem: Problem, overload: bool) -> ThresholdTable | Schedule:
    if problem.workload.rate_profile is not None:
        return solve_schedule(problem, overload)
    if overload:
        return solve_admitted(problem, problem.workload)
    return solve(problem)


def _evaluator() -> Evaluator:
    from validation.experiments.evaluate import simulate_settings  # numba is slow to import

    return simulate_settings


def _require_plottable(problem: Problem, plot: Path) -> None:
    from fluid.plots.style import require_plot_path

    require_plot_path(plot)
    if problem.policy != "nested-wait":
        raise InputError("--plot", str(plot), "only with --policy nested-wait")


def _draw_buffers(problem: Problem, plot: Path) -> None:
    """Draw the buffers against L; with drift at some L, as there is a table."""
    from thresholds.solvers.nested.buffer_plot import plot_buffers
    from thresholds.solvers.nested.cuts import buffer_decomposition

    designs = buffer_decomposition(problem)
    if not designs:
        raise InfeasibleError("no design to draw: drift fails for all", "drift", "lower the rates")
    plot_buffers(designs, plot)


def print_schedule(schedule: Schedule) -> None:
    """Each window with its settings, then what must be known about them."""
    title = f"{schedule.policy} schedule for {schedule.workload.name} on {schedule.server.name}"
    shown = new_table(title, "from s", "to s", "rates ×", "set", "stable up to /s")
    for one in schedule.windows:
        settings = one.table.params or {each.name: each.threshold for each in one.table.thresholds}
        shown.add_row(
            number(one.start_s),
            number(one.end_s),
            number(one.multiplier),
            ", ".join(f"{name} {number(float(value))}" for name, value in settings.items()),
            number(one.table.valid_for.max_rate_per_s),
        )
    show_table(shown)
    if schedule.hand_over is not None:
        holds = "holds" if schedule.hand_over.holds else "FAILS: evictions are possible"
        say(f"{schedule.hand_over.condition}: {holds}.")
    for one in schedule.windows:
        for remark in (*one.notes, *one.table.notes):
            note(f"note: from {number(one.start_s)} s: {remark}")


def _print_memory(memory: Memory) -> None:
    """The memory behind a table with segments, part by part, and its promise."""
    shown = new_table("Memory", "for", "KV tokens", text=(0,))
    shown.add_row("full batches", number(memory.required_tokens))
    if memory.stochastic_buffer_tokens is not None:
        by_chance = memory.stochastic_buffer_tokens
        shown.add_row("full boundary queues", number(memory.buffer_tokens - by_chance))
        shown.add_row("queues that grow beyond them by chance", number(by_chance))
    shown.add_row("the server has", number(memory.capacity_tokens))
    show_table(shown)
    if memory.overflow_probability is not None and memory.horizon_s is not None:
        say(
            f"An overflow within {number(memory.horizon_s)} s has probability "
            f"{number(memory.overflow_probability)} at most."
        )


def print_table(table: ThresholdTable) -> None:
    """What to set, why, and when not to trust it."""
    title = f"{table.policy} table for {table.workload.name} on {table.server.name}"
    settings = new_table(title, "set", "to", "meaning", text=(0, 2))
    for name, value in table.params.items():
        settings.add_row(name, number(float(value)), PARAMETER_MEANINGS.get(name, ""))
    if table.policy == "wait":
        for limit in table.thresholds:
            meaning = "requests of the class that one stage serves at once"
            settings.add_row(f"threshold of {limit.name}", str(limit.threshold), meaning)
    if table.policy in ("nested-wait", "nested-cap"):
        served = "each stage" if table.policy == "nested-wait" else "the segment"
        for limit in table.thresholds:
            name = f"{limit.name}, up to output token {limit.up_to_tokens}"
            settings.add_row(name, str(limit.threshold), f"requests of {served} served at once")
    show_table(settings)
    if table.policy in ("nested-wait", "nested-cap"):
        _print_memory(table.memory)
    certificate = new_table("Certificate", "condition", "slack", "holds")
    for one in table.certificate:
        certificate.add_row(one.condition, percent(one.slack), "yes" if one.holds else "NO")
    show_table(certificate)
    predicted = table.predicted
    if predicted.policy_latency_s is not None:
        say(f"Predicted under this table: mean latency {number(predicted.policy_latency_s)} s.")
    say(
        f"Predicted for work-conserving service: mean latency {number(predicted.latency_s)} s, "
        f"KV {number(predicted.kv_tokens)} of {number(table.memory.capacity_tokens)} tokens."
    )
    for price in table.prices:
        say(f"Price: {price.words}.")
    gap = table.solver.optimality_gap
    say(
        f"Solver: {table.solver.name}, {table.solver.status}"
        + (f", within {percent(gap, 2)} of the optimum." if gap is not None else ".")
    )
    least = table.valid_for.min_rate_per_s
    say(
        f"Valid for total rates {f'from {number(least)} ' if least else ''}"
        f"up to {number(table.valid_for.max_rate_per_s)} /s; "
        f"{predicted.binding} binds there."
    )
    for remark in table.notes:
        note(f"note: {remark}")


app = new_app()


@app.command()
def command(
    workload: WorkloadFile,
    server: ServerName,
    policy: Annotated[
        str,
        typer.Option(
            help="paced (the practical form), wait (literal WAIT), nested-wait (literal Nested "
            "WAIT, lengths unknown) or nested-cap (caps per segment)."
        ),
    ] = "paced",
    objective: Annotated[
        str, typer.Option(help="latency; for wait also ttft, memory, slack, rate, sharp-latency.")
    ] = "latency",
    overload: Annotated[
        bool, typer.Option("--overload", help="Above capacity: admit what is worth most of it.")
    ] = False,
    rate: Rate = None,
    scheduler: Annotated[
        str,
        typer.Option(help="greedy or vllm-v1: whose batching and eviction the limits refine."),
    ] = "greedy",
    budget_s: Annotated[
        float, typer.Option(help="Seconds to refine on the simulator; 0: the closed form.")
    ] = 0.0,
    overflow_probability: Annotated[
        float, typer.Option(help="nested-wait: of any overflow within the horizon.")
    ] = 0.01,
    horizon_s: Annotated[float, typer.Option(help="nested-wait: seconds of that horizon.")] = 3600,
    segments: Annotated[
        int | None, typer.Option(help="nested-*: segments of output length; default the best.")
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(help="nested-*: worst or weighted, the prompt that memory counts."),
    ] = "worst",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="nested-wait: draw base memory and buffers against segments."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Threshold table for a load, or one per window of its profile."""
    run_solve(
        SolveOptions(
            workload,
            server,
            policy=policy,
            objective=objective,
            overload=overload,
            rate=rate,
            scheduler=scheduler,
            budget_s=budget_s,
            nested=NestedOptions(overflow_probability, horizon_s, segments, prompts, plot),
            out=out,
            as_json=as_json,
        )
    )

"""``fluidwait solve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fluid.server import load_server
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, note, number, percent, print_json, say, show
from thresholds.export.jsonio import write_table
from thresholds.problem import Problem
from thresholds.schedule import Schedule, solve_admitted, solve_schedule
from thresholds.solve import solve
from thresholds.table import ThresholdTable


@dataclass(frozen=True)
class SolveOptions:
    """Options of the command."""

    workload: Path
    server: str
    policy: str
    objective: str
    overload: bool
    rate: float | None
    out: Path | None
    as_json: bool


def run_solve(options: SolveOptions) -> None:
    """Solve, print, and write the table, or the schedule, where asked to."""
    workload = load_workload(options.workload, options.rate)
    problem = Problem(workload, load_server(options.server), options.policy, options.objective)
    found: ThresholdTable | Schedule
    if workload.rate_profile is not None:
        found = solve_schedule(problem, options.overload)
    elif options.overload:
        found = solve_admitted(problem, workload)
    else:
        found = solve(problem)
    if options.out:
        write_table(found, options.out)
    if options.as_json:
        print_json(found.document())
        return
    if isinstance(found, Schedule):
        print_schedule(found)
    else:
        print_table(found)
    if options.out:
        next_step = "" if isinstance(found, Schedule) else f" Next: fluidwait replay {options.out}"
        say(f"Wrote {options.out}.{next_step}")


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
    show(shown)
    if schedule.hand_over is not None:
        holds = "holds" if schedule.hand_over.holds else "FAILS: evictions are possible"
        say(f"{schedule.hand_over.condition}: {holds}.")
    for one in schedule.windows:
        for remark in (*one.notes, *one.table.notes):
            note(f"note: from {number(one.start_s)} s: {remark}")


def print_table(table: ThresholdTable) -> None:
    """What to set, why, and when not to trust it."""
    title = f"{table.policy} table for {table.workload.name} on {table.server.name}"
    settings = new_table(title, "set", "to")
    for name, value in table.params.items():
        settings.add_row(name, number(float(value)))
    if table.policy == "wait":
        for limit in table.thresholds:
            settings.add_row(f"threshold of {limit.name}", str(limit.threshold))
    show(settings)
    certificate = new_table("Certificate", "condition", "slack", "holds")
    for one in table.certificate:
        certificate.add_row(one.condition, percent(one.slack), "yes" if one.holds else "NO")
    show(certificate)
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

"""``fluidwait solve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fluid.errors import InfeasibleError, InputError
from fluid.server import load_server
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, note, number, percent, print_json, say, show, waiting
from thresholds.evaluator import Evaluator
from thresholds.export.jsonio import write_table
from thresholds.problem import Problem
from thresholds.segments import Prompts
from thresholds.solve import solve
from thresholds.table import Scheduler, ThresholdTable


@dataclass(frozen=True)
class NestedOptions:
    """Options of the nested policies, as given."""

    overflow_probability: float = 0.01
    horizon_s: float = 3600.0
    segments: int | None = None
    prompts: str = "worst"
    plot: Path | None = None


_DEFAULTS = NestedOptions()


def run_solve(
    path: Path,
    server_name: str,
    *,
    policy: str = "paced",
    rate: float | None = None,
    scheduler: str = "greedy",
    budget_s: float = 0.0,
    nested: NestedOptions = _DEFAULTS,
    out: Path | None = None,
    as_json: bool = False,
) -> None:
    """Solve, print, and write the table where asked to."""
    problem = Problem(
        load_workload(path, rate),
        load_server(server_name),
        policy,
        scheduler=cast(Scheduler, scheduler),
        budget_s=budget_s,
        evaluator=_evaluator() if budget_s else None,
        overflow_probability=nested.overflow_probability,
        horizon_s=nested.horizon_s,
        segments=nested.segments,
        prompts=cast(Prompts, nested.prompts),
    )
    if nested.plot:
        _require_plottable(problem, nested.plot)
    with waiting("refining on the simulator" if budget_s else "solving"):
        table = solve(problem)
    if nested.plot:
        _draw_buffers(problem, nested.plot)
    if out:
        write_table(table, out)
    if as_json:
        print_json(table.document())
        return
    print_table(table)
    if nested.plot:
        say(f"Wrote {nested.plot}.")
    if out:
        say(f"Wrote {out}. Next: fluidwait replay {out}")


def _evaluator() -> Evaluator:
    from validation.evaluate import simulate_settings  # numba is slow to import

    return simulate_settings


def _require_plottable(problem: Problem, plot: Path) -> None:
    from fluid.plots import require_plot_path

    require_plot_path(plot)
    if problem.policy != "nested-wait":
        raise InputError("--plot", str(plot), "only with --policy nested-wait")


def _draw_buffers(problem: Problem, plot: Path) -> None:
    """Draw the buffers against L; with drift at some L, as there is a table."""
    from thresholds.plots import plot_buffers
    from thresholds.solvers.nested_cuts import buffer_decomposition

    designs = buffer_decomposition(problem)
    if not designs:
        raise InfeasibleError("no design to draw: drift fails for all", "drift", "lower the rates")
    plot_buffers(designs, plot)


def print_table(table: ThresholdTable) -> None:
    """What to set, why, and when not to trust it."""
    title = f"{table.policy} table for {table.workload.name} on {table.server.name}"
    settings = new_table(title, "set", "to")
    for name, value in table.params.items():
        settings.add_row(name, number(float(value)))
    if table.policy == "wait":
        for limit in table.thresholds:
            settings.add_row(f"threshold of {limit.name}", str(limit.threshold))
    if table.policy in ("nested-wait", "nested-cap"):
        for limit in table.thresholds:
            name = f"{limit.name}, up to output token {limit.up_to_tokens}"
            settings.add_row(name, str(limit.threshold))
        settings.add_row("base memory, tokens", number(table.memory.required_tokens))
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
    gap = table.solver.optimality_gap
    say(
        f"Solver: {table.solver.name}, {table.solver.status}"
        + (f", within {percent(gap, 2)} of the optimum." if gap is not None else ".")
    )
    say(
        f"Valid for total rates up to {number(table.valid_for.max_rate_per_s)} /s; "
        f"{predicted.binding} binds there."
    )
    for remark in table.notes:
        note(f"note: {remark}")

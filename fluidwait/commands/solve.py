"""``fluidwait solve``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from fluid.server import load_server
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, note, number, percent, print_json, say, show, waiting
from thresholds.evaluator import Evaluator
from thresholds.export.jsonio import write_table
from thresholds.problem import Problem
from thresholds.solve import solve
from thresholds.table import PARAMETER_MEANINGS, Scheduler, ThresholdTable


def run_solve(
    path: Path,
    server_name: str,
    *,
    policy: str = "paced",
    rate: float | None = None,
    scheduler: str = "greedy",
    budget_s: float = 0.0,
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
    )
    with waiting("refining on the simulator" if budget_s else "solving"):
        table = solve(problem)
    if out:
        write_table(table, out)
    if as_json:
        print_json(table.document())
        return
    print_table(table)
    if out:
        say(f"Wrote {out}. Next: fluidwait replay {out}")


def _evaluator() -> Evaluator:
    from validation.evaluate import simulate_settings  # numba is slow to import

    return simulate_settings


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

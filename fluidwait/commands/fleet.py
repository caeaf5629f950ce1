"""``fluidwait fleet``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fluid.errors import InputError
from fluid.server import load_server
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, number, percent, print_json, say, show_table
from fluidwait.options import AsJson, Rate, WorkloadFile, new_app
from thresholds.fleet import Fleet, ServerType, fleet
from thresholds.problem import Problem
from thresholds.solve import solve
from thresholds.table import ThresholdTable


@dataclass(frozen=True)
class FleetOptions:
    """Options of the command."""

    workload: Path
    servers: Sequence[str]
    costs: Sequence[str]
    max_counts: Sequence[str]
    policy: str
    rate: float | None
    as_json: bool


def run_fleet(options: FleetOptions) -> None:
    """Find the fleet, solve for one replica of each type, print."""
    workload = load_workload(options.workload, options.rate)
    servers = [load_server(one) for one in options.servers]
    names = [one.name for one in servers]
    costs = _by_name("--cost", options.costs, names)
    counts = _by_name("--max-count", options.max_counts, names)
    for name, count in counts.items():
        if count != int(count):
            raise InputError("--max-count", f"{name}={count:g}", "a whole number")
    types = [
        ServerType(one, costs.get(one.name, 1.0), int(counts[one.name]))
        if one.name in counts
        else ServerType(one, costs.get(one.name, 1.0))
        for one in servers
    ]
    found = fleet(workload, types)
    tables = [solve(Problem(one.workload, one.server, options.policy)) for one in found.replicas]
    if options.as_json:
        print_json(_document(found, tables))
        return
    title = f"Fleet for {workload.name}"
    shown = new_table(title, "server", "count", "load of each", "share of each class")
    for one in found.replicas:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in one.shares.items())
        shown.add_row(one.server.name, str(one.count), percent(one.load), shares)
    show_table(shown)
    proof = "no fleet is cheaper" if found.is_optimal else "verified, not proven to be the cheapest"
    say(f"Total cost {number(found.cost)}: {proof}.")
    for table in tables:
        settings = table.params or {one.name: one.threshold for one in table.thresholds}
        said = ", ".join(f"{name} {number(float(value))}" for name, value in settings.items())
        say(f"Each {table.server.name}: {said}.")


def _document(found: Fleet, tables: Sequence[ThresholdTable]) -> dict[str, Any]:
    return {
        "cost": found.cost,
        "is_optimal": found.is_optimal,
        "servers": [
            {
                "server": one.server.name,
                "count": one.count,
                "load": one.load,
                "shares": one.shares,
                "table": table.document(),
            }
            for one, table in zip(found.replicas, tables, strict=True)
        ],
    }


def _by_name(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Numbers of NAME=X options.

    Raises:
        InputError: Not that form, no number, or no such server.
    """
    found = {}
    for one in given:
        name, equals, text = one.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(option, one, "NAME=NUMBER")
        if name not in names:
            raise InputError(option, one, "a name among " + ", ".join(names))
        found[name] = value
    return found


app = new_app()


@app.command()
def command(
    workload: WorkloadFile,
    server: Annotated[
        list[str], typer.Option("--server", "-s", help="A type that can be had; repeat for more.")
    ],
    cost: Annotated[
        list[str] | None, typer.Option(metavar="NAME=X", help="Cost of one; 1 unless told.")
    ] = None,
    max_count: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="At most so many of a type.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Of the tables for the replicas.")] = "paced",
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """The cheapest servers for a load, and a table for each type."""
    run_fleet(FleetOptions(workload, server, cost or [], max_count or [], policy, rate, as_json))

"""``fluidwait region``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from fluid.errors import InputError
from fluid.server import load_server
from fluid.steady.region import StabilityRegion
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, number, percent, print_json, progress, say, show_table
from fluidwait.options import (
    AsJson,
    PlotFile,
    Rate,
    Replications,
    Requests,
    Seed,
    ServerName,
    WorkloadFile,
    new_app,
)

if TYPE_CHECKING:
    from validation.experiments.simulated_region import SimulatedPoint


@dataclass(frozen=True)
class RegionOptions:
    """Options of the command, as given."""

    workload: Path
    server: str
    rate: float | None
    policies: list[str]
    mixes: int
    replications: int
    requests: int
    seed: int
    plot: Path | None
    as_json: bool


def run_region(options: RegionOptions) -> int:
    """Print the region, draw it where asked to; returns 3 where the workload lies outside."""
    workload = load_workload(options.workload, options.rate)
    region = StabilityRegion(workload, load_server(options.server))
    if options.plot or options.policies:
        _require_two(region)
    if options.plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(options.plot)
    simulated = _simulated(region, options)
    margin = 1 - 1 / region.reach(region.operating_point_per_s)
    if options.plot:
        _draw(region, simulated, options.plot)
    if options.as_json:
        print_json(_document(region, margin, simulated))
    else:
        _print(region, margin, simulated)
        if options.plot:
            say(f"Wrote {options.plot}.")
    return 0 if margin >= 0 else 3


def _require_two(region: StabilityRegion) -> None:
    if len(region.names) != 2:
        raise InputError("classes", len(region.names), "two classes with --plot or --policy")


def _simulated(region: StabilityRegion, options: RegionOptions) -> dict[str, list[SimulatedPoint]]:
    if not options.policies:
        return {}
    from validation.experiments.simulated_region import check_policy, simulated_boundary

    for policy in options.policies:
        check_policy(policy)
    found = {}
    with progress("region", options.mixes * len(options.policies)) as advance:
        for policy in options.policies:
            found[policy] = simulated_boundary(
                region,
                policy,
                options.mixes,
                replications=options.replications,
                requests=options.requests,
                seed=options.seed,
                on_done=advance,
            )
    return found


def _draw(region: StabilityRegion, simulated: dict[str, list[SimulatedPoint]], path: Path) -> None:
    from fluid.plots.style import save
    from thresholds.guaranteed import nested_boundary, wait_boundary

    points = {
        policy: np.array([one.stable_per_s for one in found if one.stable_per_s]).reshape(-1, 2)
        for policy, found in simulated.items()
    }
    theorems = {
        "whole WAIT thresholds": wait_boundary(region),
        "Nested WAIT with its buffer (1 % in an hour)": nested_boundary(region),
    }
    save(lambda: region.plot(theorem_per_s=theorems, simulated_per_s=points), path)


def _document(
    region: StabilityRegion, margin: float, simulated: dict[str, list[SimulatedPoint]]
) -> dict[str, Any]:
    normal = region.normal_s
    document: dict[str, Any] = {
        "workload": region.workload.name,
        "server": region.server.name,
        "classes": list(region.names),
        "rates_per_s": region.operating_point_per_s.tolist(),
        "normal_s": None if normal is None else normal.tolist(),
        "vertices_per_s": region.vertices_per_s.tolist(),
        "boundary_per_s": region.boundary().tolist() if len(region.names) == 2 else None,
        "margin": margin,
    }
    if simulated:
        document["simulated"] = {
            policy: [one.as_dict() for one in found] for policy, found in simulated.items()
        }
    return document


def _print(
    region: StabilityRegion, margin: float, simulated: dict[str, list[SimulatedPoint]]
) -> None:
    table = new_table(
        f"Stability region of {region.workload.name} on {region.server.name}",
        "class",
        "rate /s",
        "largest rate alone /s",
        "normal a s",
    )
    normal = region.normal_s
    for index, name in enumerate(region.names):
        table.add_row(
            name,
            number(float(region.operating_point_per_s[index])),
            number(float(region.intercepts_per_s[index])),
            number(None if normal is None else float(normal[index])),
        )
    show_table(table)
    for policy, found in simulated.items():
        _print_simulated(region, policy, found)
    if normal is None:
        say("The server's iteration time is not affine: the boundary is traced, not a half-space.")
    else:
        say("Exact half-space: stable where Σ λ·a ≤ 1.")
    say(verdict_line(margin))


def _print_simulated(region: StabilityRegion, policy: str, found: list[SimulatedPoint]) -> None:
    first, second = region.names
    table = new_table(
        f"Simulated boundary of {policy}", "policy", f"{first} /s", f"{second} /s", "of fluid"
    )
    for one in found:
        rates = one.stable_per_s or (None, None)
        share = percent(one.share) if one.stable_per_s else "–"
        table.add_row(one.policy, number(rates[0]), number(rates[1]), share)
    show_table(table)


def verdict_line(margin: float) -> str:
    """Where the workload lies, in one sentence."""
    if margin >= 0:
        return (
            f"INSIDE: the workload takes {percent(1 - margin)} of the boundary load along its mix; "
            f"{percent(margin)} is free."
        )
    return (
        f"OUTSIDE: the workload is {percent(1 - margin)} of the boundary load along its mix; "
        f"multiply all rates by at most {1 / (1 - margin):.4g}."
    )


app = new_app()


@app.command()
def command(
    workload: WorkloadFile,
    server: ServerName,
    rate: Rate = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Simulate the boundary of NAME[:key=value,…], or of paced, solved at each mix."
        ),
    ] = None,
    mixes: Annotated[int, typer.Option(min=2, help="Mixes of the simulated boundary.")] = 9,
    replications: Replications = 6,
    requests: Requests = 15_000,
    seed: Seed = 0,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """All rates that a server carries, by theory and simulation."""
    options = RegionOptions(
        workload,
        server,
        rate,
        policy or [],
        mixes,
        replications,
        requests,
        seed,
        plot,
        as_json,
    )
    raise typer.Exit(run_region(options))

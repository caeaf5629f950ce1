"""``fluidwait equilibrium``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fluid.errors import InputError
from fluid.server import Server, load_server
from fluid.steady.equilibrium import Equilibrium, equilibrium
from fluid.steady.fluctuation import eviction_onset_per_s, fluctuation
from fluid.steady.stability import largest_scale
from fluid.workload import Workload
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, note, number, percent, print_json, say, seconds, show_table
from fluidwait.options import AsJson, PlotFile, Rate, ServerName, WorkloadFile, new_app


def run_equilibrium(
    path: Path,
    server_name: str,
    rate: float | None,
    evictions: float | None,
    plot: Path | None,
    picture: str,
    as_json: bool,
) -> int:
    """Print the equilibrium; returns 3 where the workload is unstable."""
    if plot:
        _check_picture(plot, picture)
    workload = load_workload(path, rate)
    server = load_server(server_name)
    found = equilibrium(workload, server)
    if plot:
        _draw(picture, workload, server, plot)
    second = None
    if evictions is not None and found.stable:
        second = _second_order(workload, server, evictions)
    if as_json:
        document = {"workload": workload.name, "server": server.name} | found.as_dict()
        print_json(document | ({"fluctuations": second} if evictions is not None else {}))
        return 0 if found.stable else 3
    print_equilibrium(found, f"{workload.name} on {server.name}", workload.rate_per_s)
    if second is not None:
        _print_second_order(second)
    say(verdict_line(found))
    return 0 if found.stable else 3


PICTURES = ("latency", "stages", "phase")


def _check_picture(plot: Path, picture: str) -> None:
    from fluid.plots.steady import require_plot_path  # matplotlib is slow to import

    require_plot_path(plot)
    if picture not in PICTURES:
        raise InputError("--picture", picture, "one of " + ", ".join(PICTURES))


def _draw(picture: str, workload: Workload, server: Server, plot: Path) -> None:
    """Mean latencies against the rate; KV by stage; or the margin over rate and memory."""
    from fluid.plots import steady as plots

    if picture == "latency":
        plots.plot_latency(workload, server, plot)
    elif picture == "stages":
        plots.plot_composition(workload, server, plot)
    else:
        multiples = np.linspace(0.1, 2.0, 40)
        limit_per_s = largest_scale(workload, server) * workload.rate_per_s
        rate = plots.Axis("rate", tuple(limit_per_s * multiples))
        memory = plots.Axis("kv_tokens", tuple(server.usable_kv_tokens * multiples))
        plots.plot_phase(workload, server, rate, memory, plot)


def _second_order(workload: Workload, server: Server, probability: float) -> dict[str, float]:
    """THEORY 2.7, at the workload's own rate; all but the onset with unlimited memory."""
    onset_per_s = eviction_onset_per_s(workload, server, probability)
    here = fluctuation(workload, server)
    return {
        "probability": probability,
        "kv_mean_tokens": here.kv_mean_tokens,
        "kv_sd_tokens": here.kv_sd_tokens,
        "overflow_probability": here.overflow_probability(server.usable_kv_tokens),
        "kv_tokens_needed": here.kv_tokens_needed(probability),
        "eviction_onset_per_s": onset_per_s,
        "latency_s": here.latency_s,
        "ttft_s": here.ttft_s,
    }


def _print_second_order(found: dict[str, float]) -> None:
    share = percent(found["probability"], 2)
    table = new_table("Fluctuations (second order, Poisson arrivals)", "figure", "value")
    kv = f"{number(found['kv_mean_tokens'])} ± {number(found['kv_sd_tokens'])}"
    table.add_row("KV tokens, mean ± standard deviation", kv)
    table.add_row("iterations that would exceed C", percent(found["overflow_probability"], 2))
    table.add_row(f"KV exceeded in {share} of iterations", number(found["kv_tokens_needed"]))
    table.add_row(f"rate at which {share} exceed C", f"{number(found['eviction_onset_per_s'])} /s")
    table.add_row("mean TTFT", seconds(found["ttft_s"]))
    table.add_row("mean latency", seconds(found["latency_s"]))
    show_table(table)


def print_equilibrium(found: Equilibrium, title: str, rate_per_s: float) -> None:
    """The balanced state as a whole, then by class."""
    table = new_table(title, "figure", "value")
    for label, value in _rows(found, rate_per_s):
        table.add_row(label, value)
    show_table(table)
    columns = ("class", "rate /s", "stages", "n* per stage", "TTFT s", "TPOT s", "latency s")
    classes = new_table("Classes", *columns)
    for one in found.classes:
        classes.add_row(
            one.name,
            number(one.rate_per_s),
            str(one.stages),
            number(one.in_service_per_stage),
            number(one.ttft_s),
            number(one.tpot_s),
            number(one.latency_s),
        )
    show_table(classes)
    for caveat in found.caveats:
        note(f"note: {caveat}")


def _rows(found: Equilibrium, rate_per_s: float) -> list[tuple[str, str]]:
    shares = f"{percent(found.compute_share)} / {percent(found.memory_share)}"
    return [
        ("arrival rate", f"{number(rate_per_s)} /s"),
        ("utilisation ρ", number(found.utilisation)),
        ("iteration time ΔT*", seconds(found.iteration_time_s)),
        ("KV tokens M*", number(found.kv_tokens)),
        ("KV capacity C", number(float(found.kv_capacity_tokens))),
        ("largest stable multiple α*", number(found.max_scale)),
        ("compute / memory share", shares),
        ("mean TTFT", seconds(found.ttft_s)),
        ("mean TPOT", seconds(found.tpot_s)),
        ("mean latency", seconds(found.latency_s)),
        ("throughput tokens/s", number(found.throughput_tokens_per_s)),
    ]


def verdict_line(found: Equilibrium) -> str:
    """The verdict in one sentence, with its cause."""
    if found.stable:
        return (
            f"STABLE: the rates can grow by a factor {found.max_scale:.4g} before "
            f"{found.binding} binds; {percent(found.margin)} of the boundary load is free."
        )
    return (
        f"UNSTABLE: {found.binding} binds; multiply all rates by at most {found.max_scale:.4g}"
        " or change the server."
    )


app = new_app()


@app.command()
def command(
    workload: WorkloadFile,
    server: ServerName,
    rate: Rate = None,
    evictions: Annotated[
        float | None,
        typer.Option(help="Also: memory and rate at which this share of iterations overflows."),
    ] = None,
    plot: PlotFile = None,
    picture: Annotated[
        str, typer.Option(help="What to plot: latency (by rate), stages (KV by stage) or phase.")
    ] = "latency",
    as_json: AsJson = False,
) -> None:
    """Balanced state of a load on a server, and what limits it."""
    raise typer.Exit(run_equilibrium(workload, server, rate, evictions, plot, picture, as_json))

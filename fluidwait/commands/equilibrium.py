"""``fluidwait equilibrium``."""

from __future__ import annotations

from pathlib import Path

from fluid.equilibrium import Equilibrium, equilibrium
from fluid.server import load_server
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, note, number, percent, print_json, say, seconds, show


def run_equilibrium(path: Path, server_name: str, rate: float | None, as_json: bool) -> int:
    """Print the equilibrium; returns 3 where the workload is unstable."""
    workload = load_workload(path, rate)
    server = load_server(server_name)
    found = equilibrium(workload, server)
    if as_json:
        print_json({"workload": workload.name, "server": server.name} | found.as_dict())
    else:
        _print(found, f"{workload.name} on {server.name}", workload.rate_per_s)
    return 0 if found.stable else 3


def _print(found: Equilibrium, title: str, rate_per_s: float) -> None:
    table = new_table(title, "", "")
    for label, value in _rows(found, rate_per_s):
        table.add_row(label, value)
    show(table)
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
    show(classes)
    for caveat in found.caveats:
        note(f"note: {caveat}")
    say(verdict_line(found))


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

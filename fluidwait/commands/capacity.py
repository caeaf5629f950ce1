"""``fluidwait capacity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluid.server import load_server
from fluid.steady.capacity import Capacity, capacity
from fluidwait.commands.common import load_workload
from fluidwait.console import new_table, number, percent, print_json, say, show_table
from fluidwait.options import AsJson, Rate, ServerName, WorkloadFile, new_app

_FORMS = {
    "rate": "this mix is stable up to {value} {unit} on {server} (today {today})",
    "kv_tokens": "at least {value} {unit} of KV memory are needed on {server} (today {today})",
    "overhead_s": "an iteration of {server} may cost up to {value} {unit} without work"
    " (today {today})",
    "bandwidth": "reading KV on {server} may cost up to {value} {unit} (today {today})",
    "servers": "{unit} like {server} that carry the load, split evenly: {value}",
    "output": "up to {value} {unit} fit on {server} (today {today})",
}


def run_capacity(
    path: Path,
    server_name: str,
    query: str,
    class_name: str | None,
    rate: float | None,
    as_json: bool,
) -> None:
    """Answer one inverse query."""
    workload = load_workload(path, rate)
    server = load_server(server_name)
    found = capacity(workload, server, query, class_name)
    if as_json:
        print_json({"workload": workload.name, "server": server.name} | found.as_dict())
        return
    table = new_table(
        f"Change of the margin at the answer, {workload.name} on {server.name}",
        "per unit of",
        "∂margin",
    )
    for name, value in found.derivatives.items():
        table.add_row(name, number(value))
    show_table(table)
    say(f"Derivatives: {found.derivative_method}.")
    say(answer_line(found, server.name))


def answer_line(found: Capacity, server: str) -> str:
    """The answer in one sentence, with its cause."""
    text = _FORMS[found.query].format(
        value=number(found.value), unit=found.unit, today=number(found.today), server=server
    )
    if found.query == "bandwidth" and found.today > 0:
        share = percent(found.today / found.value)
        text += f", so that {share} of today's memory bandwidth would do"
    return f"{text[0].upper()}{text[1:]}; {found.binding} binds there."


app = new_app()


@app.command()
def command(
    workload: WorkloadFile,
    server: ServerName,
    query: Annotated[
        str, typer.Option(help="rate, kv_tokens, overhead_s, bandwidth, servers or output.")
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class that query output asks about.")
    ] = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """The most or least of one thing with which a load is stable."""
    run_capacity(workload, server, query, class_name, rate, as_json)

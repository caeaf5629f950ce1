"""``fluidwait server``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluid.server import builtin_servers, load_server
from fluidwait.console import new_table, number, print_json, show_table
from fluidwait.options import AsJson, new_app


def run_list(as_json: bool) -> None:
    """The built-in servers, by name."""
    servers = [load_server(name) for name in builtin_servers()]
    if as_json:
        print_json({"servers": [one.document() for one in servers]})
        return
    table = new_table("Built-in servers", "name", "KV tokens", "block", "first token", "overhead s")
    for one in servers:
        table.add_row(
            one.name,
            number(float(one.kv_capacity_tokens)),
            str(one.block_tokens),
            one.first_token,
            number(one.iteration_time.overhead_s),
        )
    show_table(table)


def run_show(name: str) -> None:
    """The whole description as JSON, with its source."""
    print_json(load_server(name).document())


app = new_app(help="Look at server descriptions.")


@app.callback(invoke_without_command=True)
def help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def server_list(as_json: AsJson = False) -> None:
    """The built-in servers."""
    run_list(as_json)


@app.command("show")
def server_show(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="Name or file.")],
) -> None:
    """A server description as JSON, to copy and change."""
    run_show(server)

"""``fluidwait server``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluidwait.console import print_json, show
from fluidwait.options import AsJson, new_app

app = new_app(help="Look at server descriptions.")


@app.callback(invoke_without_command=True)
def help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def server_list(as_json: AsJson = False) -> None:
    """The built-in servers."""
    from fluid.server import ServerList

    show(ServerList.builtin(), as_json)


@app.command("show")
def server_show(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="Name or file.")],
) -> None:
    """A server description as JSON, to copy and change."""
    from fluid.server import load_server

    print_json(load_server(server).document())

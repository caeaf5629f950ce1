"""``fluidwait explore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import say, waiting
from fluidwait.options import LoadOptions, grouped, new_app, require_use

app = new_app()


@app.command()
@grouped
def command(
    context: typer.Context,
    load: LoadOptions,
    port: Annotated[
        int, typer.Option(help="Serve at this port of loopback; 0 is any that is free.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            writable=True,
            help="Write one page that works offline instead, with answers on a grid of settings.",
        ),
    ] = None,
) -> None:
    """Region and latencies with sliders, in a browser."""
    from fluid.explorer.state import Explorer

    if out is not None:
        require_use(context, ["port"], "nothing beside --out, which serves nothing")
    workload, server = load.read()
    explorer = Explorer(workload, (server,))
    if out is not None:
        from fluid.explorer.page import write_page

        with waiting("answers on a grid of settings, up to half a minute"):
            size = write_page(explorer, out)
        say(f"Wrote {out}, {size / 1000:,.0f} kB: answers on a grid of settings.")
        return
    from fluid.explorer.serve import explorer_server

    with explorer_server(explorer, port) as serving:
        say(f"http://127.0.0.1:{serving.server_port}/ until Ctrl-C.")
        serving.serve_forever()

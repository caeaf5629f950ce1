"""``fluidwait watch``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluidwait.console import note, say, show
from fluidwait.live_view import live_view
from fluidwait.options import AsJson, ServerName, new_app, require_use

if TYPE_CHECKING:
    from validation.live.scrape import Source

app = new_app()


@app.command()
def command(
    context: typer.Context,
    server: ServerName,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", writable=True, help="The table that is kept right."),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="URL|FILE", help="Metrics page of the engine."),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Read the series from this Prometheus instead."),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(help='With --prometheus: which series, as {job="vllm"}.'),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model, where a page is of several.")
    ] = None,
    interval_s: Annotated[float, typer.Option(help="Seconds between two looks.")] = 15.0,
    change: Annotated[
        float,
        typer.Option(help="Relative change of the answer from which on a new table is written."),
    ] = 0.1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="One window, one answer, and end.")] = False,
    duration_s: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Serve what is known there: /metrics, and a page at /."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn from a running engine and keep its table right."""
    from fluid.errors import InputError
    from fluid.server import load_server
    from validation.live.loop import Loop, Sayings
    from validation.live.serve import Shown, serve
    from validation.live.watcher import Watcher

    source = _source(context, metrics, prometheus, selector)
    if once:
        require_use(context, ["duration_s", "listen"], "nothing beside --once")
    elif as_json:
        raise InputError("--json", True, "only with --once")
    watcher = Watcher(load_server(server), out, change, model, dry_run)
    loop = Loop(source, watcher, interval_s, once, duration_s)
    shown, sayings = Shown(), Sayings()
    serving = serve(shown, listen) if listen else None
    try:
        with live_view() as view:
            for step in loop.steps():
                shown.show(step)
                view(step)
                if once and step.status != "waiting":
                    show(step, as_json)
                elif not once and sayings.worth_saying(step, time.monotonic()):
                    line = f"{time.strftime('%H:%M:%S')} {step.status}: {step.told}"
                    (note if step.status in ("trouble", "kept") else say)(line)
    finally:
        if serving is not None:
            serving.shutdown()
            serving.server_close()


def _source(
    context: typer.Context, metrics: str | None, prometheus: str | None, selector: str | None
) -> Source:
    from fluid.errors import InputError
    from validation.live.scrape import Prometheus, source_of

    if (metrics is None) == (prometheus is None):
        given = "both or neither"
        raise InputError("--metrics", given, "a page (--metrics), or a Prometheus (--prometheus)")
    if prometheus is None:
        require_use(context, ["selector"], "only with --prometheus")
        assert metrics is not None
        return source_of(metrics)
    if selector is None:
        raise InputError("--selector", "nothing", 'which series, as {job="vllm"}')
    return Prometheus(prometheus, selector)

"""``fluidwait workload from-trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import say, show, waiting
from fluidwait.options import AsJson, new_app

app = new_app(help="Make workload files.")


@app.callback(invoke_without_command=True)
def help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("from-trace")
def from_trace(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="File; see docs/own-trace.md.")],
    layout: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Format, where it is not to be detected."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second, in place of the trace's own.")
    ] = None,
    drop_failed: Annotated[
        bool, typer.Option("--drop-failed", help="Leave out failed requests, and count them.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(help="Number of a run or benchmark, or model of a metrics page."),
    ] = None,
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Earlier scrape of a metrics page.")
    ] = None,
    drop_longer_than: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Leave out longer requests, and count them."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json that counts the tokens of chats.")
    ] = None,
    lengths: Annotated[
        str,
        typer.Option(help="Of what fits a snapshot: independent, lightest or heaviest."),
    ] = "independent",
    classes: Annotated[int, typer.Option(help="Most classes of the summary.")] = 24,
    name: Annotated[str | None, typer.Option(help="Name of the workload.")] = None,
    source: Annotated[str | None, typer.Option(help="Attribution kept in the file.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write the workload here.")
    ] = None,
    tape_out: Annotated[
        Path | None, typer.Option(writable=True, help="Write the arrivals here, for replay --tape.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A trace as a few classes that load a server like it does."""
    from fluid.traces.summarise import summarise_trace

    with waiting(f"reading {trace.name}"):
        found = summarise_trace(
            trace,
            classes,
            format=layout,
            rate_per_s=rate,
            drop_failed=drop_failed,
            part=part,
            since=since,
            drop_longer_than=drop_longer_than,
            tokenizer=tokenizer,
            lengths=lengths,
            name=name,
            source=source,
            tape_out=tape_out,
        )
    if out:
        found.write(out)
    show(found, as_json)
    if not as_json:
        for written in filter(None, (out, tape_out)):
            say(f"Wrote {written}.")

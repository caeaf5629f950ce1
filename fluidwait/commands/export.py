"""``fluidwait export``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fluid.errors import InputError
from fluid.files import write_text
from fluidwait.console import note, print_json, say
from fluidwait.options import AsJson, TableFile, new_app
from thresholds.export.engines import ENGINES
from thresholds.export.jsonio import read_table


def run_export(path: Path, to: str, out: Path | None, as_json: bool) -> None:
    """Print, or write, a table in the words of an engine."""
    if to not in ENGINES:
        raise InputError("--to", to, "one of " + ", ".join(ENGINES))
    engine = ENGINES[to]
    config = engine.configure(read_table(path), str(path.resolve()))
    if out:
        write_text(out, engine.render(config))
    if as_json:
        print_json(dataclasses.asdict(config))
    elif out:
        note(f"Wrote {out}.")
    else:
        say(engine.render(config).rstrip("\n"))


app = new_app()


@app.command()
def command(
    table: TableFile,
    to: Annotated[str, typer.Option(help="vllm, sglang, trtllm or env.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it here.")] = None,
    as_json: AsJson = False,
) -> None:
    """A table as flags of a serving system, each with its reason."""
    run_export(table, to, out, as_json)

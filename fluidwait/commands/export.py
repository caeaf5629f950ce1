"""``fluidwait export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import note, show
from fluidwait.options import AsJson, TableFile, new_app

app = new_app()


@app.command()
def command(
    table: TableFile,
    to: Annotated[
        str, typer.Option(help="vllm, sglang, trtllm or env.", autocompletion=names.engines)
    ],
    flags_only: Annotated[
        bool,
        typer.Option("--flags-only", help="vllm: for an engine without our scheduler class."),
    ] = False,
    expired: Annotated[
        bool, typer.Option("--expired", help="Also where the table says that its time is over.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write it here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A table as flags of a serving system, each with its reason."""
    from datetime import date

    from fluid.errors import InputError
    from fluid.files import write_text
    from thresholds.export.engines import engine_named
    from thresholds.integrity import expiry
    from thresholds.table import ThresholdTable

    engine = engine_named(to, "to")
    read = ThresholdTable.read(table)
    why = expiry(read, date.today())
    if expired and why is None:
        raise InputError("expired", True, "only for a table whose time is over")
    if why is not None and not expired:
        raise InputError("valid_for.until", why, "a later date, or --expired", str(table))
    config = engine.configure(read, str(table.resolve()), flags_only=flags_only)
    if out:
        write_text(out, config.text)
    if as_json or not out:
        show(config, as_json)
    else:
        note(f"Wrote {out}.")

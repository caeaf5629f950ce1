"""``fluidwait doctor``."""

from __future__ import annotations

import typer

from fluidwait.console import show
from fluidwait.options import AsJson, new_app

app = new_app()


@app.command()
def command(as_json: AsJson = False) -> None:
    """What is installed, what is seen, and what extras would add."""
    from fluidwait.installation import installation

    found = installation()
    show(found, as_json)
    raise typer.Exit(0 if found.is_sound else 1)

"""``fluidwait capacity``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluidwait import names
from fluidwait.console import show
from fluidwait.options import AsJson, BudgetTokens, LoadOptions, grouped, new_app

app = new_app()


@app.command()
@grouped
def command(
    load: LoadOptions,
    query: Annotated[
        str,
        typer.Option(
            help="rate, kv_tokens, overhead_s, bandwidth, servers or output.",
            autocompletion=names.queries,
        ),
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class that query output asks about.")
    ] = None,
    budget_tokens: BudgetTokens = None,
    as_json: AsJson = False,
) -> None:
    """The most or least of one thing with which a load is stable."""
    from fluid.steady.capacity import capacity

    found = capacity(*load.read(), query, class_name, budget_tokens=budget_tokens)
    show(found, as_json)

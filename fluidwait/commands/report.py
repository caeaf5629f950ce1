"""``fluidwait report``: one self-contained page about a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluid.files import require_folder, write_text
from fluidwait.console import progress, say
from fluidwait.options import AsJson, Replications, Requests, Seed, new_app
from thresholds.limits import PARAMETER_MEANINGS
from thresholds.table import ThresholdTable
from validation.report.content import Effort, Report, make_report, simulated_runs
from validation.report.page import render_page


def run_report(path: Path, out: Path, effort: Effort) -> None:
    """Gather and write the page."""
    require_folder(out)
    table = ThresholdTable.read(path)
    with progress("report", simulated_runs(table, effort)) as advance:
        found = make_report(table, str(path), effort, on_done=advance)
    write_text(out, render(found))
    say(found.conclusion)
    say(f"Wrote {out}.")


def render(report: Report) -> str:
    """The page as HTML."""
    return render_page(
        "report.html.jinja",
        report=report,
        table=report.table,
        fluid=report.equilibrium,
        fluid_verdict=report.equilibrium.sentence,
        meanings=PARAMETER_MEANINGS,
    )


app = new_app()


@app.command()
def command(
    table: Annotated[
        Path | None, typer.Argument(metavar="[TABLE]", help="Threshold table.")
    ] = None,
    theorems: Annotated[
        bool, typer.Option("--theorems", help="Try the statements of the theory instead.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --theorems: small runs, two minutes at most.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the page here (report.html or theorems.html)."),
    ] = None,
    replications: Replications = 10,
    requests: Requests = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """One page about a table to send round, or about the theory.

    With --theorems it exits with 1 where a statement fails.
    """
    from fluid.errors import InputError

    if theorems == (table is not None):
        given = f"{table} --theorems" if theorems else ""
        raise InputError("report", given, "a TABLE or --theorems, one of them")
    if table is None:
        from fluidwait.commands.theorems import run_theorems
        from validation.theorems.statement import Effort as Size

        raise typer.Exit(run_theorems(out, Size("quick" if quick else "full", seed), as_json))
    if quick or as_json:
        given = "--quick" if quick else "--json"
        raise InputError("report TABLE", given, "only with --theorems")
    from validation.report.content import Effort

    run_report(table, out or Path("report.html"), Effort(replications, requests, seed))

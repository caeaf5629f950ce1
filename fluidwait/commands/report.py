"""``fluidwait report``: one self-contained page about a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import note, progress, say, show
from fluidwait.options import AsJson, Replications, Requests, Seed, new_app, require_use

app = new_app()


@app.command()
def command(
    context: typer.Context,
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
        typer.Option(
            "--out", "-o", writable=True, help="Write the page here (report.html or theorems.html)."
        ),
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
        require_use(context, ["replications", "requests"], "only with a TABLE")
        raise typer.Exit(_theorems(out, quick, seed, as_json))
    require_use(context, ["quick", "as_json"], "only with --theorems")
    _report(table, out or Path("report.html"), replications, requests, seed)


def _report(path: Path, out: Path, replications: int, requests: int, seed: int) -> None:
    """Gather and write the page of a table."""
    from fluid.files import require_output
    from thresholds.table import ThresholdTable
    from validation.report.content import make_report, simulated_runs
    from validation.simulator.runs import Runs

    require_output(out)
    runs = Runs(replications, requests, seed)
    table = ThresholdTable.read(path)
    with progress("report", simulated_runs(table, runs)) as advance:
        found = make_report(table, file=str(path), runs=runs, on_done=advance)
    found.write(out)
    show(found)
    say(f"Wrote {out}.")


def _theorems(out: Path | None, quick: bool, seed: int, as_json: bool) -> int:
    """Try the statements and write their page; with --json only where it is named."""
    from fluid.files import require_output
    from validation.theorems.bench import theorem_report
    from validation.theorems.statement import Effort

    page = out if out or as_json else Path("theorems.html")
    if page:
        require_output(page)
    effort = Effort("quick" if quick else "full", seed)
    found = theorem_report(effort, on_done=lambda outcome: note(str(outcome)))
    if page:
        found.write(page)
    show(found, as_json)
    if page and not as_json:
        say(f"Wrote {page}.")
    return 0 if found.holds else 1

"""``fluidwait report --theorems``: the statements of THEORY 2–5, each with a verdict and a plot."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fluid.files import require_folder, write_text
from fluidwait.console import new_table, note, number, print_json, say, show_table
from validation.report.page import inline_svg, render_page
from validation.theorems import STATEMENTS
from validation.theorems.bench import Bench, Outcome, run_bench
from validation.theorems.drawing import plot_finding
from validation.theorems.statement import LEVEL, Effort, Estimate


def run_theorems(out: Path | None, effort: Effort, as_json: bool) -> int:
    """Run the bench, print its verdicts, write the page; returns the exit code.

    Args:
        out: The page; with `as_json` none is written unless it is named.
    """
    page = out if out or as_json else Path("theorems.html")
    if page:
        require_folder(page)
    found = run_bench(effort, [*STATEMENTS.values()], on_done=_tell)
    if page:
        write_text(page, render_theorems(found))
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)
        say(f"Wrote {page}.")
    return 0 if found.holds else 1


def _tell(outcome: Outcome) -> None:
    statement = outcome.statement
    note(f"{statement.theory} {statement.key}: {outcome.verdict}, {outcome.seconds:.1f} s")


def render_theorems(found: Bench) -> str:
    """The page of the bench."""
    pictures = {
        one.statement.key: inline_svg(one.statement.key, partial(plot_finding, one.finding.plot))
        for one in found.outcomes
    }
    return render_page(
        "theorems.html.jinja", bench=found, pictures=pictures, level=LEVEL, estimate=estimate_text
    )


def estimate_text(found: Estimate) -> str:
    """A figure with its interval, or alone where it is exact."""
    if found.is_exact:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _print(found: Bench) -> None:
    title = f"Theorem bench, {found.effort.name}, seed {found.effort.seed}"
    columns = ("statement", "THEORY", "figure", "measured", "expected", "verdict")
    table = new_table(title, *columns, text=(0, 1, 2, 3, 4, 5))
    for outcome in found.outcomes:
        key, theory = outcome.statement.key, outcome.statement.theory
        for measure in outcome.finding.measures:
            holds = "holds" if measure.holds else "FAILS"
            table.add_row(
                key, theory, measure.name, estimate_text(measure.found), measure.expected, holds
            )
            key = theory = ""
    show_table(table)
    say(f"{found.conclusion} Intervals at {LEVEL:.2%}; where none is given the figure is exact.")

"""``fluidwait report``: one self-contained page about a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluid.files import require_folder, write_text
from fluidwait.commands.equilibrium import verdict_line
from fluidwait.console import number, percent, progress, say, seconds
from thresholds.export.jsonio import read_table
from thresholds.table import PARAMETER_MEANINGS
from validation.report.content import Effort, Report, make_report, simulated_runs


def run_report(path: Path, out: Path, effort: Effort) -> None:
    """Gather and write the page."""
    require_folder(out)
    table = read_table(path)
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
        fluid_verdict=verdict_line(report.equilibrium),
        meanings=PARAMETER_MEANINGS,
    )


def render_page(template: str, **values: Any) -> str:
    """A page of `templates/` as HTML without any reference to the network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("fluidwait"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Only the plots are trusted as they are: matplotlib escapes the text in them.
    environment.filters.update(number=number, percent=percent, seconds=seconds, trusted=Markup)
    return environment.get_template(template).render(**values)

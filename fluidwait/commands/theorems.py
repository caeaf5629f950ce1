"""``fluidwait report --theorems``: the statements of THEORY 2–5, each with a verdict and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fluidwait.console import note, say, show

if TYPE_CHECKING:
    from validation.theorems.statement import Effort


def run_theorems(out: Path | None, effort: Effort, as_json: bool) -> int:
    """Run the bench, print its verdicts, write the page; returns the exit code.

    Args:
        out: The page; with `as_json` none is written unless it is named.
    """
    from fluid.files import require_folder
    from validation.theorems.bench import theorem_report

    page = out if out or as_json else Path("theorems.html")
    if page:
        require_folder(page)
    found = theorem_report(effort, on_done=lambda outcome: note(str(outcome)))
    if page:
        found.write(page)
    show(found, as_json)
    if page and not as_json:
        say(f"Wrote {page}.")
    return 0 if found.holds else 1

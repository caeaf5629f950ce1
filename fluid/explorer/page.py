"""The explorer as one page without foreign scripts, served or in a file."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from fluid.explorer.grid import Grid
from fluid.explorer.state import Explorer
from fluid.files import write_text

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
body {{ margin: 0 auto; max-width: 92rem; padding: 1rem; }}
</style>
<h1 class="fluidwait-title">{title}</h1>
<main id="explorer"></main>
<script type="application/json" id="known">{known}</script>
<script type="module">
{script}
mountPage(explorer, JSON.parse(known.textContent));
</script>
</html>
"""


def page(explorer: Explorer, grid: dict[str, Any] | None = None) -> str:
    """The page in HTML.

    Args:
        grid: Of `Grid.document`, all that the page can answer; None for a page that asks whoever
            serves it, at ``answer?question=…`` beside it.
    """
    known = explorer.known | ({} if grid is None else {"grid": grid})
    title = f"{explorer.workload.name} on {explorer.servers[0].name}"
    return _PAGE.format(
        title=html.escape(title),
        style=text_of("explorer.css"),
        script=text_of("explorer.js"),
        # No text in it may end the element that holds it.
        known=json.dumps(known, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def write_page(explorer: Explorer, path: str | Path) -> int:
    """Write the page with all answers on a grid of settings; how many bytes it has.

    Raises:
        InputError: The folder is missing or not writable.
    """
    text = page(explorer, Grid.of(explorer).document())
    write_text(path, text)
    return len(text.encode())


def text_of(name: str) -> str:
    """A file of this room."""
    return resources.files("fluid.explorer").joinpath(name).read_text(encoding="utf-8")

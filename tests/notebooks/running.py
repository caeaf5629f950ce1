"""Running a notebook, and what of its outputs is stored and compared."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

MEASURED = "measured"
"""Tag of cells whose figures are those of this machine and moment."""

SVG = "image/svg+xml"
WIDGET = "application/vnd.jupyter.widget-view+json"

_FIGURE = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")

_DIGITS = re.compile(r"(\d\.\d\d)\d+")

_LAST_DIGIT = 2e-3
"""Figures have four digits; on another processor the last of them may be another."""


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook as it runs from top to bottom, and then what it claims (`claims`).

    Errors in a cell are raised here, with its traceback.
    """
    notebook = read(path)
    claims = f"from tests.notebooks import claims\nclaims.check({path.stem!r}, globals())"
    notebook.cells.append(nbformat.v4.new_code_cell(claims))
    environment = {
        "PYTHONPATH": str(ROOT),
        "MATPLOTLIBRC": str(Path(__file__).with_name("matplotlibrc")),
        "SOURCE_DATE_EPOCH": "0",  # pictures that are alike are equal
    }
    # Per cell; it only ends what hangs.
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}})
    client.execute(env=os.environ | environment)
    notebook.cells.pop()
    return notebook


def storable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with what its outputs show, but for live widgets and times of execution."""
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
        live = any(WIDGET in one.get("data", {}) for one in cell.outputs)
        cell.outputs = [] if live else cell.outputs
        for one in cell.outputs:
            if "data" in one:
                one.metadata = {}
            if SVG in one.get("data", {}):
                one.data[SVG] = _small(one.data[SVG])
    notebook.metadata.pop("widgets", None)
    return notebook


def _small(svg: str) -> str:
    """A picture without what nobody sees: its metadata, and thousandths of a point in its lines."""
    drawn = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' d="[^"]*"', lambda line: _DIGITS.sub(r"\1", line[0]), drawn)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: nbformat.NotebookNode) -> list[str]:
    found = (one.get("data", {}).get(SVG) for one in cell.outputs)
    return [one for one in found if one is not None]


def text(cell: nbformat.NotebookNode) -> str:
    """What a cell says, apart from pictures."""
    return "\n".join(
        one.text if one.output_type == "stream" else one.data.get("text/plain", "")
        for one in cell.outputs
    )


def kinds(cell: nbformat.NotebookNode) -> list[list[str]]:
    """Of each output, the forms in which it is there."""
    return [sorted(one.get("data", {"stream": ""})) for one in cell.outputs]


def says_the_same(one: str, other: str) -> bool:
    """Whether two texts have the same words, and the same figures up to their last digit."""
    if _FIGURE.sub("#", one).split() != _FIGURE.sub("#", other).split():
        return False
    figures = zip(_figures(one), _figures(other), strict=True)
    return all(math.isclose(a, b, rel_tol=_LAST_DIGIT) for a, b in figures)


def _figures(words: str) -> list[float]:
    return [float(one.replace(",", "")) for one in _FIGURE.findall(words)]

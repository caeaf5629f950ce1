"""Every notebook runs from top to bottom, is stored without outputs, and defines no logic."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)

OWN_RULES = ("07-your-own-policy",)
"""Notebooks whose subject is code that the reader writes: functions, but still no loops outside."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def logic(source: str) -> list[str]:
    """Kinds of statements that belong into a package, in the cell's order; magics are no Python."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    nodes = ast.walk(ast.parse("\n".join(lines)))
    return [type(node).__name__ for node in nodes if isinstance(node, LOGIC)]


def test_the_seven_notebooks_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(1, 8)]


@every_notebook
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = code_cells(path)
    assert cells
    assert [cell for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert "widgets" not in read(path).metadata


@every_notebook
def test_a_notebook_defines_no_logic(path: Path) -> None:
    if path.stem not in OWN_RULES:
        assert [found for cell in code_cells(path) for found in logic(cell.source)] == []


def test_logic_is_seen() -> None:
    assert logic("%matplotlib inline\nx = [f(y) for y in z]") == []
    assert logic("def f():\n    for x in y:\n        pass") == ["FunctionDef", "For"]


@every_notebook
def test_a_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(path)
    # Per cell; it only ends what hangs. Errors in a cell are raised here, with its traceback.
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert shown & {"image/svg+xml", "text/latex"}
    # Notes of the toolkit go to stderr, too; a warning is what a reader would stumble over.
    messages = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in messages

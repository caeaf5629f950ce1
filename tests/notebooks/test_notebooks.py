"""Every notebook runs from top to bottom, shows what is stored in it, and defines no logic."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.running import (
    MEASURED,
    NOTEBOOKS,
    code_cells,
    executed,
    kinds,
    pictures,
    read,
    says_the_same,
    storable,
    text,
)

LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)

OWN_RULES = ("07-your-own-policy",)
"""Notebooks whose subject is code that the reader writes: functions, but still no loops outside."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def logic(source: str) -> list[str]:
    """Kinds of statements that belong into a package, in the cell's order; magics are no Python."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    nodes = ast.walk(ast.parse("\n".join(lines)))
    return [type(node).__name__ for node in nodes if isinstance(node, LOGIC)]


def test_the_eight_notebooks_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(1, 9)]


@every_notebook
def test_a_notebook_defines_no_logic(path: Path) -> None:
    if path.stem not in OWN_RULES:
        assert [found for cell in code_cells(read(path)) for found in logic(cell.source)] == []


def test_logic_is_seen() -> None:
    assert logic("%matplotlib inline\nx = [f(y) for y in z]") == []
    assert logic("def f():\n    for x in y:\n        pass") == ["FunctionDef", "For"]


@pytest.mark.slow
@every_notebook
def test_a_notebook_shows_what_is_stored_and_claims_what_is_true(path: Path) -> None:
    stored, run = read(path), storable(executed(path))
    assert "widgets" not in stored.metadata
    write = f"python -m tests.notebooks --write {path.stem[:2]}"
    for now, before in zip(code_cells(run), code_cells(stored), strict=True):
        assert not [one.text for one in now.outputs if one.get("name") == "stderr"]
        assert kinds(now) == kinds(before), write
        if MEASURED not in now.metadata.get("tags", []):
            assert says_the_same(text(now), text(before)), f"{text(now)}\n{write}"
    drawn = [picture for cell in code_cells(stored) for picture in pictures(cell)]
    assert drawn or path.stem == "05-derivation"
    assert all(len(one) < MOST_LETTERS for one in drawn)


MOST_LETTERS = 200_000
"""Of a picture that is stored."""


def test_a_difference_is_seen() -> None:
    said = "the rate is 2.741 /s,\n  1,033 waiting"
    assert says_the_same(said, "the rate is 2.742 /s, 1,033 waiting")
    assert not says_the_same(said, "the rate is 2.77 /s, 1,033 waiting")
    assert not says_the_same(said, "the rate was 2.741 /s, 1,033 waiting")
    assert not says_the_same(said, said + " 7")
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text="1")])
    assert kinds(cell) != kinds(nbformat.v4.new_code_cell())

"""Dependencies point one way: fluid ← thresholds ← validation ← fluidwait."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("fluid", "thresholds", "validation", "fluidwait")


def imported_layers(source: str) -> set[str]:
    """Top-level packages of the project that a module imports, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), "relative import"
    return found & set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below(layer: str) -> None:
    allowed = set(LAYERS[: LAYERS.index(layer) + 1])
    modules = list((ROOT / layer).rglob("*.py"))
    assert modules
    for module in modules:
        above = imported_layers(module.read_text(encoding="utf-8")) - allowed
        assert not above, f"{module.relative_to(ROOT)} imports {', '.join(sorted(above))}"


def test_the_check_sees_lazy_and_upward_imports() -> None:
    assert imported_layers("def f():\n    from validation.experiments import x") == {"validation"}
    assert imported_layers("import fluidwait.main, numpy") == {"fluidwait"}

"""A picture draws what a result holds: no function that draws reaches the simulator.

Every function named `plot`, `plot_…`, `draw` or `draw_…` is followed through the calls that its
text shows: functions of its own file and imported ones, methods and properties of `self`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("fluid", "thresholds", "validation", "fluidwait")

RUNS_THE_SIMULATOR = {
    "validation.simulator.run.run",
    "validation.simulator.cpu.run",
    "validation.simulator.cpu.run_reading",
    "validation.simulator.cpu.run_traced",
    "validation.simulator.cuda.run",
}

Graph = dict[str, set[str]]
"""By dotted name of a function, the names that it uses."""


class _Names(ast.NodeVisitor):
    """Names that a function uses: resolved by the imports of its file and its own ones."""

    def __init__(self, module: str, owner: str | None, known: dict[str, str]) -> None:
        self.module, self.owner, self.known = module, owner, dict(known)
        self.used: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.known |= imported(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.used.add(self.known.get(node.id, f"{self.module}.{node.id}"))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name):
            if node.value.id == "self" and self.owner:
                self.used.add(f"{self.module}.{self.owner}.{node.attr}")
            elif node.value.id in self.known:
                self.used.add(f"{self.known[node.value.id]}.{node.attr}")
        self.generic_visit(node)


def imported(node: ast.ImportFrom) -> dict[str, str]:
    """Dotted name by the name that it has in the file."""
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}


def graph_of(sources: dict[str, str]) -> Graph:
    """What every function and constant uses; a class uses what making and calling it runs."""
    graph: Graph = {}
    for module, source in sources.items():
        tree = ast.parse(source)
        known: dict[str, str] = {}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                known |= imported(node)
        for owner, function in functions(tree):
            names = _Names(module, owner, known)
            names.generic_visit(function)
            name = ".".join(filter(None, (module, owner, function.name)))
            graph[name] = names.used
            if owner and function.name in ("__init__", "__post_init__", "__call__"):
                graph.setdefault(f"{module}.{owner}", set()).add(name)
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names = _Names(module, None, known)
                names.visit(node.value)
                graph[f"{module}.{node.targets[0].id}"] = names.used
    return graph


def functions(tree: ast.Module) -> Iterator[tuple[str | None, ast.FunctionDef]]:
    """Functions and methods of a file, the latter with the name of their class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield None, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield node.name, inner


def reached(graph: Graph, start: str) -> set[str]:
    """Everything that a function may use, directly or through others."""
    found, waiting = {start}, [start]
    while waiting:
        for name in graph.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def draws(name: str) -> bool:
    last = name.rpartition(".")[2].lstrip("_")
    return last in ("plot", "draw") or last.startswith(("plot_", "draw_"))


def house() -> dict[str, str]:
    """Text of every module."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*.py")
    }


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(house())


def test_no_picture_simulates(graph: Graph) -> None:
    drawing = [name for name in graph if draws(name)]
    assert "validation.experiments.replay.Replay.plot" in drawing
    assert "validation.experiments.pictures.draw_run" in drawing
    for name in drawing:
        assert not reached(graph, name) & RUNS_THE_SIMULATOR, name


def test_a_page_is_made_of_what_its_report_holds(graph: Graph) -> None:
    page = reached(graph, "validation.report.content.Report.html")
    assert "validation.report.pictures.report_pictures" in page
    assert not page & RUNS_THE_SIMULATOR


def test_the_simulator_is_where_the_check_looks_for_it(graph: Graph) -> None:
    assert set(graph) >= RUNS_THE_SIMULATOR
    for name in (
        "validation.experiments.replay.replay",
        "validation.experiments.compare.compare",
        "validation.experiments.region.region",
        "validation.experiments.sweep.sweep",
        "validation.experiments.recovery.recovery",
        "validation.report.content.make_report",
    ):
        assert reached(graph, name) & RUNS_THE_SIMULATOR, name


def test_the_check_sees_through_imports_methods_and_properties() -> None:
    sources = {
        "a": "from b import C\ndef helper(x):\n    return C(x)\ndef plot_x(x):\n    helper(x)\n",
        "b": "class C:\n    def __init__(self, x):\n        self.y\n"
        "    @property\n    def y(self):\n        from c import run\n        return run()\n",
        "c": "def run():\n    pass\n",
    }
    assert "c.run" in reached(graph_of(sources), "a.plot_x")
    assert draws("a.C.plot")
    assert draws("a._draw_lines")
    assert not draws("a.plotting")

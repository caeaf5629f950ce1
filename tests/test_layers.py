"""Dependencies point one way, files never import each other in a circle, a name means one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("fluid", "thresholds", "validation", "fluidwait")

ONE_MEANING = (
    *("Segments", "Trace", "Capacity", "Effort", "SweepOptions", "Limits", "Runs"),
    *("summarise", "new_table"),
)
"""Names that would suit several things, and may be that of one at most."""


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


def sources() -> dict[str, str]:
    """Text of every module of the project, by its dotted name."""
    found = {}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def imported_modules(source: str, modules: Mapping[str, object]) -> set[str]:
    """Which of `modules` a module names in an import, lazily and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & modules.keys()
            if not inner <= modules.keys():
                found.add(node.module)
    return found & modules.keys()


def circle(texts: Mapping[str, str]) -> list[str] | None:
    """Modules that import each other in a circle, from one back to itself; None without any."""
    graph = {name: imported_modules(text, texts) - {name} for name, text in texts.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def test_no_files_import_each_other_in_a_circle() -> None:
    found = circle(sources())
    assert found is None, " ← ".join(found or [])


@pytest.mark.parametrize(
    "back",
    [
        "import fluid.a",
        "from fluid.a import name",
        "from fluid import a",
        "def f():\n    from fluid.a import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fluid.a import name",
    ],
)
def test_the_check_finds_a_circle(back: str) -> None:
    line = {"fluid": "", "fluid.a": "from fluid.b import name", "fluid.b": "import fluid.c"}
    assert circle(line | {"fluid.c": ""}) is None
    found = circle(line | {"fluid.c": back})
    assert found is not None
    assert set(found) == {"fluid.a", "fluid.b", "fluid.c"}


def definitions(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and module of every class and function at the top of a module."""
    for module, text in texts.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node.name, module


@pytest.mark.parametrize("name", ONE_MEANING)
def test_a_name_means_one_thing(name: str) -> None:
    places = [module for one, module in definitions(sources()) if one == name]
    assert len(places) <= 1, ", ".join(places)


def test_the_check_finds_a_name_twice() -> None:
    texts = {"fluid.a": "class Trace:\n    pass", "fluid.b": "def Trace():\n    def inner(): ..."}
    assert list(definitions(texts)) == [("Trace", "fluid.a"), ("Trace", "fluid.b")]


FOREIGN_OPTIONS = {"--additional-config", "--save-detailed"}
"""Options of other programs, which an error may name."""


def options_in_errors(source: str) -> set[str]:
    """Options of a command line that a module's errors about input speak of."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
            texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
            found |= {word for one in texts for word in re.findall(r"--[a-z][-a-z]*", str(one))}
    return found - FOREIGN_OPTIONS


def test_errors_of_the_library_never_speak_of_options() -> None:
    """What a user of the library passes has a name without dashes; the command line adds them."""
    told = {
        module: sorted(options)
        for module, text in sources().items()
        if not module.startswith("fluidwait") and (options := options_in_errors(text))
    }
    assert told == {}


def test_the_check_sees_options_in_errors() -> None:
    assert options_in_errors('raise InputError("--plot", 1, f"only {x} with --all")') == {
        "--plot",
        "--all",
    }
    assert options_in_errors('say("--plot")') == set()

"""``import fluidwait as fw``: what it costs, what is there, and that its examples are true."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fluidwait as fw

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("numpy", "numba", "scipy", "cvxpy", "sympy", "matplotlib", "pydantic", "rich", "typer")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

rooms = [name for name in fw.__all__ if isinstance(getattr(fw, name), ModuleType)]
things = [name for name in fw.__all__ if name not in rooms]


def loaded_by(statement: str) -> set[str]:
    """Heavy packages that a fresh interpreter holds after a statement."""
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


def test_importing_costs_next_to_nothing() -> None:
    assert loaded_by("import fluidwait") == set()


def test_a_name_brings_its_own_room_only() -> None:
    assert not loaded_by("import fluidwait as fw; fw.Runs()") & {"numba", "matplotlib", "cvxpy"}
    asked = "fw.equilibrium(fw.Workload.of(a=fw.Requests(1.0, 64, 20)), fw.Server.named('{0}'))"
    loaded = loaded_by("import fluidwait as fw; " + asked.format("paper-lmsys"))
    assert not loaded & {"numba", "matplotlib", "cvxpy", "sympy"}


def test_what_type_checkers_see_is_what_is_there() -> None:
    tree = ast.parse((ROOT / "fluidwait" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(module, name) for name, module in fw._MODULE_OF.items()}
    assert set(dir(fw)) == {*fw.__all__, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'best_policy'"):
        fw.best_policy  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert fw.__version__.count(".") == 2


@pytest.mark.parametrize("name", things)
def test_a_public_name_has_an_example_that_is_true(name: str) -> None:
    thing = getattr(fw, name)
    assert inspect.getdoc(thing)
    (found,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={"fw": fw})
    assert found.examples, f"fw.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said: list[str] = []
    runner.run(found, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_the_front_door_itself_has_an_example_that_is_true() -> None:
    assert doctest.testmod(fw).failed == 0
    assert doctest.testmod(fw).attempted > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_needs_one_import(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join(
        line
        for cell in cells
        if cell["cell_type"] == "code"
        for line in "".join(cell["source"]).splitlines()
        if not line.startswith("%")
    )
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    own = {name for name in imported if name.partition(".")[0] in ROOMS_OF_THE_HOUSE}
    assert own == {"fluidwait"}


ROOMS_OF_THE_HOUSE = ("fluid", "thresholds", "validation", "fluidwait")


def test_bad_values_are_the_errors_of_files_and_value_errors() -> None:
    with pytest.raises(fw.InputError, match=r"rate_per_s: got -1.*greater than 0"):
        fw.Requests(-1, prompt=512, output=120)
    with pytest.raises(ValueError, match="replications: got 0; allowed: at least 1"):
        fw.Runs(replications=0)
    with pytest.raises(fw.InputError, match="output: got 0"):
        fw.Workload.of(chat=fw.Requests(1.0, prompt=512, output=0))

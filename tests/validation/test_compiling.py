"""Compiled kernels are told apart by the files that they come from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from validation.simulator.compiling import bind

TEXT = """
from validation.simulator.compiling import kernel

@kernel
def rule(x):
    return x + {number}

@kernel
def template(x):
    return rule(x)
"""


def written(folder: Path, name: str, number: int) -> Any:
    path = folder / f"{name}.py"
    path.write_text(TEXT.format(number=number))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_rule_is_not_taken_for_the_cached_one(tmp_path: Path) -> None:
    """numba's cache knows the template's file and the bound name, not the file of the rule."""
    engine = written(tmp_path, "engine", 0).template
    first, second = (
        bind(engine.py_func, "rule", {"rule": written(tmp_path, name, number).rule})
        for name, number in (("one", 1), ("two", 2))
    )
    assert (first(10), second(10)) == (11, 12)

"""Compiled kernels are told apart by the files that they come from."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from fluid.compiled import compiled
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


def test_a_cache_cut_short_is_compiled_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "cut.py"
    source.write_text("def plus(x):\n    return x + 1\n")

    def plus() -> Any:
        names: dict[str, Any] = {}
        exec(compile(source.read_text(), source, "exec"), names)
        return compiled()(names["plus"])

    assert plus()(1) == 2
    (kept,) = (tmp_path / "cache").rglob("*.nbc")
    whole = kept.stat().st_size
    for cut in (kept, next((tmp_path / "cache").rglob("*.nbi"))):
        cut.write_bytes(cut.read_bytes()[:50])
        again = plus()
        assert (again(1), sum(again.stats.cache_hits.values())) == (2, 0)
    assert next((tmp_path / "cache").rglob("*.nbc")).stat().st_size == whole


def test_a_cache_that_nobody_can_write_is_removed_at_exit(tmp_path: Path) -> None:
    code = "import numba, validation.simulator.compiling; print(numba.config.CACHE_DIR)"
    environment = os.environ | {"XDG_CACHE_HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.startswith(str(tmp_path / f"fluidwait-{os.getuid()}"))
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_without_a_way_in_says_so() -> None:
    @compiled(cache=False, from_python=False)
    def inner(x: int) -> int:
        return x + 1

    @compiled(cache=False)
    def outer(x: int) -> int:
        return inner(x)

    for _ in range(2):
        with pytest.raises(TypeError, match="inner is called by compiled functions only"):
            inner(1)
        assert outer(1) == 2

"""The table of block sizes, at toy size on numba's simulator of a device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda")

from tests.gpu.compiled import SIMULATOR

ROOT = Path(__file__).parents[2]

TOY = """
from tests.gpu.blocks import measured
from tests.gpu.speed import TOY
from tests.support.cuda_simulator import patch
patch()
print(*measured([("greedy", 2)], TOY, (3, 3_000_000), None), sep="\\n")
"""


def test_a_line_for_each_number_of_replications_that_is_not_too_large() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOY],
        env=os.environ | SIMULATOR | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    name, residents, replications, *rates = line.split()
    assert (name, residents, replications) == ("greedy", "2", "3")
    by_threads = dict(one.split(":") for one in rates)
    assert list(by_threads) == ["1", "2", "4", "8", "16", "32", "64", "128"]
    assert all(float(rate) > 0 for rate in by_threads.values())

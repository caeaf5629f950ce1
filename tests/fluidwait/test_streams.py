"""Standard output that is closed, full, shut by its reader, or of few letters."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluid.result import Result, Table
from fluidwait.console import show

ROOT = Path(__file__).resolve().parents[2]
SHOWN = "server list"
"""A command that starts quickly and prints more than letters of ASCII."""


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of a shell, in which PROGRAM is this one."""
    line = line.replace("PROGRAM", f"{sys.executable} -m fluidwait {SHOWN}")
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, env=own, timeout=300)


@pytest.mark.parametrize(
    ("line", "codes", "told"),
    [
        ("PROGRAM >&-", {1}, b""),
        ("PROGRAM > /dev/full", {1}, b"fluidwait: No space left on device\n"),
        ("PROGRAM | head -c 0; exit ${PIPESTATUS[0]}", {1, 141}, b""),
    ],
    ids=["closed", "full", "nobody reads"],
)
def test_output_that_goes_nowhere_ends_quietly(line: str, codes: set[int], told: bytes) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = shell(line)
    assert done.returncode in codes
    assert done.stderr == told


def test_a_terminal_of_ascii_gets_ascii() -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = shell("PROGRAM", **ascii_only, PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0
    assert "-" in done.stdout.decode("ascii")
    assert b"\\u" not in done.stdout
    assert done.stderr == b""


def test_columns_of_ascii_stand_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shown(Result):
        def blocks(self) -> tuple[Table]:
            rows = (("utilisation ρ", "0.86 ± 0.01"), ("multiple α*", "1.16"), ("limit", "≤ 1"))
            return (Table("load", ("figure", "value"), rows),)

    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    show(Shown())
    lines = written.getvalue().decode("ascii").rstrip().splitlines()[2:]
    assert "utilisation rho" in lines[2]
    assert "0.86 +- 0.01" in lines[2]
    assert len({len(line.rstrip()) for line in lines}) == 1, lines

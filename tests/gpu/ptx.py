"""What kernels take of a device, without one: compiled to PTX and assembled by `ptxas`.

Run as ``python -m tests.gpu.ptx`` for a table of all policies.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numba
import numpy as np
from numba.cuda import compile_ptx, dispatcher

from tests.gpu.result import Row, Table
from tests.gpu.traffic import random_models
from validation.policies import POLICIES
from validation.simulator import cuda
from validation.simulator.cpu import Job
from validation.simulator.state import new_lane

Capability = tuple[int, int]

HOPPER: Capability = (9, 0)


@dataclass(frozen=True)
class Assembled:
    """Of one kernel, by thread.

    Attributes:
        written: PTX version that the compiler wrote.
        assembled: The one under which it was assembled: lower where this `ptxas` is older.
    """

    registers: int
    stack_bytes: int
    spilled_bytes: int
    written: str
    assembled: str


class AssemblyError(RuntimeError):
    """`ptxas` refused the kernel, in its own words."""


def kernel_ptx(policy: str, capability: Capability) -> str:
    """The whole path of the CUDA compiler but for the device, whose capability is told instead.

    Of the loop for clients that react, which has all that the other one has.
    """
    device = SimpleNamespace(compute_capability=capability)
    _, model, configured = next(random_models(policy, 0, 1))
    read = cuda.host_arguments(model, [Job(configured, 0)])
    lanes = [part[np.newaxis] for part in new_lane(model, 10)]
    signature = tuple(numba.typeof(part) for part in (*read, *lanes))
    with patch.object(dispatcher, "get_current_device", lambda: device):
        source = cuda.kernel_source(POLICIES[policy], reacts=True)
        ptx, _ = compile_ptx(source, signature, device=False, cc=capability)
    return str(ptx)


def assembler() -> str | None:
    """Where `ptxas` is; None where it is not installed."""
    return shutil.which("ptxas")


def assemble(ptx: str, capability: Capability, tool: str) -> Assembled:
    """Assemble a kernel; one that is too new for this `ptxas` under the newest version it knows.

    Raises:
        AssemblyError: It is refused under that version too.
    """
    written = _version(ptx)
    told = _run(ptx, capability, tool)
    known = re.search(r"Unsupported \.version [\d.]+; current version is '([\d.]+)'", told)
    if known:
        ptx = re.sub(r"^\.version .*$", f".version {known[1]}", ptx, count=1, flags=re.MULTILINE)
        told = _run(ptx, capability, tool)
    entry = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r"[^\n]*\n[^\n]*Used (\d+) registers",
        told,
    )
    if entry is None:
        raise AssemblyError(told.strip())
    stack, stores, loads, registers = map(int, entry.groups())
    return Assembled(registers, stack, stores + loads, written, _version(ptx))


def _version(ptx: str) -> str:
    return next(line.split()[1] for line in ptx.splitlines() if line.startswith(".version"))


def _run(ptx: str, capability: Capability, tool: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx, encoding="utf-8")
        architecture = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [tool, "-v", architecture, "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def main() -> int:
    """Print registers, stack and spills of every policy."""
    tool = assembler()
    if tool is None:
        print("ptxas is not installed: it comes with the CUDA toolkit", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in POLICIES:
        found = assemble(kernel_ptx(name, HOPPER), HOPPER, tool)
        rows.append({"policy": name, **vars(found)})
    print(Table(f"Kernels for sm_{HOPPER[0]}{HOPPER[1]}, by thread", tuple(rows)).markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())

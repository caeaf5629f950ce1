"""What the check needs of a machine, and which versions it found there."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

REQUIRED = {
    "numpy": "numpy",
    "scipy": "scipy",
    "numba": "numba",
    "numba_cuda": "numba-cuda",
    "torch": "torch",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
}
"""Modules that the parts import beyond the standard library, and the packages that hold them."""


def missing_modules() -> list[str]:
    """Packages of which the module is not there."""
    return [package for module, package in REQUIRED.items() if find_spec(module) is None]


def why_no_gpu() -> str | None:
    """What is missing for CUDA in one line, or None where simulator and torch find a device."""
    import torch

    from validation.simulator.run import why_no_cuda

    if reason := why_no_cuda():
        return reason
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def versions(toy: bool) -> dict[str, str]:
    """Versions by name; those of driver and toolkit only where a device is used."""
    found = {"python": platform.python_version()}
    found |= {package: _installed(package) for package in REQUIRED.values()}
    if toy:
        return found
    asked = {
        "CUDA of torch": _torch_cuda,
        "CUDA of the toolkit": _toolkit_cuda,
        "CUDA of the driver": _driver_cuda,
        "driver": driver_version,
        "PTX written": ptx_version,
    }
    return found | {name: _told(tell) for name, tell in asked.items()}


def ptx_hint(found: dict[str, str]) -> str | None:
    """A warning where numba-cuda writes a PTX that this driver will refuse.

    CUDA 12.n and 13.n read PTX up to 8.n and 9.n, some of them less.
    """
    written, known = found.get("PTX written", ""), found.get("CUDA of the driver", "")
    try:
        ptx, driver = ([int(part) for part in text.split(".")] for text in (written, known))
    except ValueError:
        return None
    if ptx <= [driver[0] - 4, driver[1]]:
        return None
    return (
        f"PTX {written} is newer than a driver of CUDA {known} reads: "
        "use the numba-cuda and the toolkit that came with this machine"
    )


def ptx_version() -> str:
    """The version that numba-cuda's compiler writes at the head of a kernel."""
    from numba.cuda import compile_ptx

    ptx, _ = compile_ptx(_nothing, (), cc=(8, 0))
    return next(line.split()[1] for line in str(ptx).splitlines() if line.startswith(".version"))


def driver_version() -> str:
    """As the driver's own tool tells it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _nothing() -> None:
    return


def _torch_cuda() -> str:
    import torch

    return str(torch.version.cuda)


def _toolkit_cuda() -> str:
    from numba.cuda.cudadrv.runtime import get_version

    return ".".join(map(str, get_version()))


def _driver_cuda() -> str:
    from numba.cuda.cudadrv.driver import get_version

    return ".".join(map(str, get_version()))


def _told(tell: Callable[[], str]) -> str:
    """A version that cannot be asked for is no reason not to measure."""
    try:
        return tell()
    except Exception as error:
        return f"unknown ({type(error).__name__})"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

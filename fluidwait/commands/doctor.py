"""``fluidwait doctor``: what is installed, which devices are seen, what each extra would add."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

import typer
from packaging.requirements import Requirement

from fluidwait.console import new_table, print_json, say, show_table
from fluidwait.options import AsJson, new_app

DISTRIBUTION = "fluidwait"

EXTRAS = {
    "cuda": "simulation on an NVIDIA GPU: --device cuda",
    "dask": "sweeps on many processes or machines: --workers, --cluster",
    "docs": "the documentation site: make docs",
    "notebooks": "the notebooks: jupyter lab notebooks",
    "test": "tests, lint and type check: make test",
    "torch": "measuring a GPU: fluidwait measure",
    "traces": "traces of text: fluidwait workload from-trace --tokenizer",
}
"""What each optional group of packages adds."""


@dataclass(frozen=True)
class Package:
    """A required package; `installed` is its version, or None where it is missing.

    Attributes:
        fits: Whether that version is among the accepted ones.
    """

    name: str
    accepts: str
    installed: str | None
    fits: bool


@dataclass(frozen=True)
class Extra:
    """An optional group of packages; `missing` are those not installed or too old."""

    name: str
    adds: str
    install: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Device:
    """A device that can simulate; `problem` says why it cannot be used, or is None."""

    name: str
    description: str
    problem: str | None


def run_doctor(as_json: bool) -> int:
    """Print the state of this installation; returns 1 where a required package is missing."""
    packages, extras, devices = installed_packages(), available_extras(), seen_devices()
    sound = all(one.fits for one in packages)
    if as_json:
        print_json(
            {
                "fluidwait": version(DISTRIBUTION),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "sound": sound,
                "packages": [asdict(one) for one in packages],
                "devices": [asdict(one) for one in devices],
                "extras": [asdict(one) for one in extras],
            }
        )
    else:
        _print(packages, extras, devices, sound)
    return 0 if sound else 1


def installed_packages() -> list[Package]:
    """The packages that fluidwait cannot do without."""
    return [_package(one) for one in _requirements() if _applies(one)]


def available_extras() -> list[Extra]:
    """The optional groups of packages of this distribution, with what is missing of each."""
    return [
        Extra(
            name=name,
            adds=EXTRAS.get(name, "–"),
            install=f"pip install '{DISTRIBUTION}[{name}]'",
            missing=tuple(
                one.name
                for one in _requirements()
                if not _applies(one) and _applies(one, name) and not _package(one).fits
            ),
        )
        for name in metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    ]


def seen_devices() -> list[Device]:
    """The processor, and CUDA with the reason where it cannot be used."""
    from validation.simulator.run import why_no_cuda

    problem = why_no_cuda()
    devices = [Device("cpu", f"{_cores()} cores, {platform.machine()}", None)]
    if problem is not None:
        return [*devices, Device("cuda", "", problem)]
    from numba import cuda

    return [*devices, *(Device("cuda", _cuda_name(one), None) for one in cuda.gpus)]


def _cuda_name(device: object) -> str:
    name = getattr(device, "name", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _requirements() -> list[Requirement]:
    return [Requirement(one) for one in requires(DISTRIBUTION) or ()]


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement holds on this platform, with an extra if one is named."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _package(requirement: Requirement) -> Package:
    try:
        installed: str | None = version(requirement.name)
    except PackageNotFoundError:
        installed = None
    fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
    return Package(requirement.name, str(requirement.specifier), installed, fits)


def _print(
    packages: list[Package], extras: list[Extra], devices: list[Device], sound: bool
) -> None:
    title = f"fluidwait {version(DISTRIBUTION)}, Python {platform.python_version()}"
    table = new_table(title, "package", "needs", "installed", text=(0, 1, 2))
    for package in packages:
        table.add_row(package.name, package.accepts, package.installed or "MISSING")
    show_table(table)
    seen = new_table("Devices", "device", "state", text=(0, 1))
    for device in devices:
        seen.add_row(device.name, device.problem or device.description)
    show_table(seen)
    optional = new_table("Extras", "extra", "adds", "state", text=(0, 1, 2))
    for extra in extras:
        optional.add_row(extra.name, extra.adds, "missing" if extra.missing else "installed")
    show_table(optional)
    for extra in extras:
        if extra.missing:
            say(f"{extra.install}   # {', '.join(extra.missing)}")
    if sound:
        say("All required packages are there.")
    else:
        lacking = ", ".join(one.name for one in packages if not one.fits)
        say(f"BROKEN: {lacking} missing or too old: pip install --upgrade {DISTRIBUTION}")


app = new_app()


@app.command()
def command(as_json: AsJson = False) -> None:
    """What is installed, what is seen, and what extras would add."""
    raise typer.Exit(run_doctor(as_json))

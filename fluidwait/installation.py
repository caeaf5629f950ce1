"""What is installed, which devices are seen, what each extra would add."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

from packaging.requirements import Requirement

from fluid.result import Block, Result, Table

DISTRIBUTION = "fluidwait"

EXTRAS = {
    "cuda": "simulation on an NVIDIA GPU: --device cuda",
    "dask": "sweeps on many processes or machines: --workers, --cluster",
    "docs": "the documentation site: make docs",
    "estimate": "servers from measured tables: fluidwait server estimate",
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


@dataclass(frozen=True, repr=False)
class Installation(Result):
    """The state of this installation.

    Attributes:
        version: Of the distribution.
        python: Version of the interpreter.
        platform: Operating system and processor in words.
    """

    version: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    devices: tuple[Device, ...]
    extras: tuple[Extra, ...]

    @property
    def is_sound(self) -> bool:
        """Whether every required package is there in a version that fits."""
        return all(one.fits for one in self.packages)

    def blocks(self) -> Iterable[Block]:
        """Packages, devices and extras, how to install what is missing, and the verdict."""
        yield Table(
            f"{DISTRIBUTION} {self.version}, Python {self.python}",
            ("package", "needs", "installed"),
            tuple((one.name, one.accepts, one.installed or "MISSING") for one in self.packages),
            left=(0, 1, 2),
        )
        yield Table(
            "Devices",
            ("device", "state"),
            tuple((one.name, one.problem or one.description) for one in self.devices),
            left=(0, 1),
        )
        yield Table(
            "Extras",
            ("extra", "adds", "state"),
            tuple(
                (one.name, one.adds, "missing" if one.missing else "installed")
                for one in self.extras
            ),
            left=(0, 1, 2),
        )
        for one in self.extras:
            if one.missing:
                yield f"{one.install}   # {', '.join(one.missing)}"
        lacking = ", ".join(one.name for one in self.packages if not one.fits)
        if lacking:
            yield f"BROKEN: {lacking} missing or too old: pip install --upgrade {DISTRIBUTION}"
        else:
            yield "All required packages are there."

    def document(self) -> dict[str, Any]:
        """Versions, packages, devices and extras."""
        return {
            "fluidwait": self.version,
            "python": self.python,
            "platform": self.platform,
            "sound": self.is_sound,
            "packages": [asdict(one) for one in self.packages],
            "devices": [asdict(one) for one in self.devices],
            "extras": [asdict(one) for one in self.extras],
        }

    def frame(self) -> dict[str, list[Any]]:
        """A row per required package."""
        return {
            "package": [one.name for one in self.packages],
            "accepts": [one.accepts for one in self.packages],
            "installed": [one.installed for one in self.packages],
            "fits": [one.fits for one in self.packages],
        }


def installation() -> Installation:
    """Look at the distribution, its packages and the devices.

    >>> from fluidwait.installation import installation
    >>> installation().is_sound
    True
    """
    return Installation(
        version=version(DISTRIBUTION),
        python=platform.python_version(),
        platform=platform.platform(),
        packages=tuple(installed_packages()),
        devices=tuple(seen_devices()),
        extras=tuple(available_extras()),
    )


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

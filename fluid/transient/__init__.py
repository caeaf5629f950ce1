"""The fluid over time: paths, recovery from bursts, collapsed states."""

from fluid.transient.admission import Admission
from fluid.transient.inflow import Burst, RateProfile
from fluid.transient.metastable import (
    Criterion,
    Equilibria,
    RecoveryMap,
    equilibria,
    recovery_map,
    recovery_time_s,
    tipping_burst,
)
from fluid.transient.path import FluidPath, simulate_fluid

__all__ = [
    "Admission",
    "Burst",
    "Criterion",
    "Equilibria",
    "FluidPath",
    "RateProfile",
    "RecoveryMap",
    "equilibria",
    "recovery_map",
    "recovery_time_s",
    "simulate_fluid",
    "tipping_burst",
]

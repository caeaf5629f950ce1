"""Whether memory that is kept full stays in balance (THEORY 11; after arXiv 2606.15555).

Input saturated, admission greedy, nobody evicted yet: an iteration admits what makes memory full
again. With φ_s = F(s)·h(s), the share of requests that reach stage s times the KV held there, and
x_t admissions at iteration t,

    Σ_s φ_s x_{t−s} = C,   in balance x = C/Σ φ_s,

and disturbances grow like the roots of Σ_s φ_s z^{−s}.

That is about small disturbances. How much throughput is lost once they have grown is another
question, which the radius answers badly: `fluid.transient.saturated` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluid.result import Block, Note, Result, Table, number, percent
from fluid.server import Server, require_fits
from fluid.stages import class_stages
from fluid.steady.full_memory.cycle import OneLengthCycle, one_length_cycle
from fluid.steady.full_memory.roots import spectral_radius
from fluid.workload import Workload, warn_of_prefixes

Floats = NDArray[np.float64]
Verdict = Literal["stable", "periodic", "unstable"]

_LEVEL = 2e-9
"""Distance of the radius from 1 that is none."""

_WORDS = {
    "stable": "STABLE: memory stays full without evictions; disturbances die out",
    "periodic": "PERIODIC: no evictions, but disturbances come back for ever",
    "unstable": "UNSTABLE: disturbances grow until requests are evicted",
}


@dataclass(frozen=True, repr=False, eq=False)
class FullMemory(Result):
    """The eviction-free state of full memory, under saturated input and greedy admission.

    Attributes:
        profile: φ_s = F(s)·h(s), KV tokens at stage s per request admitted, shape (stages,).
        admissions_per_iteration: x = C/Σ φ_s in balance.
        spectral_radius: r, growth of a small disturbance per iteration.
        growth_per_service: r to the power of the mean number of stages.
        never_increases: Certificate of Eneström and Kakeya: φ_s never increases, so that no
            eviction ever happens from an empty start, whatever the disturbance (THEORY 11.2).
        period: d = gcd{k : φ_{k−1} > φ_k} where that holds: 1 for stable, d > 1 for a cycle of
            d iterations; None elsewhere.
        cycle: The eviction cycle of one length (THEORY 11.4); None for several.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(2.4, prompt=512, output=1000))
    >>> found = fw.full_memory(load, fw.Server.named("paper-long-decode"))
    >>> found.verdict, round(found.spectral_radius, 4), round(found.cycle.limit_share, 2)
    ('unstable', 1.0011, 0.63)
    """

    workload: Workload
    server: Server
    profile: Floats
    admissions_per_iteration: float
    spectral_radius: float
    growth_per_service: float
    never_increases: bool
    period: int | None
    cycle: OneLengthCycle | None

    @property
    def verdict(self) -> Verdict:
        """Of the radius, or of the certificate where there is one."""
        if self.never_increases:
            return "stable" if self.period == 1 else "periodic"
        if abs(self.spectral_radius - 1) <= _LEVEL:
            return "periodic"
        return "stable" if self.spectral_radius < 1 else "unstable"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        why = (
            "the KV of a generation never grows (certificate)"
            if self.never_increases
            else f"a small one changes by the factor {number(self.growth_per_service)} per service"
        )
        return f"{_WORDS[self.verdict]}; {why}."

    def frame(self) -> dict[str, Any]:
        """Columns, a row for each stage."""
        return {"stage": np.arange(len(self.profile)), "kv_tokens": self.profile}

    def blocks(self) -> Iterator[Block]:
        rows = [
            ("admissions per iteration", number(self.admissions_per_iteration)),
            ("spectral radius per iteration", f"{self.spectral_radius:.6f}"),
            ("growth of a disturbance per service", number(self.growth_per_service)),
            ("KV of a generation never grows", "yes" if self.never_increases else "no"),
        ]
        if self.cycle is not None:
            rows += [
                ("eviction cycle: completed", f"{number(self.cycle.completed_per_s)} /s"),
                ("eviction cycle: share of the limit", percent(self.cycle.limit_share)),
            ]
        title = f"Full memory, {self.workload.name} on {self.server.name}"
        yield Table(title, ("figure", "value"), tuple(rows))
        yield Note(
            "The radius is about small disturbances; what is lost once memory swings follows from "
            "the predicted loss."
        )
        yield self.sentence

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "verdict": self.verdict,
            "admissions_per_iteration": self.admissions_per_iteration,
            "spectral_radius": self.spectral_radius,
            "growth_per_service": self.growth_per_service,
            "never_increases": self.never_increases,
            "period": self.period,
            "cycle": None if self.cycle is None else self.cycle.document(),
        }


def full_memory(workload: Workload, server: Server) -> FullMemory:
    """Stability of the state in which greedy admission keeps memory full (THEORY 11.1–11.4).

    It depends on the mix of the rates alone.

    Raises:
        InputError: A class of which no request fits into memory.

    >>> import fluidwait as fw
    >>> pair = {"short": fw.Requests(1.0, 301, 10), "long": fw.Requests(1.0, 301, 13)}
    >>> server = fw.Server.named("engine-long-decode").changed(block_tokens=1)
    >>> fw.full_memory(fw.Workload.of(**pair), server).verdict
    'stable'
    """
    require_fits(workload, server)
    warn_of_prefixes(workload)
    profile, mean_stages = kv_profile(workload, server)
    never_increases = bool((np.diff(profile) <= 0).all())
    # The last stage is followed by none: everything is released.
    falls = np.flatnonzero(np.diff(profile, append=0.0) < 0) + 1
    radius = spectral_radius(profile)
    return FullMemory(
        workload=workload,
        server=server,
        profile=profile,
        admissions_per_iteration=server.usable_kv_tokens / float(profile.sum()),
        spectral_radius=radius,
        growth_per_service=radius**mean_stages,
        never_increases=never_increases,
        period=reduce(gcd, falls.tolist()) if never_increases else None,
        cycle=one_length_cycle(workload, server),
    )


def kv_profile(workload: Workload, server: Server) -> tuple[Floats, float]:
    """φ_s in KV tokens per request of the mix, shape (stages,), and the mean number of stages."""
    stages = [class_stages(one, server) for one in workload.classes]
    mix = workload.shares
    profile = np.zeros(max(one.count for one in stages))
    for share, one in zip(mix.tolist(), stages, strict=True):
        profile[: one.count] += share * one.held_kv_tokens
    return profile, float(mix @ [one.count for one in stages])

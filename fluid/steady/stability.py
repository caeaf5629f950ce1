"""Stability of the fluid model: how far the rates can grow, and what stops them (THEORY 2.1–2.5).

For affine f the stable rates form one simplex, Σ λ_j (w_j + d0·m_j/C) ≤ 1 (THEORY 2.3;
arXiv 2504.11320 Sec. 3). For any other f the largest stable multiple of a mix is the maximum of
y/T(y) over the intakes y that fit into memory (see `fluid.steady.intake`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluid.cache.states import States, cache_states
from fluid.result import Block, Result, Table, number, percent, seconds
from fluid.server import Server, require_fits
from fluid.stages import read_only
from fluid.steady.best_intake import best_intake_s
from fluid.steady.intake import Intake, Method, intake
from fluid.workload import Workload

Binding = Literal["compute", "memory", "max_num_batched_tokens", "max_num_seqs"]


@dataclass(frozen=True, repr=False, eq=False)
class Stability(Result):
    """Where a workload stands against the boundary of the stable region, m classes.

    Attributes:
        stable: Whether an equilibrium exists and fits: max_scale ≥ 1, i.e. ΔT* exists, M* ≤ C.
        max_scale: α*, the largest multiple of all rates that is stable.
        margin: 1 − 1/α*: the load is the share 1/α* of the boundary load, this much of it is
            still free; 0 on the boundary, negative outside.
        binding: The larger of the shares.
        compute_share: Part of the boundary iteration that work takes, 1 − d0/ΔT*(α*λ); for affine
            f this is α*·Σ λ_j w_j. It is 1 where α* is reached below every limit (not affine f).
        memory_share: The rest, α*·Σ λ_j d0 m_j/C for affine f: what more memory can still remove.
        limit_share: The rest instead where the engine's tokens or requests per iteration are the
            limit that is reached first; otherwise 0.
        utilisation: ρ = 1 − d0/ΔT* at the workload's own rates, Σ λ_j w_j for affine f (also
            beyond 1); without an equilibrium Σ λ_j w_j with the last slope of f.
        boundary_iteration_time_s: ΔT*(α*λ).
        boundary_per_stage: n^C_j = α*·λ_j·ΔT*(α*λ), requests per stage, shape (m,).
        half_space_per_s: a_j in seconds with Σ λ_j a_j ≤ 1, the stable region; shape (m,); None
            where f is not affine, or the engine has limits: the region is no simplex.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> found = fw.stability(load, fw.Server.named("a100-80gb-llama-2-7b"))
    >>> found.stable, found.binding
    (True, 'compute')
    """

    workload: Workload
    server: Server
    stable: bool
    max_scale: float
    margin: float
    binding: Binding
    compute_share: float
    memory_share: float
    limit_share: float
    utilisation: float
    boundary_iteration_time_s: float
    boundary_per_stage: NDArray[np.float64]
    half_space_per_s: NDArray[np.float64] | None

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, with its cause."""
        return verdict(self.max_scale, self.margin, self.binding)

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class."""
        normal = self.half_space_per_s
        return {
            "class": [one.name for one in self.workload.classes],
            "rate_per_s": [one.rate_per_s for one in self.workload.classes],
            "boundary_per_stage": self.boundary_per_stage.tolist(),
            "half_space_s": [None] * len(self.workload.classes)
            if normal is None
            else normal.tolist(),
        }

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"{self.workload.name} on {self.server.name}",
            ("figure", "value"),
            (
                ("arrival rate", f"{number(self.workload.rate_per_s)} /s"),
                ("utilisation ρ", number(self.utilisation)),
                ("largest stable multiple α*", number(self.max_scale)),
                shares_line(self.compute_share, self.memory_share, self.limit_share),
                ("iteration time at the boundary", seconds(self.boundary_iteration_time_s)),
            ),
        )
        columns = self.frame()
        yield Table(
            "Classes",
            ("class", "rate /s", "per stage at the boundary", "normal a s"),
            tuple(
                (name, *map(number, figures))
                for name, *figures in zip(*columns.values(), strict=True)
            ),
        )
        yield self.sentence

    def document(self) -> dict[str, Any]:
        normal = self.half_space_per_s
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "stable": self.stable,
            "max_scale": self.max_scale,
            "margin": self.margin,
            "binding": self.binding,
            "compute_share": self.compute_share,
            "memory_share": self.memory_share,
            **({"limit_share": self.limit_share} if self.limit_share else {}),
            "utilisation": self.utilisation,
            "boundary_iteration_time_s": self.boundary_iteration_time_s,
            "boundary_per_stage": self.boundary_per_stage.tolist(),
            "half_space_per_s": None if normal is None else normal.tolist(),
        }


def verdict(max_scale: float, margin: float, binding: Binding) -> str:
    """Stable or not, by how much and why, in one sentence; arguments as in `Stability`."""
    if max_scale >= 1:
        return (
            f"STABLE: the rates can grow by a factor {max_scale:.4g} before {binding} binds; "
            f"{percent(margin)} of the boundary load is free."
        )
    return (
        f"UNSTABLE: {binding} binds; multiply all rates by at most {max_scale:.4g}"
        " or change the server."
    )


def stability(workload: Workload, server: Server, method: Method | None = None) -> Stability:
    """Largest stable multiple of the workload on the server, and its cause (THEORY 2.3, 2.5).

    Args:
        method: As for `fluid.steady.equilibrium.equilibrium`.

    Raises:
        InputError: One request of a class does not fit, or `method` does not suit f.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> round(fw.stability(load, fw.Server.named("engine-long-decode")).max_scale, 2)
    2.78
    """
    require_fits(workload, server)
    if workload.has_prefixes:
        return cached_stability(workload, cache_states(workload, server, method))
    found, _ = curve_stability(workload, intake(workload, server, method))
    return found


def cached_stability(workload: Workload, states: States) -> Stability:
    """The verdict on a workload whose prefixes are cached, with the hits of each rate (10.4)."""
    max_scale, edge = states.edge
    here = states.from_empty
    server = states.cached.server
    overhead_s = server.iteration_time.overhead_s
    rest = overhead_s / edge.iteration_s
    rates = workload.rates_per_s
    return Stability(
        workload=workload,
        server=server,
        stable=here is not None,
        max_scale=max_scale,
        margin=1 - 1 / max_scale,
        binding="memory" if rest > 0.5 else "compute",
        compute_share=1 - rest,
        memory_share=rest,
        limit_share=0.0,
        utilisation=1 - overhead_s / here.iteration_s
        if here
        else edge.curve.final_utilisation / max_scale,
        boundary_iteration_time_s=edge.iteration_s,
        boundary_per_stage=read_only(max_scale * rates * edge.iteration_s),
        half_space_per_s=None,
    )


def largest_scale(workload: Workload, server: Server, method: Method | None = None) -> float:
    """α* alone, at about half the cost of `stability` where f is not affine.

    Raises:
        InputError: As `stability`.
    """
    require_fits(workload, server)
    if workload.has_prefixes:
        return cache_states(workload, server, method).max_scale
    return curve_scale(intake(workload, server, method))


def curve_scale(curve: Intake) -> float:
    """α* of a curve."""
    best_s = best_intake_s(curve)
    return best_s / curve.time_s(best_s)


def curve_balance_s(curve: Intake) -> float | None:
    """ΔT* in seconds; None where there is no equilibrium."""
    best_s = best_intake_s(curve)
    return curve.least_balance_s(best_s if best_s >= curve.time_s(best_s) else math.inf)


@lru_cache(maxsize=16)
def curve_stability(workload: Workload, curve: Intake) -> tuple[Stability, float | None]:
    """The verdict on a workload by its curve, and ΔT*, found together so that they agree."""
    limit, limit_s = curve.limit
    best_s = best_intake_s(curve)
    time_s = curve.time_s(best_s)
    max_scale = best_s / time_s
    balance_s = curve_balance_s(curve)
    rest = curve.overhead_s / time_s if best_s == limit_s else 0.0
    affine = curve.method == "closed-form"
    if affine or balance_s is None:
        utilisation = curve.final_utilisation
    else:
        utilisation = 1 - curve.overhead_s / balance_s
    found = Stability(
        workload=workload,
        server=curve.server,
        stable=max_scale >= 1,
        max_scale=max_scale,
        margin=1 - 1 / max_scale,
        binding=limit if rest > 0.5 else "compute",
        compute_share=1 - rest,
        memory_share=rest if limit == "memory" else 0.0,
        limit_share=0.0 if limit == "memory" else rest,
        utilisation=utilisation,
        boundary_iteration_time_s=time_s,
        boundary_per_stage=read_only(curve.flow.rates_per_s * best_s),
        half_space_per_s=_half_space_per_s(curve) if affine and not _has_limits(curve) else None,
    )
    return found, balance_s


def shares_line(compute: float, memory: float, limit: float) -> tuple[str, str]:
    """Name and text of the shares, as tables show them."""
    other = ("engine limit", limit) if limit else ("memory", memory)
    return f"compute / {other[0]} share", f"{percent(compute)} / {percent(other[1])}"


def _has_limits(curve: Intake) -> bool:
    """Whether the region is cut by more than one half-space."""
    server = curve.server
    return server.max_num_batched_tokens is not None or server.max_num_seqs is not None


def _half_space_per_s(curve: Intake) -> NDArray[np.float64]:
    """a_j = w_j + d0·m_j/C of an affine server (THEORY 2.3), shape (m,)."""
    work_s = curve.added(0.0).request_s
    memory_s = curve.overhead_s * curve.memory_sums / curve.server.usable_kv_tokens
    return read_only(work_s + memory_s)

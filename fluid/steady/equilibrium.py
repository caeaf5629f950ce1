"""Fluid equilibrium: iteration time, inventory, memory and first-order latency (THEORY 2.2–2.6)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server, require_fits
from fluid.stages import Stages
from fluid.steady.extrapolation import range_caveats
from fluid.steady.intake import Intake, Method, intake
from fluid.steady.stability import curve_stability
from fluid.workload import Workload


@dataclass(frozen=True)
class ClassEquilibrium:
    """One class at equilibrium; times and inventory are None where the workload is unstable.

    Attributes:
        stages: S_j, iterations that a request needs.
        in_service_per_stage: n*_j = λ_j·ΔT*, requests at each stage.
        ttft_s: Arrival to first output token.
        tpot_s: Mean time between output tokens; None with one output token.
        latency_s: Arrival to completion.
    """

    name: str
    rate_per_s: float
    stages: int
    in_service_per_stage: float | None
    ttft_s: float | None
    tpot_s: float | None
    latency_s: float | None


@dataclass(frozen=True)
class Equilibrium:
    """The fluid equilibrium of a workload on a server.

    Attributes:
        stable: Whether the equilibrium exists and fits into memory.
        method: "closed-form" (affine f), "poisson" (E[τ] with Poisson new prompts) or "mean" (τ of
            the mean composition).
        utilisation: ρ, share of an iteration that work takes; see `Stability`.
        iteration_time_s: ΔT*; None where there is no equilibrium at any memory.
        kv_tokens: M*, mean KV held; None as above. Above `kv_capacity_tokens` it does not fit.
        max_scale: α*, largest stable multiple of the rates; with margin, binding and the two
            shares as in `fluid.steady.stability.Stability`.
        tpot_s: Rate-weighted mean over the classes with at least two output tokens.
        ttft_s: Rate-weighted mean; latency_s alike.
        throughput_tokens_per_s: Σ λ_j l'_j.
        caveats: One sentence for each condition of THEORY 2.6 that does not hold, for each quantity
            of the batches that leaves the server's measured range, and one where the rates vary
            over time.
    """

    stable: bool
    method: Method
    utilisation: float
    iteration_time_s: float | None
    kv_tokens: float | None
    kv_capacity_tokens: int
    max_scale: float
    margin: float
    binding: Literal["compute", "memory"]
    compute_share: float
    memory_share: float
    tpot_s: float | None
    ttft_s: float | None
    latency_s: float | None
    throughput_tokens_per_s: float | None
    caveats: tuple[str, ...]
    classes: tuple[ClassEquilibrium, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the field names as keys, ready for JSON."""
        document = asdict(self)
        return document | {
            "caveats": list(document["caveats"]),
            "classes": list(document["classes"]),
        }


def equilibrium(workload: Workload, server: Server, method: Method | None = None) -> Equilibrium:
    """Solve ΔT* = E[τ(λΔT*)] and derive inventory, memory and latencies (THEORY 2.2, 2.5, 2.6).

    Args:
        method: "closed-form" needs affine f; "poisson" and "mean" take any f. By default the
            closed form where f is affine, else "poisson".

    Raises:
        InputError: One request of a class does not fit, `method` does not suit f, or the rates
            vary over time around another mean than the given ones.
    """
    require_fits(workload, server)
    curve = intake(workload, server, method)
    boundary, balance_s = curve_stability(curve)
    served = balance_s if boundary.stable else None
    added_s = () if served is None else curve.stage_seconds(served)
    classes = _classes(workload, curve, served, added_s)
    throughput = sum(one.rate_per_s * one.decode_tokens for one in workload.classes)
    return Equilibrium(
        stable=boundary.stable,
        method=curve.method,
        utilisation=boundary.utilisation,
        iteration_time_s=balance_s,
        kv_tokens=None if balance_s is None else balance_s * curve.kv_tokens_per_s,
        kv_capacity_tokens=server.usable_kv_tokens,
        max_scale=boundary.max_scale,
        margin=boundary.margin,
        binding=boundary.binding,
        compute_share=boundary.compute_share,
        memory_share=boundary.memory_share,
        tpot_s=_weighted_mean([(one.rate_per_s, one.tpot_s) for one in classes]),
        ttft_s=_weighted_mean([(one.rate_per_s, one.ttft_s) for one in classes]),
        latency_s=_weighted_mean([(one.rate_per_s, one.latency_s) for one in classes]),
        throughput_tokens_per_s=throughput if boundary.stable else None,
        caveats=(
            *_caveats(curve, boundary.utilisation, served, added_s),
            *range_caveats(curve, served, boundary.max_scale * boundary.boundary_iteration_time_s),
            *_profile_caveats(workload, boundary.max_scale),
        ),
        classes=classes,
    )


def _classes(
    workload: Workload,
    curve: Intake,
    iteration_s: float | None,
    added_s: tuple[NDArray[np.float64], ...],
) -> tuple[ClassEquilibrium, ...]:
    if iteration_s is None:
        return tuple(
            ClassEquilibrium(one.name, one.rate_per_s, stages.count, None, None, None, None)
            for one, stages in zip(workload.classes, curve.stages, strict=True)
        )
    found = []
    for one, stages, own_s in zip(workload.classes, curve.stages, added_s, strict=True):
        ttft_s, tpot_s, latency_s = _latencies(stages, own_s, iteration_s)
        found.append(
            ClassEquilibrium(
                name=one.name,
                rate_per_s=one.rate_per_s,
                stages=stages.count,
                in_service_per_stage=one.rate_per_s * iteration_s,
                ttft_s=ttft_s,
                tpot_s=tpot_s,
                latency_s=latency_s,
            )
        )
    return tuple(found)


def _latencies(
    stages: Stages, added_s: NDArray[np.float64], iteration_s: float
) -> tuple[float, float | None, float]:
    """TTFT, TPOT and latency in seconds (THEORY 2.6).

    The first k stages take (k + ½)·ΔT* — half an iteration until the next one starts — plus what
    the request itself adds to each of them.
    """
    through_first = stages.first_output + 1
    ttft_s = (through_first + 0.5) * iteration_s + float(added_s[:through_first].sum())
    latency_s = (stages.count + 0.5) * iteration_s + float(added_s.sum())
    gaps = stages.count - through_first
    return ttft_s, (latency_s - ttft_s) / gaps if gaps else None, latency_s


def _weighted_mean(pairs: list[tuple[float, float | None]]) -> float | None:
    """Mean of the values that exist, weighted by rate; None if none does."""
    known = [(rate, value) for rate, value in pairs if value is not None]
    if not known:
        return None
    return sum(rate * value for rate, value in known) / sum(rate for rate, _ in known)


def _profile_caveats(workload: Workload, max_scale: float) -> tuple[str, ...]:
    """What a constant-rate equilibrium does not say about rates that vary (THEORY 5.1)."""
    if workload.rate_profile is None:
        return ()
    peak = max(one.multiplier for one in workload.rate_profile)
    overload = "above" if peak > max_scale else "within"
    return (
        f"rates vary over time: these figures are for their long-run mean; the peak, {peak:.4g} "
        f"times the mean, is {overload} the largest stable multiple {max_scale:.4g}",
    )


def _caveats(
    curve: Intake,
    utilisation: float,
    iteration_s: float | None,
    added_s: tuple[NDArray[np.float64], ...],
) -> tuple[str, ...]:
    """Conditions of THEORY 2.6 that fail, each with its number; the last three need ΔT*."""
    found = []
    if curve.method != "closed-form" and not curve.server.iteration_time.is_affine:
        knots = len(curve.server.iteration_time.tokens_knots)
        found.append(
            f"iteration time is not affine in tokens ({knots} knots): "
            "equilibrium and latencies are approximate"
        )
    if iteration_s is None:
        return tuple(found)
    if utilisation > 0.8:
        found.append(f"utilisation {utilisation:.3f} is above 0.8: latencies are underestimated")
    per_stage = curve.flow.rates_per_s * iteration_s
    residents = float(per_stage @ [one.count for one in curve.stages])
    if residents < 5:
        found.append(
            f"only {residents:.2f} requests in service on average, fewer than 5: "
            "latencies are approximate"
        )
    prefill_s = [
        float(own_s[~stages.decodes].sum())
        for stages, own_s in zip(curve.stages, added_s, strict=True)
    ]
    lumps = float(per_stage @ np.square(prefill_s)) / iteration_s**2
    if lumps > 0.05:
        found.append(
            f"prefills come in lumps, Σ n·w0²/ΔT² = {lumps:.3f} is above 0.05: "
            "latencies are underestimated"
        )
    return tuple(found)

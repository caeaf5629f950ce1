"""What a user must know before trusting an equilibrium: conditions that do not hold, in sentences.

Those of THEORY 2.6, the batches that the server's iteration time was measured on, and rates that
vary over time.
"""

from __future__ import annotations

import numpy as np

from fluid.steady.intake import Added, Intake
from fluid.steady.packing import ENOUGH, quick_scale
from fluid.steady.stability import Stability
from fluid.workload import Workload


def range_caveats(
    curve: Intake, balance_intake_s: float | None, boundary_intake_s: float
) -> tuple[str, ...]:
    """One sentence for each quantity of the batches that leaves the server's measured range.

    Args:
        balance_intake_s: Intake at equilibrium in seconds; None where there is none.
        boundary_intake_s: Intake at the largest stable multiple of the rates.
    """
    measured = curve.server.measured_range
    if measured is None:
        return ()
    kv_read_per_s = float(curve.flow.rates_per_s @ curve.sums.kv_read_tokens)
    per_s = {
        "tokens": curve.flow.tokens_per_s,
        "kv_tokens": kv_read_per_s,
        "decode_requests": curve.flow.decodes_per_s,
    }
    places = {"at the edge of stability": boundary_intake_s}
    if balance_intake_s is not None:
        places = {"at equilibrium": balance_intake_s} | places
    found = []
    for quantity, rate in per_s.items():
        for place, intake_s in places.items():
            # Whatever the mean says, an iteration computes at least one token.
            value = max(rate * intake_s, 1.0) if quantity == "tokens" else rate * intake_s
            wrong = measured.outside(quantity, value)
            if wrong:
                found.append(f"{place} an iteration has {wrong}: its time is extrapolated")
                break
    # The longest prompt that is outside: the longest of all, or else one that is too short.
    prompts = np.unique(curve.flow.prompt_tokens[curve.flow.prompt_tokens > 0])
    least, most = measured.prompt_tokens
    outside = prompts[(prompts < least) | (prompts > most)]
    if len(outside):
        wrong = measured.outside("prompt_tokens", int(outside[-1]))
        found.append(f"a request has {wrong}: the time of its prefill is extrapolated")
    return tuple(found)


def profile_caveats(workload: Workload, max_scale: float) -> tuple[str, ...]:
    """What a constant-rate equilibrium does not say about rates that vary (THEORY 5.1)."""
    if workload.rate_profile is None:
        return ()
    peak = float(workload.factors.max())
    if np.ptp(workload.factors, axis=1).max() > 0:
        within = "is within" if peak <= max_scale else "may be above"
        return (
            "rates and mix vary over time: these figures are for their long-run mean; the peak, no "
            f"class above {peak:.4g} times its mean, {within} the largest stable multiple "
            f"{max_scale:.4g}",
        )
    overload = "above" if peak > max_scale else "within"
    return (
        f"rates vary over time: these figures are for their long-run mean; the peak, {peak:.4g} "
        f"times the mean, is {overload} the largest stable multiple {max_scale:.4g}",
    )


def approximation_caveats(curve: Intake) -> tuple[str, ...]:
    """Where balance and boundary are no closed form (THEORY 2.5)."""
    if curve.server.iteration_time.is_affine:
        return ()
    knots = len(curve.server.iteration_time.tokens_knots)
    return (
        f"iteration time is not affine in tokens ({knots} knots): equilibrium and boundary are "
        "approximate",
    )


def packing_caveats(curve: Intake, boundary: Stability) -> tuple[str, ...]:
    """Where the memory term of THEORY 2.3 may not be sufficient, by a cheap test."""
    scale = quick_scale(curve, boundary)
    if not boundary.stable or scale >= min(1.0, ENOUGH * boundary.max_scale):
        return ()
    return (
        "few requests fit into the memory at once, and whole requests may not fill it: stable is "
        f"certain up to {scale:.4g} times these rates at least (capacity, query rate, says more)",
    )


def condition_caveats(
    curve: Intake,
    utilisation: float,
    iteration_s: float | None,
    added: Added | None,
) -> tuple[str, ...]:
    """Conditions of THEORY 2.6 that fail, each with its number; the last three need ΔT*.

    Args:
        iteration_s: ΔT*; None where there is none.
        added: What the stages of a request add to it; None alike.
    """
    found = []
    if not curve.server.iteration_time.is_affine:
        found.append("iteration time is not affine in tokens: latencies are approximate")
    if iteration_s is None or added is None:
        return tuple(found)
    if utilisation > 0.8:
        found.append(f"utilisation {utilisation:.3f} is above 0.8: latencies are underestimated")
    per_stage = curve.flow.rates_per_s * iteration_s
    residents = float(per_stage @ curve.sums.count)
    if residents < 5:
        found.append(
            f"only {residents:.2f} requests in service on average, fewer than 5: "
            "latencies are approximate"
        )
    lumps = float(per_stage @ added.prefill_s**2) / iteration_s**2
    if lumps > 0.05:
        found.append(
            f"prefills come in lumps, Σ n·w0²/ΔT² = {lumps:.3f} is above 0.05: "
            "latencies are underestimated"
        )
    return tuple(found)

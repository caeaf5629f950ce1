"""Does a workload leave the batches that the server's iteration time was measured on?"""

from __future__ import annotations

from fluid.steady.intake import Intake


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
    kv_read_per_s = float(
        curve.flow.rates_per_s @ [one.kv_tokens[one.decodes].sum() for one in curve.stages]
    )
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
    prompts = curve.flow.prompt_tokens[curve.flow.prompt_tokens > 0].tolist()
    wrong_prompts = [measured.outside("prompt_tokens", one) for one in sorted(prompts)]
    wrong = next((one for one in reversed(wrong_prompts) if one), None)
    if wrong:
        found.append(f"a request has {wrong}: the time of its prefill is extrapolated")
    return tuple(found)

"""Tables where few requests share the memory (THEORY 2.3): what is certain, and a cap.

With no more in service than fit at their peaks nothing is ever evicted, and a backlog keeps all
places taken, so that the rate a cap reaches is known. Where the load needs more than that, a
schedule that carries it exists up to the inner bound, but no pace, cap or watermark is proven to
follow one.
"""

from __future__ import annotations

from fluid.errors import InfeasibleError
from fluid.server import Server
from fluid.steady.packing import Packing
from fluid.workload import Workload
from thresholds.fields import Condition
from thresholds.limits import Limits
from thresholds.solvers.certificate import condition
from thresholds.solvers.common import rounded_down


def require_certain(packed: Packing, workload: Workload, server: Server) -> None:
    """Refuse a load of which nobody knows whether it can be carried.

    Raises:
        InfeasibleError: The rates lie between the two bounds.
    """
    if packed.is_certain:
        return
    raise InfeasibleError(
        f"whether server {server.name} carries workload {workload.name} is not certain: few "
        "requests share the memory, schedules of whole requests are known to reach "
        f"{packed.inner_scale:.4g} times its rates, and the fluid bound is {packed.fluid_scale:.4g}"
        " times",
        "packing of memory",
        f"multiply all rates by at most {rounded_down(packed.inner_scale)}, or raise "
        "kv_capacity_tokens",
        packed.inner_scale,
    )


def is_capped(packed: Packing) -> bool:
    """Whether a cap on the residents is proven to carry the load, and is needed for that."""
    return packed.matters and packed.capped_scale >= 1


def inner_condition(packed: Packing) -> tuple[Condition, ...]:
    """What is certain for whole requests; nothing to say where many share the memory."""
    if not packed.matters:
        return ()
    return (condition("whole requests: 1/(inner bound) ≤ 1", 1 / packed.inner_scale, 1.0),)


def packing_conditions(packed: Packing) -> tuple[Condition, ...]:
    """The same, and what is certain with a cap."""
    if not is_capped(packed):
        return inner_condition(packed)
    text = f"cap of {packed.cap_requests}: Σ λ (w + d0·S/cap) ≤ 1"
    return (*inner_condition(packed), condition(text, 1 / packed.capped_scale, 1.0))


def largest_rate(packed: Packing, workload: Workload, limits: Limits) -> float:
    """Total rate in requests per second up to which the table is valid."""
    if limits == Limits(cap_requests=packed.cap_requests) and is_capped(packed):
        return packed.capped_scale * workload.rate_per_s
    return packed.certain_scale * workload.rate_per_s


def packing_notes(packed: Packing, limits: Limits | None) -> tuple[str, ...]:
    """What is proven of a table where few requests share the memory.

    Args:
        limits: None for a table of another policy.
    """
    if not packed.matters:
        return ()
    bounds = (
        f"few requests share the memory: schedules of whole requests are known to carry "
        f"{packed.inner_scale:.4g} times these rates, the fluid bound is {packed.fluid_scale:.4g} "
        "times"
    )
    if limits == Limits(cap_requests=packed.cap_requests):
        proof = (
            f"so many requests fit whatever their ages, so that the cap of {packed.cap_requests} "
            "never evicts"
        )
    else:
        proof = (
            "that these limits follow such a schedule is not proven (a cap without evictions is "
            f"proven for {packed.capped_scale:.4g} times the rates only): check by replay"
        )
    return bounds, proof

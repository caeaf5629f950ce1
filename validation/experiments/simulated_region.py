"""The region that a policy carries in simulation: bisection along mixes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fluid.steady.region import StabilityRegion, mixed
from fluid.workload import Workload
from thresholds.solvers.paced.solver import Paced
from validation.experiments.largest_rate import find_capacity
from validation.experiments.replay import policy_of
from validation.experiments.store import Store
from validation.policies import ConfiguredPolicy, parse_policy
from validation.simulator.model import poisson_model

SOLVED = Paced.policy
"""The policy name that stands for the table solved anew at each mix."""

_DESIGN = 0.9
"""Share of the fluid boundary at which tables are solved; a paced table depends on the mix only."""


@dataclass(frozen=True)
class SimulatedPoint:
    """The boundary of a policy along one mix.

    Attributes:
        policy: The policy with its parameters at this mix.
        fluid_per_s: The fluid boundary along the mix, shape (m,).
        stable_per_s: Highest rates found stable, shape (m,); None where none was.
        share: Total of `stable_per_s` ÷ total of `fluid_per_s`; 0 where none was stable.
    """

    policy: str
    fluid_per_s: tuple[float, ...]
    stable_per_s: tuple[float, ...] | None
    share: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the field names as keys, ready for JSON."""
        return asdict(self)


def simulated_boundary(
    region: StabilityRegion,
    policy: str,
    mixes: int = 9,
    *,
    replications: int = 20,
    requests: int = 20_000,
    seed: int = 0,
    store: Store | None = None,
    on_done: Callable[[], None] | None = None,
) -> list[SimulatedPoint]:
    """Bisect a policy's largest stable rate along mixes from one axis to the other (two classes).

    Args:
        policy: ``NAME[:key=value,…]`` of the simulator, or "paced" for the table solved at each
            mix.
        on_done: Called after each mix.

    Raises:
        InputError: An unknown policy, or a region that does not have two classes.
    """
    fluid = region.boundary(mixes)
    parsed = None if policy == SOLVED else parse_policy(policy)
    points = []
    for edge in fluid:
        workload = mixed(region.workload, edge)
        configured = parsed or _paced(workload, region)
        found = find_capacity(
            poisson_model(workload, region.server),
            configured,
            workload.rate_per_s,
            replications=replications,
            requests=requests,
            seed=seed,
            store=store,
        )
        share = (found.largest_stable_rate_per_s or 0.0) / workload.rate_per_s
        stable = tuple((share * edge).tolist()) if share else None
        points.append(SimulatedPoint(configured.label, tuple(edge.tolist()), stable, share))
        if on_done:
            on_done()
    return points


def check_policy(policy: str) -> None:
    """Refuse a policy before any work is spent on it.

    Raises:
        InputError: It is neither "paced" nor a policy of the simulator.
    """
    if policy != SOLVED:
        parse_policy(policy)


def _paced(workload: Workload, region: StabilityRegion) -> ConfiguredPolicy:
    return policy_of(Paced().solve(workload.scaled(_DESIGN), region.server))

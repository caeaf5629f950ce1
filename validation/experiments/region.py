"""All rates that a server carries: the fluid region, what theorems guarantee, what policies do.

What a policy carries in simulation is searched for along mixes (`largest_rate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server
from fluid.steady.chunks import ChunkLimit, chunked, require_budget
from fluid.steady.packing import ENOUGH, Packing, packing
from fluid.steady.region import StabilityRegion, mixed
from fluid.workload import Workload
from thresholds.guaranteed import nested_boundary, wait_boundary
from thresholds.solvers.paced.solver import Paced
from validation.experiments.following import policy_of
from validation.experiments.largest_rate import largest_stable_rate
from validation.experiments.store import Store, opened
from validation.policies import ConfiguredPolicy, PolicyLike, parse_policy
from validation.simulator.runs import Runs

if TYPE_CHECKING:
    from fluid.plots.style import Panels

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


@dataclass(frozen=True, repr=False)
class Region(Result, StabilityRegion):
    """The fluid region, and boundaries of policies inside it.

    Attributes:
        simulated: By policy, its boundary along mixes from one axis to the other.
        budget_tokens: Of an engine that computes prompts in chunks, where that is asked about.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(
    ...     chat=fw.Requests(2.0, prompt=512, output=100),
    ...     code=fw.Requests(1.0, prompt=512, output=300),
    ... )
    >>> fw.region(load, fw.Server.named("paper-long-decode")).sentence
    'INSIDE: the workload takes 17.4 % of the boundary load along its mix; 82.6 % is free.'
    """

    simulated: Mapping[str, tuple[SimulatedPoint, ...]] = field(default_factory=dict)
    budget_tokens: int | None = None

    @cached_property
    def margin(self) -> float:
        """1 − 1/α* of the workload along its own mix: what is free; negative outside."""
        return 1 - 1 / self.reach(self.operating_point_per_s)

    @cached_property
    def packing(self) -> Packing:
        """What schedules of whole requests are known to reach along the workload's own mix."""
        return packing(self.workload, self.server)

    @cached_property
    def chunked(self) -> ChunkLimit:
        """The limit of the workload's mix with prompts in chunks (THEORY 5.6)."""
        return chunked(self.workload, self.server, self.budget_tokens)

    @cached_property
    def certain_alone_per_s(self) -> NDArray[np.float64]:
        """The rate that each class is certain to reach alone, shape (m,) (THEORY 2.3)."""
        scales = [
            packing(mixed(self.workload, axis), self.server).certain_scale
            for axis in np.eye(len(self.names))
        ]
        return np.array(scales)

    @property
    def packs(self) -> bool:
        """Whether whole requests fill the region within 1 %: each class alone, and the mix."""
        alone = self.certain_alone_per_s >= ENOUGH * self.intercepts_per_s
        return bool(alone.all()) and not self.packing.matters

    @property
    def is_certain(self) -> bool:
        """Whether the workload lies inside: where whole requests are known to fit, and the budget.

        With a budget the engine chunks, and its own limit takes the place of that of whole prompts.
        """
        if self.budget_tokens is not None:
            packed = self.packing.certain_scale / self.packing.fluid_scale
            return self.chunked.scale * packed >= 1
        return self.margin >= 0 and self.packing.is_certain

    @cached_property
    def guaranteed_per_s(self) -> dict[str, NDArray[np.float64]]:
        """By rule, the boundary that theorems guarantee for two classes, points of shape (k, 2)."""
        return {
            "whole WAIT thresholds": wait_boundary(self),
            "Nested WAIT with its buffer (1 % in an hour)": nested_boundary(self),
        }

    def blocks(self) -> Iterator[Block]:
        normal = self.normal_s
        columns = {
            "class": self.names,
            "rate /s": _numbers(self.operating_point_per_s),
            "largest rate alone /s": _numbers(self.intercepts_per_s),
            "certain alone /s": () if self.packs else _numbers(self.certain_alone_per_s),
            "normal a s": ["–"] * len(self.names) if normal is None else _numbers(normal),
        }
        columns = {heading: cells for heading, cells in columns.items() if cells}
        title = f"Stability region of {self.workload.name} on {self.server.name}"
        rows = tuple(zip(*columns.values(), strict=True))
        yield Table(title, tuple(columns), rows, spare=("normal a s",))
        for policy, found in self.simulated.items():
            yield self._boundary_table(policy, found)
        if normal is None:
            yield (
                "The server's iteration time is not affine: the boundary is traced, not a "
                "half-space."
            )
        else:
            yield (
                "Exact half-space: stable where Σ λ·a ≤ 1."
                if self.packs
                else "Half-space Σ λ·a ≤ 1: necessary for whole requests; few of them fit at once."
            )
        yield self.sentence
        if self.chunked.matters or self.budget_tokens:
            yield self.chunked.sentence(self.workload.rate_per_s)

    @property
    def sentence(self) -> str:
        """Where the workload lies."""
        load = percent(1 - self.margin)
        if self.margin >= 0 and self.packing.matters:
            inner = self.packing.inner_scale
            bounds = f"{inner:.4g} times these rates are certain, {1 / (1 - self.margin):.4g} times"
            if inner >= 1:
                return f"INSIDE: {bounds} the fluid bound, as few requests fit at once."
            return (
                f"NOT CERTAIN: {bounds} the fluid bound, as few requests fit at once; "
                f"multiply all rates by at most {inner:.4g} to be certain."
            )
        if self.margin >= 0:
            return (
                f"INSIDE: the workload takes {load} of the boundary load along its mix; "
                f"{percent(self.margin)} is free."
            )
        return (
            f"OUTSIDE: the workload is {load} of the boundary load along its mix; "
            f"multiply all rates by at most {1 / (1 - self.margin):.4g}."
        )

    def _boundary_table(self, policy: str, found: Iterable[SimulatedPoint]) -> Table:
        first, second = self.names
        rows = []
        for one in found:
            rates = one.stable_per_s or (None, None)
            share = percent(one.share) if one.stable_per_s else "–"
            rows.append((one.policy, number(rates[0]), number(rates[1]), share))
        columns = ("policy", f"{first} /s", f"{second} /s", "of fluid")
        return Table(f"Simulated boundary of {policy}", columns, tuple(rows))

    def document(self) -> dict[str, Any]:
        normal = self.normal_s
        document: dict[str, Any] = {
            "workload": self.workload.name,
            "server": self.server.name,
            "classes": list(self.names),
            "rates_per_s": self.operating_point_per_s.tolist(),
            "normal_s": None if normal is None else normal.tolist(),
            "vertices_per_s": self.vertices_per_s.tolist(),
            "boundary_per_s": self.boundary().tolist() if len(self.names) == 2 else None,
            "margin": self.margin,
            "certain_scale": self.packing.certain_scale,
            "certain_alone_per_s": self.certain_alone_per_s.tolist(),
            "chunked": self.chunked.document(self.workload.rate_per_s),
        }
        if self.simulated:
            document["simulated"] = {
                policy: [asdict(one) for one in found] for policy, found in self.simulated.items()
            }
        return document

    def plot(self, ax: Panels | None = None) -> Panels:
        """The region of two classes: the fluid boundary, guaranteed ones, simulated ones.

        Raises:
            InputError: The region does not have two classes.
        """
        from fluid.plots.steady import draw_region
        from fluid.plots.style import panels
        from validation.experiments.pictures import draw_boundaries

        require_two_classes(self.workload, "a picture")
        simulated = {
            policy: np.array([one.stable_per_s for one in found if one.stable_per_s]).reshape(-1, 2)
            for policy, found in self.simulated.items()
        }
        with panels(ax, (6, 5)) as axes:
            draw_region(axes, self)
            draw_boundaries(axes, self.guaranteed_per_s, simulated)
            axes.legend()
        return axes


def region(
    workload: Workload,
    server: Server,
    policies: Iterable[PolicyLike] = (),
    mixes: int = 9,
    runs: Runs = Runs(6, 15_000),
    *,
    budget_tokens: int | None = None,
    store: Store | str | Path | None = None,
    on_done: Callable[[], None] | None = None,
) -> Region:
    """All rates of the workload's classes that the server carries.

    Args:
        policies: Whose boundaries to simulate, for two classes: as `policy` makes them, as text
            that `parse_policy` reads, or "paced" for the table solved anew at each mix.
        mixes: How many mixes of the two classes, from one axis to the other.
        budget_tokens: Of an engine that computes prompts in chunks: its limit is said beside that
            of whole prompts.
        store: Folder that keeps finished rows; those that it holds are not run again.
        on_done: Called after each mix of each policy.

    Raises:
        InputError: An unknown policy, fewer than two mixes, policies where there are not two
            classes, or a budget that does not suit the server.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(
    ...     chat=fw.Requests(2.0, prompt=512, output=100),
    ...     code=fw.Requests(1.0, prompt=512, output=300),
    ... )
    >>> found = fw.region(load, fw.Server.named("paper-long-decode"))
    >>> found.intercepts_per_s.round(2).tolist()
    [23.78, 11.09]
    """
    require_budget(server, budget_tokens)
    found = Region(workload, server, budget_tokens=budget_tokens)
    given = [policies] if isinstance(policies, str | ConfiguredPolicy) else list(policies)
    if not given:
        return found
    require_two_classes(workload, "simulated boundaries")
    named = {_name(one): _parsed(one) for one in given}
    with opened(store) as rows:
        simulated = {
            name: tuple(_boundary(found, policy, mixes, runs, rows, on_done))
            for name, policy in named.items()
        }
    return replace(found, simulated=simulated)


def require_two_classes(workload: Workload, what: str) -> None:
    """
    Raises:
        InputError: The workload does not have two classes.
    """
    if len(workload.classes) != 2:
        raise InputError("classes", len(workload.classes), f"two classes for {what}")


def _numbers(values: NDArray[np.float64]) -> list[str]:
    return [number(one) for one in values.tolist()]


def _name(policy: PolicyLike) -> str:
    return policy if isinstance(policy, str) else policy.label


def _parsed(policy: PolicyLike) -> ConfiguredPolicy | None:
    """None for the table solved at each mix."""
    if policy == SOLVED:
        return None
    return parse_policy(policy) if isinstance(policy, str) else policy


def _boundary(
    region: StabilityRegion,
    policy: ConfiguredPolicy | None,
    mixes: int,
    runs: Runs,
    store: Store | None,
    on_done: Callable[[], None] | None,
) -> Iterator[SimulatedPoint]:
    """The largest stable rate along each mix."""
    for edge in region.boundary(mixes):
        workload = mixed(region.workload, edge)
        configured = policy or _paced(workload, region.server)
        found = largest_stable_rate(
            workload,
            region.server,
            configured,
            start_per_s=workload.rate_per_s,
            runs=runs,
            store=store,
        )
        share = (found.largest_stable_rate_per_s or 0.0) / workload.rate_per_s
        stable = tuple((share * edge).tolist()) if share else None
        yield SimulatedPoint(configured.label, tuple(edge.tolist()), stable, share)
        if on_done:
            on_done()


def _paced(workload: Workload, server: Server) -> ConfiguredPolicy:
    return policy_of(Paced().solve(workload.scaled(_DESIGN), server))

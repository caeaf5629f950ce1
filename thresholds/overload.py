"""Which share of which class to admit when the load is above capacity (THEORY 2.3, 5).

    maximise Σ weight_j λ_j x_j   subject to   Σ a_j λ_j x_j ≤ 1,  0 ≤ x_j ≤ 1

with the half-space a of the stable region: a linear program with one constraint, so that its
optimum admits whole classes by falling weight_j/a_j and at most one in part. Where the server is
not affine, a is the tangent of the region's boundary in the direction of the workload's mix, and
the shares are scaled until the server's own iteration time carries them.

Where few requests share the memory the half-space is only necessary. What is known to be carried of
some mixes (`fluid.steady.packing`), one after the other in time, is then a second linear program,
and of the mixes that are tried the one worth most at its own inner bound is admitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.linear import best_point
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server
from fluid.steady.derivatives import margin_derivatives
from fluid.steady.packing import packing
from fluid.steady.region import mixed
from fluid.steady.stability import Stability, stability
from fluid.workload import Workload

Floats = NDArray[np.float64]

_INSIDE = 1e-6
"""Distance that the admitted load keeps from the boundary."""

_ALONE = 8
"""Most classes of which each by itself is among the mixes that are tried."""


@dataclass(frozen=True, repr=False)
class Admission(Result):
    """What to let in.

    Attributes:
        offered: The load that asks to be let in.
        shares: x_j by class name.
        workload: The admitted load; classes with share 0 are left out.
        load: The admitted load ÷ the largest multiple of it that is certain to be carried, at most
            1: of the fluid bound, or of the inner bound where few requests share the memory.
        weight_per_s: Σ weight_j λ_j x_j.
        is_optimal: Whether no other shares are worth more: the server is affine, and memory is
            shared by so many that the fluid bound is certain.
    """

    offered: Workload
    shares: dict[str, float]
    workload: Workload
    load: float
    weight_per_s: float
    is_optimal: bool

    @property
    def is_whole(self) -> bool:
        """Whether nobody is turned away."""
        return all(share == 1 for share in self.shares.values())

    @property
    def sentence(self) -> str:
        """The shares in one sentence."""
        named = ", ".join(f"{share:.1%} of {name}" for name, share in self.shares.items())
        return f"the load is above capacity; admit {named}, turn the rest away"

    def blocks(self) -> Iterator[Block]:
        """Shares by class, then how much of the server they take."""
        yield Table(
            f"Admission of {self.offered.name}",
            ("class", "offered /s", "weight", "admit"),
            tuple(
                (one.name, number(one.rate_per_s), number(one.weight), percent(share))
                for one, share in zip(self.offered.classes, self.shares.values(), strict=True)
            ),
            spare=("weight",),
        )
        worth = "no other shares are worth more" if self.is_optimal else "not proven to be the best"
        yield f"The admitted load takes {percent(self.load)} of the server; {worth}."

    def document(self) -> dict[str, Any]:
        """The attributes, with the admitted load as in its own file."""
        return {
            "shares": self.shares,
            "load": self.load,
            "weight_per_s": self.weight_per_s,
            "is_optimal": self.is_optimal,
            "workload": self.workload.document(),
        }

    def frame(self) -> dict[str, list[Any]]:
        """One row per class."""
        return {
            "name": list(self.shares),
            "offered_per_s": [one.rate_per_s for one in self.offered.classes],
            "weight": [one.weight for one in self.offered.classes],
            "share": list(self.shares.values()),
        }


def admission(workload: Workload, server: Server) -> Admission:
    """The shares that are worth most; all of it where the workload is certain to be carried.

    Raises:
        InputError: One request of a class does not fit into the cache.
    """
    here = stability(workload, server)
    rates = workload.rates_per_s
    packed = packing(workload, server)
    if here.stable and packed.is_certain:
        return _admission(workload, server, np.ones_like(rates), is_optimal=True)
    weights = np.array([one.weight for one in workload.classes])
    shares = np.ones_like(rates)
    if not here.stable:
        normal_s = _normal_s(workload, server, here)
        shares = best_shares(weights * rates, normal_s * rates * (1 + _INSIDE))
    found = _admission(workload, server, shares, is_optimal=here.half_space_per_s is not None)
    if not (packed.matters or packing(found.workload, server).matters):
        return found
    mixes = [rates * one for one in _mixes(shares)]
    carried = np.array([_reach(mixed(workload, one), server) * one for one in mixes])
    mixes.append(_in_turns(carried, rates, weights))
    tried = [_admission(workload, server, one / rates, is_optimal=False) for one in mixes]
    return max(tried, key=lambda one: one.weight_per_s)


def _normal_s(workload: Workload, server: Server, here: Stability) -> Floats:
    """The half-space of the region, or its tangent in the direction of the mix; shape (m,)."""
    if here.half_space_per_s is not None:
        return here.half_space_per_s
    at_boundary = workload.scaled(here.max_scale)
    derivatives, _ = margin_derivatives(at_boundary, server)
    slopes_s = [-derivatives[f"rate_per_s[{one.name}]"] for one in workload.classes]
    return np.asarray(np.maximum(slopes_s, np.finfo(float).tiny))


def _mixes(shares: Floats) -> Iterator[Floats]:
    """Shares by the fluid bound, all classes alike, and each class alone; shape (m,) each."""
    yield shares
    yield np.ones_like(shares)
    if len(shares) <= _ALONE:
        yield from np.eye(len(shares))


def _in_turns(carried: Floats, rates: Floats, weights: Floats) -> Floats:
    """Rates worth most of what is carried by mixes that run in turns; carried (mixes, m)."""
    from scipy.optimize import linprog

    mixes, classes = carried.shape
    found = linprog(
        c=np.append(np.zeros(mixes), -weights / weights.max()),
        A_ub=np.block([[-carried.T, np.eye(classes)], [np.ones(mixes), np.zeros(classes)]]),
        b_ub=np.append(np.zeros(classes), 1.0),
        bounds=[(0, None)] * mixes + [(0, float(one)) for one in rates],
    )
    assert found.x is not None
    return np.asarray(np.clip(found.x[mixes:], 0.0, rates))


def best_shares(worth: Floats, load: Floats) -> Floats:
    """x in [0, 1]^m with the largest Σ worth_j x_j under Σ load_j x_j ≤ 1; all arrays (m,)."""
    found = best_point(c=-worth / worth.max(), A_ub=load[None], b_ub=[1.0], bounds=(0, 1))
    return np.asarray(np.clip(found, 0, 1))


def _admission(
    workload: Workload, server: Server, shares: Floats, *, is_optimal: bool
) -> Admission:
    """The result, with shares scaled down where the server is not certain to carry them."""
    rates = workload.rates_per_s
    reach = _reach(mixed(workload, rates * shares), server)
    shares = shares * min(1.0, (1 - _INSIDE) * reach)
    admitted = mixed(workload, rates * shares)
    weights = np.array([one.weight for one in workload.classes])
    return Admission(
        offered=workload,
        shares={one.name: float(x) for one, x in zip(workload.classes, shares, strict=True)},
        workload=admitted,
        load=1 / _reach(admitted, server),
        weight_per_s=float(weights @ (rates * shares)),
        is_optimal=is_optimal,
    )


def _reach(load: Workload, server: Server) -> float:
    """The largest multiple of a load that is certain to be carried."""
    return min(stability(load, server).max_scale, packing(load, server).certain_scale)

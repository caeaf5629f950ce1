"""The fluid stability region over all rate vectors of a set of classes (THEORY 2.3, 2.5).

For affine servers the region is one simplex, {λ ≥ 0 : Σ λ_j a_j ≤ 1} with a_j = w_j + d0·m_j/C
(arXiv 2504.11320 Sec. 3), and everything here is exact, with memory filled by averages: few large
requests may leave part of it empty (`fluid.steady.packing`). For any other server it is star-shaped
and decreasing (a smaller load stays stable), and its boundary is traced along mixes by
`fluid.steady.stability`.

Directions are *shares*: rates are first divided by the largest rate that each class reaches alone,
so that a share s stands for the mix proportional to s_j·v_j. The boundary of an affine server is
then the straight line Σ s_j = 1, whatever the units of its classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server, require_fits
from fluid.steady.intake import Method
from fluid.steady.stability import largest_scale, stability
from fluid.workload import Workload

if TYPE_CHECKING:
    from fluid.plots.style import Panels

Floats = NDArray[np.float64]

DIRECTIONS = 33
"""Mixes along which the boundary of two classes is traced."""


@dataclass(frozen=True)
class Slice:
    """The region of the free classes where the rates of all others are fixed, k free classes.

    Attributes:
        names: Free classes in the order of the workload.
        fixed_load: Share of the boundary load that the fixed rates take alone.
        normal_s: b with Σ b_i λ_i ≤ 1 over the free classes, shape (k,); None if not affine.
        vertices_per_s: Row i: the largest rate of free class i, all other free ones 0; (k, k).
        boundary_per_s: Points of the boundary between the vertices: shape (directions, 2) for two
            free classes, the vertices otherwise.
    """

    names: tuple[str, ...]
    fixed_load: float
    normal_s: Floats | None
    vertices_per_s: Floats
    boundary_per_s: Floats


@dataclass(frozen=True)
class StabilityRegion:
    """All stable rate vectors of the workload's classes on a server.

    The workload's own rates matter only to `operating_point_per_s`. Methods that take rates accept
    any shape (..., m), in requests per second.

    Attributes:
        method: As for `stability`; "mean" or "poisson" make the region a traced
            one also where the server is affine.
    """

    workload: Workload
    server: Server
    method: Method | None = None

    def __post_init__(self) -> None:
        require_fits(self.workload, self.server)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, m entries."""
        return tuple(one.name for one in self.workload.classes)

    @property
    def operating_point_per_s(self) -> Floats:
        """The workload's own rates, shape (m,)."""
        return self.workload.rates_per_s

    @cached_property
    def normal_s(self) -> Floats | None:
        """a_j in seconds of the half-space (THEORY 2.3), shape (m,); None if not affine."""
        return stability(self.workload, self.server, self.method).half_space_per_s

    @cached_property
    def intercepts_per_s(self) -> Floats:
        """The largest rate of each class alone, 1/a_j for affine servers, shape (m,)."""
        if self.normal_s is not None:
            return 1 / self.normal_s
        return np.array([self.reach(axis) for axis in np.eye(len(self.names))])

    @property
    def vertices_per_s(self) -> Floats:
        """Row j: the end of axis j, shape (m, m); with 0 the corners of an affine region."""
        return np.diag(self.intercepts_per_s)

    def reach(self, mix: ArrayLike) -> float:
        """α*: the largest multiple of the rate vector `mix`, shape (m,), that is stable.

        Raises:
            InputError: A rate is negative or not finite, or all are 0.
        """
        rates = self._checked(mix)
        if rates.ndim != 1 or not rates.any():
            raise InputError("mix", rates.tolist(), f"{len(self.names)} rates, not all 0")
        if self._is_affine:
            return 1 / float(rates @ self._half_space)
        return largest_scale(mixed(self.workload, rates), self.server, self.method)

    def boundary(self, directions: int = DIRECTIONS) -> Floats:
        """Points on the boundary, from one axis to the other, shape (directions, 2).

        Raises:
            InputError: The region does not have two classes, or fewer than two directions.
        """
        if len(self.names) != 2:
            raise InputError("classes", len(self.names), "two, or a slice that leaves two free")
        mixes = shares(directions) * self.intercepts_per_s
        if directions == DIRECTIONS:
            return np.asarray(mixes * (1 / self.traced_load[1])[:, None])
        return np.array([self.reach(mix) * mix for mix in mixes])

    @cached_property
    def traced_load(self) -> tuple[Floats, Floats]:
        """Shares of the second class and the load 1/α* of the vertices' mix there, for two classes.

        Each of shape (33,); the load is 1 throughout for an affine server.
        """
        mixes = shares(DIRECTIONS) * self.intercepts_per_s
        return shares(DIRECTIONS)[:, 1], np.array([1 / self.reach(mix) for mix in mixes])

    def interpolation_error(self) -> float:
        """Largest relative error of `loads` half-way between the traced mixes (two classes).

        Zero for affine servers, where nothing is interpolated.
        """
        if self._is_affine:
            return 0.0
        known, _ = self.traced_load
        between = (known[:-1] + known[1:]) / 2
        mixes = np.column_stack([1 - between, between]) * self.intercepts_per_s
        exact = np.array([1 / self.reach(mix) for mix in mixes])
        return float(np.abs(self.loads(mixes) / exact - 1).max())

    def loads(self, rates_per_s: ArrayLike) -> Floats:
        """1/α* of every rate vector: the share of the boundary load that it is; shape (...).

        Affine: Σ λ_j a_j, exact. Two classes otherwise: interpolated between 33 traced mixes, on
        the built-in A100 server within 0.15 % for prompts and outputs of 16 to 4,000 tokens and
        within 1.2 % if one class is a single token; `interpolation_error` measures it. More classes
        otherwise: one stability problem per vector, 8 to 150 ms each.

        Raises:
            InputError: A rate is negative or not finite, or the last axis does not have length m.
        """
        rates = self._checked(rates_per_s)
        if self._is_affine:
            return np.asarray(rates @ self._half_space)
        if len(self.names) == 2:
            parts = rates / self.intercepts_per_s
            total = parts.sum(axis=-1)
            known, traced = self.traced_load
            share = parts[..., 1] / np.where(total > 0, total, 1.0)
            return np.asarray(total * np.interp(share, known, traced))
        flat = rates.reshape(-1, len(self.names))
        loads = [1 / self.reach(one) if one.any() else 0.0 for one in flat]
        return np.array(loads).reshape(rates.shape[:-1])

    def contains(self, rates_per_s: ArrayLike) -> NDArray[np.bool_]:
        """Whether each rate vector is stable, shape (...); accuracy and errors as for `loads`."""
        return np.asarray(self.loads(rates_per_s) <= 1)

    def margins(self, rates_per_s: ArrayLike) -> Floats:
        """1 − 1/α* of every rate vector, negative outside, shape (...); as for `loads`."""
        return np.asarray(1 - self.loads(rates_per_s))

    def slice(self, fixed_per_s: Mapping[str, float], directions: int = DIRECTIONS) -> Slice:
        """The region of the other classes where some have fixed rates.

        Raises:
            InputError: An unknown class, a negative rate, or no class left free.
            InfeasibleError: The fixed rates are unstable alone.
        """
        for name in fixed_per_s:
            if name not in self.names:
                raise InputError("fixed", name, "one of " + ", ".join(self.names))
        fixed = self._checked([fixed_per_s.get(name, 0.0) for name in self.names])
        free = np.array([name not in fixed_per_s for name in self.names])
        if not free.any():
            raise InputError("fixed", sorted(fixed_per_s), "at least one class left free")
        load = 1 / self.reach(fixed) if fixed.any() else 0.0
        if load >= 1:
            raise InfeasibleError(
                f"the fixed rates take {load:.3f} of the boundary load alone",
                "fixed rates",
                f"multiply them by less than {1 / load:.4g}",
                1 / load,
            )
        axes = np.eye(len(self.names))[free] * self.intercepts_per_s
        vertices = np.array([self._reach_from(fixed, one) * one for one in axes])
        points = vertices
        if len(vertices) == 2:
            mixes = shares(directions)[1:-1] @ vertices
            inner = [self._reach_from(fixed, one) * one for one in mixes]
            points = np.array([vertices[0], *inner, vertices[1]])
        return Slice(
            names=tuple(np.array(self.names)[free].tolist()),
            fixed_load=load,
            normal_s=self._half_space[free] / (1 - load) if self._is_affine else None,
            vertices_per_s=vertices[:, free],
            boundary_per_s=points[:, free],
        )

    def plot(self, ax: Panels | None = None) -> Panels:
        """The region of two classes with the workload's operating point.

        Raises:
            InputError: The region does not have two classes.
        """
        from fluid.plots.steady import plot_region

        return plot_region(ax, self)

    @property
    def _is_affine(self) -> bool:
        return self.normal_s is not None

    @property
    def _half_space(self) -> Floats:
        assert self.normal_s is not None
        return self.normal_s

    def _reach_from(self, start: Floats, direction: Floats) -> float:
        """The largest t with `start` + t·`direction` stable; `start` is stable."""
        if self._is_affine:
            return float((1 - start @ self._half_space) / (direction @ self._half_space))
        from scipy.optimize import brentq

        most = self.reach(direction)
        if not start.any():
            return most
        # The load, unlike its inverse, is nearly linear in t: few steps do.
        found = brentq(lambda t: 1 - 1 / self.reach(start + t * direction), 0.0, most, rtol=1e-9)
        return float(found)

    def _checked(self, rates_per_s: ArrayLike) -> Floats:
        rates = np.asarray(rates_per_s, dtype=float)
        if rates.ndim == 0 or rates.shape[-1] != len(self.names):
            raise InputError("rates", f"shape {rates.shape}", f"(..., {len(self.names)})")
        # A sum is finite only if every term is, and costs less than testing each of them.
        if rates.size and not (rates.min() >= 0 and np.isfinite(rates.sum())):
            raise InputError("rates", float(rates.min()), "finite rates ≥ 0 per second")
        return rates


def shares(directions: int) -> Floats:
    """Evenly spaced shares of two classes from (1, 0) to (0, 1), shape (directions, 2).

    Raises:
        InputError: Fewer than two directions.
    """
    if directions < 2:
        raise InputError("directions", directions, "at least 2")
    second = np.linspace(0, 1, directions)
    return np.column_stack([1 - second, second])


def mixed(workload: Workload, rates_per_s: ArrayLike) -> Workload:
    """The workload at other rates, shape (m,); classes with rate 0 are left out.

    Raises:
        InputError: No rate is positive.
    """
    rates = np.asarray(rates_per_s, dtype=float)
    classes = [
        one.model_copy(update={"rate_per_s": float(rate)})
        for one, rate in zip(workload.classes, rates, strict=True)
        if rate > 0
    ]
    if not classes:
        raise InputError("rates", rates.tolist(), "at least one rate > 0")
    return workload.model_copy(update={"classes": tuple(classes)})

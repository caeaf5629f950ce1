"""Limits on mean TTFT, TPOT and latency as intervals of thresholds (THEORY 3.5).

At a given iteration time ΔT a delay of class j is convex in n_j alone, so that a limit on it allows
an interval. A longer ΔT raises every delay and shrinks the interval from both sides. The least
thresholds that satisfy drift and all lower ends are therefore found by climbing from below, and if
they break an upper end, every feasible vector would: feasibility is decided exactly, whatever f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.workload import Workload
from thresholds.solvers.wait.batch import FullBatch

Floats = NDArray[np.float64]

_ROUNDING = 1e-9
"""Relative distance by which a limit may be missed."""


@dataclass(frozen=True)
class MeanLimits:
    """Largest allowed means per class, infinite where there is none; each of shape (m,)."""

    ttft_s: Floats
    tpot_s: Floats
    latency_s: Floats

    def __bool__(self) -> bool:
        return bool(np.isfinite([self.ttft_s, self.tpot_s, self.latency_s]).any())

    def loosened(self, factor: float) -> MeanLimits:
        """All limits so many times as long."""
        return MeanLimits(self.ttft_s * factor, self.tpot_s * factor, self.latency_s * factor)

    def delays(self, batch: FullBatch) -> Iterator[tuple[str, Floats, Floats]]:
        """Name, stage at whose end the delay ends, and limit in seconds, of both delays."""
        yield "ttft_s", batch.first_output, self.ttft_s
        yield "latency_s", batch.stages - 1, self.latency_s

    def interval(self, batch: FullBatch, time_s: ArrayLike) -> tuple[Floats, Floats]:
        """Thresholds allowed at an iteration time (...), real and open to drift; shape (..., m).

        With x = n_j − λ_j ΔT > 0 a delay limit reads (k/λ)x² − b·x + ΔT/2 ≤ 0 for k = s_j + ½ and
        b = limit + 1/(2λ) − (1 + k)·ΔT. Where it cannot be met the upper end is −∞.
        """
        rates = batch.rates_per_s
        time = np.asarray(time_s, dtype=float)[..., None]
        arrivals = rates * time
        low, high = arrivals, np.broadcast_to(rates * self.tpot_s, arrivals.shape)
        for _, last_stage, limit_s in self.delays(batch):
            if not np.isfinite(limit_s).any():
                continue
            slope_s = (last_stage + 0.5) / rates
            room_s = limit_s + 0.5 / rates - time - slope_s * arrivals
            rest = room_s**2 - 2 * slope_s * time
            possible = (room_s > 0) & (rest >= 0)
            larger = (room_s + np.sqrt(np.where(possible, rest, 0))) / (2 * slope_s)
            larger = np.where(possible, larger, 1.0)
            low = np.maximum(low, np.where(possible, arrivals + time / (2 * slope_s * larger), 0))
            high = np.minimum(high, np.where(possible, arrivals + larger, -np.inf))
        return low, high

    def whole_interval(self, batch: FullBatch, time_s: ArrayLike) -> tuple[Floats, Floats]:
        """The least and the largest whole threshold of `interval`, shape (..., m)."""
        low, high = self.interval(batch, time_s)
        return np.ceil(low * (1 - _ROUNDING)), np.floor(high * (1 + _ROUNDING))

    def least_thresholds(
        self, batch: FullBatch, scale: float = 1.0, start: ArrayLike = 1.0
    ) -> Floats | None:
        """The smallest whole thresholds with strict drift at `scale` times the rates, and limits.

        The limits are those at the rates themselves. None where there are none.
        """
        found = batch.least_thresholds(scale, start)
        while self and found is not None:
            low, high = self.whole_interval(batch, batch.iteration_time_s(found))
            if (found > high).any():
                return None
            if (low <= found).all():
                break
            found = batch.least_thresholds(scale, np.maximum(found, low))
        return found

    def broken(self, batch: FullBatch, scale: float = 1.0) -> tuple[int, str] | None:
        """Class and name of a limit that the least thresholds of drift alone cannot keep."""
        found = batch.least_thresholds(scale)
        while found is not None:
            time_s = batch.iteration_time_s(found)
            for name in ("ttft_s", "tpot_s", "latency_s"):
                _, high = self._only(name).whole_interval(batch, time_s)
                if (found > high).any():
                    return int(np.argmax(found - high)), name
            low, _ = self.whole_interval(batch, time_s)
            if (low <= found).all():
                return None
            found = batch.least_thresholds(scale, np.maximum(found, low))
        return None

    def hold(self, batch: FullBatch, thresholds: ArrayLike) -> NDArray[np.bool_]:
        """Whether all limits hold at thresholds (..., m); shape (...)."""
        n = np.asarray(thresholds, dtype=float)
        within = np.ones(n.shape[:-1], dtype=bool)
        for _, value_s, limit_s in self.values(batch, n):
            within &= (value_s <= limit_s * (1 + _ROUNDING)).all(axis=-1)
        return within

    def values(self, batch: FullBatch, thresholds: Floats) -> Iterator[tuple[str, Floats, Floats]]:
        """Name, mean per class (..., m) and limit (m,) of each kind that is limited, in seconds."""
        for name, last_stage, limit_s in self.delays(batch):
            if np.isfinite(limit_s).any():
                yield name, batch.delay_s(thresholds, last_stage), limit_s
        if np.isfinite(self.tpot_s).any():
            yield "tpot_s", batch.tpot_s(thresholds), self.tpot_s

    def _only(self, name: str) -> MeanLimits:
        none = np.full_like(self.ttft_s, np.inf)
        return MeanLimits(
            **{"ttft_s": none, "tpot_s": none, "latency_s": none} | {name: getattr(self, name)}
        )


def mean_limits(workload: Workload) -> MeanLimits:
    """The limits that the classes' objectives set on means; quantiles are left out.

    A class with one output token has no TPOT, and no limit on it.
    """

    def limits(name: str) -> Floats:
        return np.array(
            [
                getattr(one.slo, name) or np.inf
                if one.slo is not None and one.slo.quantile == "mean"
                else np.inf
                for one in workload.classes
            ]
        )

    single = np.array([one.decode_tokens == 1 for one in workload.classes])
    return MeanLimits(
        ttft_s=limits("ttft_s"),
        tpot_s=np.where(single, np.inf, limits("tpot_s")),
        latency_s=limits("latency_s"),
    )

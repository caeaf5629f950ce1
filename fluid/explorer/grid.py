"""Answers of the explorer at every point of a grid of settings, for a page without Python.

Along a mix the margin is 1 − 1/α*, and α* falls as the rates grow, so that with rates a constant
factor apart one answer serves a whole diagonal of the grid.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from fluid.explorer.state import DIRECTIONS, FACTORS, Explorer, Setting

LEAST_RATIO = 1.3
"""Between neighbouring rates, where a few of them reach the boundary."""

RATES, BELOW = 8, 3
"""Of each class on the axes, and how many of them below its own rate where there are most above."""

FACTOR_LEVELS = (0.5, 1.0, 2.0)

HELD = ("prompt_factor", "overhead_factor")
"""Settings that stay where there are three classes or more: a slice costs more than a mix."""

_OF_A_MIX = ("binding", "pace_per_iteration", "boundary_iteration_s")


@dataclass(frozen=True)
class Grid:
    """Levels of the sliders and the answers between them.

    Attributes:
        ratio: Of neighbouring rates.
        rate_levels: Of every class; those that are not on the axes have one.
        factor_levels: By field of `Setting`.
    """

    explorer: Explorer
    ratio: float
    rate_levels: tuple[tuple[float, ...], ...]
    factor_levels: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, explorer: Explorer) -> Grid:
        """Rates up to just beyond what a class reaches alone, the load's own among them."""
        start = explorer.start
        many = len(start.rates_per_s) > 2
        most = explorer.known["most_per_s"]
        growth = [math.log(most[k] / start.rates_per_s[k]) for k in start.axes]
        ratio = max(LEAST_RATIO, math.exp(max(growth) / (RATES - 1 - BELOW)))
        rates = tuple(
            _rates(rate, most[k], ratio) if k in start.axes else (rate,)
            for k, rate in enumerate(start.rates_per_s)
        )
        factors: dict[str, tuple[float, ...]] = {
            name: (1.0,) if many and name in HELD else FACTOR_LEVELS for name in FACTORS
        }
        return cls(explorer, ratio, rates, factors)

    @property
    def cells(self) -> list[tuple[float, ...]]:
        """Rates of every class at every point, the last one on the axes changing first."""
        return list(itertools.product(*self.rate_levels))

    def document(self) -> dict[str, Any]:
        """Levels, an answer for each combination of factors, and latencies of those with no more
        than one factor changed, where a cell without any is not stable."""
        start = self.explorer.start
        combinations, latencies = [], {}
        for index, factors in enumerate(itertools.product(*self.factor_levels.values())):
            changes = dict(zip(self.factor_levels, factors, strict=True))
            setting = Setting.from_document(start.document() | changes)
            found = self._regions(setting)
            combinations.append(found)
            if "refusal" not in found and sum(one != 1 for one in factors) <= 1:
                latencies[str(index)] = self._latencies(setting, found["max_scale"])
        return {
            "rate_levels": self.rate_levels,
            "factor_levels": self.factor_levels,
            "combinations": combinations,
            "latencies": latencies,
        }

    def _regions(self, setting: Setting) -> dict[str, Any]:
        """An answer as `Explorer.region` gives it, with lists over the cells for what varies."""
        # Of two classes only the ends: the mixes of the cells give what lies between.
        directions = 2 if len(setting.rates_per_s) == 2 else DIRECTIONS
        found = self.explorer.region(setting, directions)
        if "refusal" in found:
            return found
        kept = ("lengths_tokens", "kv_tokens", "overhead_s", "code", "boundary_per_s")
        shared = {name: found[name] for name in kept}
        columns: dict[str, list[Any]] = {name: [] for name in ("max_scale", *_OF_A_MIX)}
        mixes: dict[tuple[int, ...], dict[str, Any]] = {}
        between: list[list[float]] = []
        for rates in self.cells:
            total = sum(rates)
            mix = self._mix(rates)
            if mix not in mixes:
                mixes[mix] = self.explorer.region(_at(setting, rates), directions)
                reached = mixes[mix]["max_scale"]
                between.append([reached * rates[k] for k in setting.axes])
            at = mixes[mix]
            columns["max_scale"].append(_short(at["limit_per_s"] / total))
            for name in _OF_A_MIX:
                value = at[name]
                columns[name].append(value if isinstance(value, str) else _short(value))
        boundary = found["boundary_per_s"]
        if len(setting.rates_per_s) == 2:
            boundary = sorted([*boundary, *between], key=lambda one: math.atan2(one[1], one[0]))
        shared["boundary_per_s"] = [list(map(_short, one)) for one in boundary]
        return shared | columns

    def _mix(self, rates: tuple[float, ...]) -> tuple[int, ...]:
        """What the cells of a diagonal have in common: the ratios of all rates, as whole steps."""
        steps = [
            round(math.log(rate / own) / math.log(self.ratio))
            for rate, own in zip(rates, self.explorer.start.rates_per_s, strict=True)
        ]
        return tuple(one - steps[0] for one in steps)

    def _latencies(self, setting: Setting, max_scales: list[float]) -> list[dict[str, Any] | None]:
        """An answer for every cell, None where it is unstable.

        A mix is asked no further than to the first rate without figures, where asking costs most.
        """
        found: list[dict[str, Any] | None] = []
        refused: dict[tuple[int, ...], str] = {}
        for rates, max_scale in zip(self.cells, max_scales, strict=True):
            mix = self._mix(rates)
            if max_scale < 1:
                found.append(None)
                continue
            if mix in refused:
                reason = f"nor at a lower rate of this mix, where {refused[mix]}"
                found.append({"rate_per_s": _short(sum(rates)), "refusal": reason})
                continue
            answer = self.explorer.latency(_at(setting, rates))
            if "refusal" in answer:
                refused[mix] = answer["refusal"]
            found.append(
                {name: _short(one) if name.endswith("_s") else one for name, one in answer.items()}
            )
        return found


def _at(setting: Setting, rates: tuple[float, ...]) -> Setting:
    return setting.model_copy(update={"rates_per_s": rates})


def _rates(rate: float, most: float, ratio: float) -> tuple[float, ...]:
    up = math.ceil(math.log(most / rate) / math.log(ratio) - 1e-9)
    up = min(max(2, up), RATES - 1)
    return tuple(rate * ratio**k for k in range(up - RATES + 1, up + 1))


def _short(value: float | None) -> float | None:
    """As many digits as a picture shows, and a few more."""
    return None if value is None else float(f"{value:.5g}")

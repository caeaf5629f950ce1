"""What one look at the metrics gave, for people, for programs and for `watch` itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fluid.result import Block, Result, Table, number, percent, seconds
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.stability import Stability
from fluid.workload import Workload
from thresholds.table import ThresholdTable
from validation.live.load import Estimate, Load
from validation.live.prediction import Prediction, predicted
from validation.live.seen import Seen
from validation.live.speed import PARTS, Speed

MOST_LOAD = 0.8
"""Share of the boundary load that a replica is recommended for."""


@dataclass(frozen=True)
class Answer:
    """What a table follows from: α* and n^C.

    Attributes:
        stability: Of the load on the server.
        relative_sd: Of α* and n^C, by what load and speed are known.
    """

    stability: Stability
    relative_sd: float

    @property
    def figures(self) -> tuple[float, float]:
        """α* and the sum of n^C."""
        found = self.stability
        return found.max_scale, float(found.boundary_per_stage.sum())

    def change(self, other: Answer) -> float:
        """Largest relative change of a figure from the other answer to this one."""
        pairs = zip(self.figures, other.figures, strict=True)
        return math.expm1(max(abs(math.log(now / before)) for now, before in pairs))


@dataclass(frozen=True, repr=False)
class Step(Result):
    """What one look at the metrics gave.

    Attributes:
        at_s: When, seconds since 1970.
        status: "waiting" (nothing to subtract from yet), "learning", "unchanged", "written",
            "would write", "kept" (a new table was refused) or "trouble" (no window).
        told: Why, in a sentence.
        seen: The window; None where there is none.
        load, workload, speed, server, answer: What is known now; None until there is.
        table: In force after it; None before the first.
        predicted_tpot_s: Of this window, by what was known before it.
    """

    at_s: float
    status: str
    told: str
    seen: Seen | None = None
    load: Load | None = None
    workload: Workload | None = None
    speed: Speed | None = None
    server: Server | None = None
    answer: Answer | None = None
    table: ThresholdTable | None = None
    predicted_tpot_s: float | None = None

    @property
    def replicas(self) -> int | None:
        """Servers like it that carry the load at `MOST_LOAD` of their boundary."""
        if self.answer is None or self.seen is None:
            return None
        return math.ceil(self.seen.engines / (MOST_LOAD * self.answer.stability.max_scale))

    @cached_property
    def prediction(self) -> Prediction | None:
        """Times that the laws predict for the learned load and server."""
        if self.workload is None or self.server is None:
            return None
        return predicted(self.workload, self.server)

    @cached_property
    def scaling(self) -> str | None:
        """What to scale on, by what binds."""
        if self.answer is None or self.workload is None or self.server is None:
            return None
        found = self.answer.stability
        rate = number(found.max_scale * self.workload.rate_per_s)
        if found.binding != "compute":
            return f"{found.binding} binds, at {rate} /s a server: KV in use is what to scale on"
        near = self.workload.scaled(0.9 * found.max_scale)
        held = equilibrium(near, self.server).kv_tokens or 0.0
        share = percent(held / self.server.usable_kv_tokens, 0)
        return (
            f"compute binds, at {rate} /s a server: scale on the rate of requests, not on KV in"
            f" use, which is {share} at nine tenths of that rate"
        )

    def blocks(self) -> Iterator[Block]:
        yield f"{self.status}: {self.told}"
        rows = tuple(self._rows())
        if rows:
            yield Table("Learned", ("figure", "value", "95 % interval"), rows)
        if self.scaling:
            yield f"{self.scaling[0].upper()}{self.scaling[1:]}."

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        if self.load is not None:
            for name, figure in (
                ("rate /s", self.load.rate_per_s),
                ("mean prompt tokens", self.load.prompt_tokens),
                ("mean output tokens", self.load.output_tokens),
            ):
                yield name, number(figure.value), _interval(figure)
        if self.speed is not None:
            named = zip(PARTS, self.speed.factors, self.speed.sds, strict=True)
            for name, factor, sd in named:
                kept = name in self.speed.unexcited
                spread = "that of the file: traffic tells little" if kept else f"± {2 * sd:.2g}"
                yield f"{name} ÷ file", number(factor), spread
        if self.answer is not None:
            found = self.answer.stability
            yield "largest stable multiple α*", number(found.max_scale), found.binding
            yield "replicas", str(self.replicas), f"at {MOST_LOAD:.0%} of the boundary"
        if self.seen is not None and self.seen.tpot_s and self.predicted_tpot_s:
            words = f"predicted {seconds(self.predicted_tpot_s)}"
            yield "TPOT in the window", seconds(self.seen.tpot_s), words

    def document(self) -> dict[str, Any]:
        load, speed = self.load, self.speed
        return {
            "at_s": self.at_s,
            "status": self.status,
            "told": self.told,
            "rate_per_s": _plain(load.rate_per_s if load else None),
            "prompt_tokens": _plain(load.prompt_tokens if load else None),
            "output_tokens": _plain(load.output_tokens if load else None),
            "memory_sum": None if load is None else list(load.memory_sum),
            "factors": None if speed is None else dict(zip(PARTS, speed.factors, strict=True)),
            "unexcited": [] if speed is None else list(speed.unexcited),
            "max_scale": self.answer and self.answer.stability.max_scale,
            "margin": self.answer and self.answer.stability.margin,
            "binding": self.answer and self.answer.stability.binding,
            "replicas": self.replicas,
            "scaling": self.scaling,
            "measured_tpot_s": self.seen and self.seen.tpot_s,
            "predicted_tpot_s": self.predicted_tpot_s,
            "measured_ttft_s": self.seen and self.seen.ttft_s,
            "predicted_ttft_s": self.prediction.ttft_s if self.prediction else None,
            "settings": None if self.table is None else dict(self.table.settings),
        }


def _interval(figure: Estimate) -> str:
    return f"{number(figure.low)} to {number(figure.high)}"


def _plain(figure: Estimate | None) -> dict[str, float] | None:
    if figure is None:
        return None
    return {"value": figure.value, "low": figure.low, "high": figure.high}

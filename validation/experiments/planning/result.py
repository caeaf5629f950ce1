"""What a plan says: one recommendation, what each flag is worth, and what was tried."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fluid.result import Block, Note, Result, Table, number
from fluid.server import Server
from fluid.workload import Workload
from thresholds.export.config import EngineConfig
from thresholds.table import ThresholdTable
from validation.experiments.planning.advice import Worth
from validation.experiments.planning.race import Raced, Tried
from validation.experiments.planning.space import Setting
from validation.experiments.planning.words import change, named
from validation.experiments.slo.rate import SloRate
from validation.simulator.metrics import Interval

if TYPE_CHECKING:
    from fluid.plots.style import Panels

Objective = Literal["goodput", "cost", "ttft"]

UNITS = {"goodput": "more goodput", "cost": "more goodput", "ttft": "less p99 TTFT"}
"""What a gain is, by objective."""


@dataclass(frozen=True, eq=False)
class Option:
    """The best settings found for one server.

    Attributes:
        setting: What is set beside the engine's defaults.
        worth: What each of these is worth.
        flags: The same for the engine.
        best, default: On fresh arrivals, at the same rate.
        gain: In the objective over the engine's defaults, a share, with its 95 % interval.
        slo: The largest rate that keeps the promises with these settings; None without promises,
            or where least TTFT is asked for.
        carried_per_s: What a replica carries: that rate, or what it completes when saturated; the
            load's own where least TTFT is asked for.
        replicas: So many carry the load.
        cost: Of all of them, per hour; None where no cost was given.
        table: The settings as a table; None for engines that follow none.
    """

    server: Server
    engine: str
    setting: Setting
    worth: tuple[Worth, ...]
    flags: EngineConfig
    best: Tried
    default: Tried
    gain: Interval
    raced: Raced
    slo: SloRate | None
    carried_per_s: float
    replicas: int
    cost: float | None
    table: ThresholdTable | None


@dataclass(frozen=True, repr=False)
class Plan(Result):
    """One recommendation, with the others that were looked at behind it.

    Attributes:
        objective: "goodput", "cost" or "ttft".
        options: One per server, the recommended one first.
        left_out: Servers that cannot do what is asked, each with the reason.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(1.0, prompt=100, output=50))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.plan(load, server, budget_s=0.01, runs=fw.Runs(2, 400))
    >>> found.best.engine, found.best.raced.finished
    ('vllm', False)
    """

    workload: Workload
    objective: Objective
    options: tuple[Option, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Option:
        """The recommended one."""
        return self.options[0]

    @property
    def sentence(self) -> str:
        """The recommendation."""
        best = self.best
        what = f"{best.replicas} × {best.server.name}"
        if best.cost is not None:
            what += f" ({number(best.cost)} per hour)"
        if not best.worth:
            settings = "with the engine's own settings: none that was tried is measurably better"
        else:
            set_to = (f"{one.name}={_word(one.value)}" for one in best.worth)
            settings = "with " + ", ".join(set_to)
        return f"Take {what} {settings}; {self._carries}."

    @property
    def _carries(self) -> str:
        best = self.best
        rate = number(best.carried_per_s)
        if self.objective == "ttft":
            return f"p99 TTFT {number(_known(best.best.ttft_p99_s))} s at {rate} requests/s"
        if best.slo is not None:
            return f"{rate} requests/s each keep the service levels (95 %)"
        return f"{rate} requests/s each when saturated, no service levels asked"

    @property
    def gain_sentence(self) -> str:
        """How much better than the engine's defaults."""
        best = self.best
        rate = number(best.best.offered_per_s)
        if not best.worth:
            return f"Compared at {rate} requests/s offered."
        return (
            f"{change(best.gain, UNITS[self.objective])} than with the engine's own settings, at "
            f"{rate} requests/s offered (paired, 95 %, on arrivals that nothing was chosen by)."
        )

    def blocks(self) -> Iterator[Block]:
        yield self.sentence
        yield self.gain_sentence
        yield Table(
            f"{self.workload.name}: settings beside the engine's own",
            ("server", "settings", "goodput /s", "p99 TTFT s", "p99 TPOT s", "evictions /req"),
            tuple(self._rows()),
            left=(0, 1),
            spare=("evictions /req",),
        )
        if len(self.options) > 1:
            rows = [
                (one.server.name, number(one.carried_per_s), str(one.replicas), number(one.cost))
                for one in self.options
            ]
            yield Table(
                "Servers", ("server", "requests/s each", "replicas", "cost /h"), tuple(rows)
            )
        if self.best.slo is not None:
            yield self.best.slo.sentence
        if self.best.flags.text.strip():
            yield self.best.flags.text.rstrip("\n")
        for name, reason in self.left_out.items():
            yield Note(f"{name} is left out: {reason}")
        for one in self.options:
            if not one.raced.finished:
                yield Note(
                    f"{one.server.name}: the budget ended before the race; allow more seconds"
                )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.options:
            shown = [(one.setting.label, one.best)]
            if one.worth:
                shown.append((f"{one.default.setting.label} (its own)", one.default))
            for label, found in shown:
                yield (
                    one.server.name,
                    label,
                    number(found.goodput_per_s),
                    number(_known(found.ttft_p99_s)),
                    number(_known(found.tpot_p99_s)),
                    number(found.evictions_per_request, 3),
                )

    def document(self) -> dict[str, Any]:
        """The recommendation, and each option."""
        return {
            "workload": self.workload.name,
            "objective": self.objective,
            "recommendation": self.sentence,
            "options": [_option(one) for one in self.options],
            "left_out": dict(self.left_out),
        }

    def frame(self) -> dict[str, list[Any]]:
        """A row for each setting of the recommended server that was tried, in its first round."""
        tries = self.best.raced.field
        return {
            "setting": [one.setting.label for one in tries],
            "offered_per_s": [one.offered_per_s for one in tries],
            "goodput_per_s": [one.goodput_per_s for one in tries],
            "ttft_p99_s": [_known(one.ttft_p99_s) for one in tries],
            "tpot_p99_s": [_known(one.tpot_p99_s) for one in tries],
            "evictions_per_request": [one.evictions_per_request for one in tries],
        }

    def plot(self, ax: Panels | None = None) -> Panels:
        """Goodput against p99 TPOT and p99 TTFT over the settings tried, all at one rate.

        Args:
            ax: Two axes, side by side; those of a new figure where None.
        """
        from validation.experiments.planning.picture import draw_tried

        columns = self.frame()
        own = 0
        chosen = columns["setting"].index(self.best.setting.label)
        return draw_tried(
            {name: columns[name] for name in ("goodput_per_s", "tpot_p99_s", "ttft_p99_s")},
            {"the engine's own": own, "recommended": chosen},
            ax,
        )


def _option(one: Option) -> dict[str, Any]:
    return {
        "server": one.server.name,
        "engine": one.engine,
        "policy": one.setting.policy,
        "settings": named(dict(one.setting.values)),
        "worth": [
            {"name": w.name, "value": _json(w.value), "engine": _json(w.usual), **asdict(w.gain)}
            for w in one.worth
        ],
        "flags": one.flags.document(),
        "offered_per_s": one.best.offered_per_s,
        "goodput_per_s": one.best.goodput_per_s,
        "ttft_p99_s": _known(one.best.ttft_p99_s),
        "tpot_p99_s": _known(one.best.tpot_p99_s),
        "gain": {"mean": one.gain.mean, "half_width": _known(one.gain.half_width)},
        "slo_rate_per_s": one.slo and one.slo.low_per_s,
        "carried_per_s": one.carried_per_s,
        "replicas": one.replicas,
        "cost": one.cost,
        "tried": len(one.raced.field),
        "finished": one.raced.finished,
    }


def _json(value: float | str) -> float | str | None:
    return None if value == math.inf else value


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"

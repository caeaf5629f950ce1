"""Latencies of a mix against its total rate, up to the stability boundary (THEORY 9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluid.result import Block, Result, Table, number
from fluid.server import Server
from fluid.steady.latency.predict import latency
from fluid.steady.latency.result import Latency
from fluid.steady.latency.scheduler import DEFAULT_SCHEDULER, rule_for
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fluid.plots.latency import SimulatedTimes

SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.75, 0.81, 0.86, 0.9, 0.93, 0.96)
"""Of the limit: closer where the curves are steep."""


@dataclass(frozen=True, repr=False)
class LatencyByRate(Result):
    """Predicted latencies at several rates of one mix.

    Attributes:
        limit_per_s: The fluid limit of the mix.
        found: An answer for each rate, in ascending order, up to the first that has no figures.
    """

    workload: Workload
    server: Server
    scheduler: str
    limit_per_s: float
    found: tuple[Latency, ...]

    @property
    def known(self) -> tuple[Latency, ...]:
        """Those with figures."""
        return tuple(one for one in self.found if one.pooled is not None)

    @property
    def ends(self) -> str | None:
        """Where and why the curves end before the limit; None where they do not."""
        last = self.found[-1]
        if last.refusal is None:
            return None
        return f"no law from {number(last.workload.rate_per_s)} /s on: {last.refusal}"

    def blocks(self) -> Iterator[Block]:
        columns = self.frame()
        shown = [list(map(number, columns[name])) for name in _SHOWN]
        yield Table(
            f"Latency of {self.workload.name} on {self.server.name} under {self.scheduler}",
            (*_SHOWN.values(), "holds"),
            tuple(zip(*shown, columns["scope"], strict=True)),
        )
        if self.ends is not None:
            yield f"{self.ends[0].upper()}{self.ends[1:]}."

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "scheduler": self.scheduler,
            "limit_per_s": self.limit_per_s,
            "rates": [
                {"rate_per_s": one.workload.rate_per_s, **one.document()} for one in self.found
            ],
        }

    def frame(self) -> dict[str, list[Any]]:
        """Columns: rate, mean and quantiles over all requests, what of them holds; a row a rate."""
        frames = [one.frame() for one in self.known]
        columns = {name: [one[name][-1] for one in frames] for name in _COLUMNS}
        return columns | {"scope": [one.validity and one.validity.scope for one in self.known]}

    def plot(self, ax: Axes | None = None, simulated: Sequence[SimulatedTimes] = ()) -> Axes:
        """Means as lines, p50 to p99 as bands, what was simulated as points; crosses hold not."""
        from fluid.plots.latency import draw_by_rate

        title = f"{self.workload.name} on {self.server.name}, {self.scheduler}"
        rows = [(one.workload.rate_per_s, one.pooled) for one in self.known if one.pooled]
        doubtful = [scope == "nothing" for scope in self.frame()["scope"]]
        return draw_by_rate(rows, doubtful, self.limit_per_s, title, self.ends, simulated, ax)


_COLUMNS = (
    "rate_per_s",
    *(
        f"{quantity}_{statistic}_s"
        for quantity in ("ttft", "tpot", "latency")
        for statistic in ("mean", "p50", "p90", "p99")
    ),
)


_SHOWN = {
    "rate_per_s": "rate /s",
    "ttft_mean_s": "TTFT mean s",
    "ttft_p99_s": "p99 s",
    "tpot_mean_s": "TPOT mean s",
    "latency_mean_s": "latency mean s",
    "latency_p99_s": "p99 s",
}


def latency_by_rate(
    workload: Workload,
    server: Server,
    scheduler: str = DEFAULT_SCHEDULER,
    shares: Sequence[float] = SHARES,
) -> LatencyByRate:
    """Latencies of the mix at these shares of its fluid limit, ascending.

    Raises:
        InputError: As `fluid.steady.prediction.predict`.

    >>> import fluidwait as fw
    >>> from fluid.steady.latency_by_rate import latency_by_rate
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=512, output=120))
    >>> found = latency_by_rate(load, fw.Server.named("a100-80gb-llama-2-7b"), shares=(0.2, 0.8))
    >>> low, high = found.frame()["ttft_p99_s"]
    >>> low < high < 2
    True
    """
    rule = rule_for(scheduler, server)
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s
    found: list[Latency] = []
    for share in shares:
        found.append(latency(workload.at_rate(share * limit_per_s), server, rule))
        if found[-1].pooled is None:
            break
    return LatencyByRate(workload, server, scheduler, limit_per_s, tuple(found))

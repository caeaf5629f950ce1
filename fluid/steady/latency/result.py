"""The answer to how long requests take, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fluid.errors import InfeasibleError
from fluid.result import Block, Note, Result, Table, notes, number
from fluid.server import Server
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.validity import Validity
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_QUANTITIES = ("ttft_s", "tpot_s", "latency_s")
_WORDS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "latency_s": "latency"}


@dataclass(frozen=True)
class Figures:
    """Mean and quantiles over requests, seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over iterations."""

    mean: float
    sd: float


@dataclass(frozen=True)
class ClassLatency:
    """One class, or all of them together; TPOT is None where no request has two outputs."""

    name: str
    rate_per_s: float
    ttft_s: Figures
    tpot_s: Figures | None
    latency_s: Figures


@dataclass(frozen=True, repr=False)
class Latency(Result):
    """Predicted means and quantiles.

    Attributes:
        classes: In the order of the workload; empty where there is a refusal.
        pooled: Over all requests.
        iteration_s: Of iterations that do work; `kv_tokens`: of the KV held.
        validity: How far the figures may be believed; None where nothing could be computed.
        refusal: Why there are no figures; None where there are.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(60.0, prompt=512, output=120))
    >>> fw.latency(load, fw.Server.named("a100-80gb-llama-2-7b")).refusal
    'the load brings more work than the server can do'
    """

    workload: Workload
    server: Server
    rule: BatchRule
    classes: tuple[ClassLatency, ...] = ()
    pooled: ClassLatency | None = None
    iteration_s: Spread | None = None
    kv_tokens: Spread | None = None
    validity: Validity | None = None
    refusal: str | None = None

    def blocks(self) -> Iterable[Block]:
        """A table of all classes, iterations and memory in a sentence, and what limits them."""
        title = f"Latency of {self.workload.name} on {self.server.name}, seconds"
        if self.pooled is None or self.iteration_s is None or self.kv_tokens is None:
            yield f"{title}: none"
            yield Note(str(self.refusal))
            return
        yield Table(title, _COLUMNS, tuple(map(_row, self._all())), left=(0,), spare=_SPARE)
        share = self.kv_tokens.mean / self.server.usable_kv_tokens
        yield (
            f"iterations of {number(self.iteration_s.mean)} s ± {number(self.iteration_s.sd)} s; "
            f"{self.kv_tokens.mean:,.0f} ± {self.kv_tokens.sd:,.0f} KV tokens, "
            f"{100 * share:.0f} % of memory"
        )
        if self.validity is not None:
            yield from notes(self.validity.sentences())

    def _all(self) -> tuple[ClassLatency, ...]:
        """The classes, and all together where there are several."""
        if self.pooled is None:
            return ()
        return (*self.classes, self.pooled) if len(self.classes) > 1 else self.classes

    def document(self) -> dict[str, Any]:
        """Figures with their units in the names; None where there are none."""

        def plain(value: Any) -> Any:
            return None if value is None else asdict(value)

        pooled = plain(self.pooled) or dict.fromkeys(_QUANTITIES)
        return {
            "rule": {
                "budget_tokens": self.rule.budget_tokens,
                "seats": None if self.rule.seats == float("inf") else self.rule.seats,
                "watermark_fraction": self.rule.watermark_fraction,
            },
            **{name: pooled[name] for name in _QUANTITIES},
            "iteration_s": plain(self.iteration_s),
            "kv_tokens": plain(self.kv_tokens),
            "classes": [asdict(one) for one in self.classes],
            "validity": self.validity.as_dict() if self.validity else None,
            "caveats": list(self.validity.sentences()) if self.validity else [],
            "refusal": self.refusal,
        }

    def frame(self) -> dict[str, list[Any]]:
        """Columns: name, rate, and every figure; a row for each class and one for all."""
        columns: dict[str, list[Any]] = {"name": [], "rate_per_s": []}
        for one in (*self.classes, *([self.pooled] if self.pooled else [])):
            columns["name"].append(one.name)
            columns["rate_per_s"].append(one.rate_per_s)
            for quantity in _QUANTITIES:
                found = getattr(one, quantity)
                for statistic in ("mean", "p50", "p90", "p99"):
                    key = f"{quantity.removesuffix('_s')}_{statistic}_s"
                    value = None if found is None else getattr(found, statistic)
                    columns.setdefault(key, []).append(value)
        return columns

    def plot(self, ax: Axes | None = None) -> Axes:
        """Mean, and the span from p50 to p99, of each class on a logarithmic axis.

        Raises:
            InfeasibleError: There are no figures.
        """
        from fluid.plots.latency import draw_latency

        if self.pooled is None:
            raise InfeasibleError(str(self.refusal), "memory or compute", "lower the rates")
        rows = (*self.classes, self.pooled) if len(self.classes) > 1 else self.classes
        return draw_latency(rows, ax)


_STATISTICS = ("mean", "p50", "p90", "p99")
_COLUMNS = (
    "class",
    *(f"{_WORDS[quantity]} {one}" for quantity in _QUANTITIES for one in _STATISTICS),
)
_SPARE = tuple(f"{_WORDS[quantity]} {one}" for one in ("p50", "p90") for quantity in _QUANTITIES)


def _row(one: ClassLatency) -> tuple[str, ...]:
    cells = [one.name]
    for quantity in _QUANTITIES:
        found = getattr(one, quantity)
        cells += [number(None if found is None else getattr(found, s)) for s in _STATISTICS]
    return tuple(cells)

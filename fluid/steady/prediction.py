"""What users see of the latency laws (THEORY 9): figures, how far off, what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from fluid.errors import InfeasibleError
from fluid.result import Block, Result, Table, notes, number, percent, rare
from fluid.server import Server
from fluid.steady.latency.onset import eviction_onset_per_s, memory_onset_per_s
from fluid.steady.latency.predict import latency, solve
from fluid.steady.latency.result import Figures, Latency
from fluid.steady.latency.scheduler import DEFAULT_SCHEDULER, rule_for
from fluid.steady.latency.validity import SAFE, Validity, kv_law
from fluid.steady.overflow import Overflow, overflow
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILE_ERROR = 3
"""Errors of p90 and p99 are about so many times those of means."""

MOST_CLASSES = 200
"""A class takes the laws some hundredth of a second, so that thousands take half a minute."""

INSTEAD = "simulate: `fluidwait compare` for a policy, `fluidwait replay` for a table"
"""What to do where no law applies."""

MEANS = ("ttft_s", "tpot_s", "latency_s")


@dataclass(frozen=True, repr=False)
class Prediction(Result):
    """Latencies of a load under a scheduler, and from which rate on memory binds.

    Attributes:
        scheduler: As it was named, ``NAME[:key=value,…]``.
        latency: The laws' answer, with figures or the reason why there are none.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=512, output=120))
    >>> found = fw.equilibrium(load, fw.Server.named("a100-80gb-llama-2-7b")).prediction
    >>> found.mean_s("ttft_s") < found.mean_s("latency_s")
    True
    """

    scheduler: str
    latency: Latency

    def mean_s(self, quantity: str) -> float | None:
        """Mean over all requests of one of `MEANS`; None where there is none."""
        found: Figures | None = getattr(self.latency.pooled, quantity, None)
        return None if found is None else found.mean

    @cached_property
    def eviction_onset_per_s(self) -> float | None:
        """Total rate of the mix up to which memory is full in at most 1 of 10,000 iterations.

        None where it is not full more often at any rate that the scheduler can serve.
        """
        found = self.latency
        return memory_onset_per_s(found.workload, found.server, SAFE, found.rule)

    @property
    def absence(self) -> str | None:
        """Why there are no figures and what to do instead, in one line; None where there are."""
        if self.latency.refusal is None:
            return None
        return f"No latencies under {self.scheduler}: {self.latency.refusal}; {INSTEAD}."

    def blocks(self) -> Iterator[Block]:
        """Figures, memory, budget, how far off they may be; or why there are none."""
        found = self.latency
        if self.absence is not None:
            yield self.absence
        else:
            table, spread = self._figures()
            title = f"Latency under {self.scheduler}, seconds"
            yield replace(table, title=title, spare=_SPARE)
            yield spread
        if found.validity is None:
            return
        yield self._memory(found.validity)
        if found.validity.budget_share is not None:
            yield (
                f"Token budget of {found.rule.budget_tokens:,}: the load needs "
                f"{percent(found.validity.budget_share)} (ρ_c)."
            )
        if self.absence is None:
            yield trust(found.validity)
            yield from notes(found.validity.sentences())

    def _figures(self) -> tuple[Table, str]:
        table, spread, *_ = self.latency.blocks()
        assert isinstance(table, Table)
        text = str(spread)
        return table, f"{text[0].upper()}{text[1:]}."

    def _memory(self, validity: Validity) -> str:
        full = f"Memory is full in {rare(validity.overflow_probability)} of iterations"
        onset_per_s = self.eviction_onset_per_s
        if onset_per_s is None:
            return f"{full}; hardly anybody is evicted at any rate that can be served."
        onset = f"{number(onset_per_s, 3)} /s"
        return f"{full}; evictions begin at about {onset}, where that is {SAFE:.0e}."

    def document(self) -> dict[str, Any]:
        onset = None if self.latency.validity is None else self.eviction_onset_per_s
        return {
            "scheduler": self.scheduler,
            **self.latency.document(),
            "eviction_onset_per_s": onset,
        }

    def frame(self) -> dict[str, list[Any]]:
        """As that of `Latency`."""
        return self.latency.frame()

    def plot(self, ax: Axes | None = None) -> Axes:
        """As that of `Latency`.

        Raises:
            InfeasibleError: There are no figures.
        """
        return self.latency.plot(ax)


_SPARE = (
    *("TPOT p50", "TTFT p50", "TPOT p90", "TTFT p90"),
    *("TPOT p99", "TTFT p99", "TPOT mean", "TTFT mean"),
)


@lru_cache(maxsize=64)
def predict(workload: Workload, server: Server, scheduler: str = DEFAULT_SCHEDULER) -> Prediction:
    """Latencies under a scheduler, named as the policy that simulates it.

    None for loads of more than `MOST_CLASSES` classes; `latency` itself knows no such limit.

    Args:
        scheduler: ``NAME[:key=value,…]``, see `SCHEDULERS`.

    Raises:
        InputError: As `rule_for` and `latency`.
    """
    rule, classes = rule_for(scheduler, server), len(workload.classes)
    if classes > MOST_CLASSES:
        reason = f"{classes:,} classes, and the laws are asked about {MOST_CLASSES} at most"
        return Prediction(scheduler, Latency(workload, server, rule, refusal=reason))
    return Prediction(scheduler, latency(workload, server, rule))


def overflow_under(
    workload: Workload, server: Server, probability: float, scheduler: str
) -> Overflow:
    """By THEORY 2.7 for whole prompts on an affine server, else by the laws.

    Raises:
        InputError, InfeasibleError: As `overflow_by_law`.
    """
    if server.iteration_time.is_affine and rule_for(scheduler, server).budget_tokens is None:
        return overflow(workload, server, probability)
    return overflow_by_law(workload, server, probability, scheduler)


def overflow_by_law(
    workload: Workload, server: Server, probability: float, scheduler: str = DEFAULT_SCHEDULER
) -> Overflow:
    """What the laws know of overflows, on any server; as `fluid.steady.overflow.overflow`.

    Raises:
        InputError: As `predict`, or the probability is not between 0 and 1.
        InfeasibleError: The load has no equilibrium under the scheduler.
    """
    rule = rule_for(scheduler, server)
    onset_per_s = eviction_onset_per_s(workload, server, probability, rule)
    solved = solve(workload, server, rule)
    if isinstance(solved, str):
        raise InfeasibleError(solved, "compute", "lower the rates, or raise the token budget")
    held = kv_law(solved)
    ttft_s, _, latency_s = solved.load.shares @ solved.stage_s
    return Overflow(
        probability=probability,
        kv_mean_tokens=held.mean,
        kv_sd_tokens=held.sd,
        overflow_probability=held.sf(server.usable_kv_tokens),
        kv_tokens_needed=held.isf(probability),
        eviction_onset_per_s=onset_per_s,
        latency_s=float(latency_s),
        ttft_s=float(ttft_s),
    )


def trust(validity: Validity) -> str:
    """How far off the figures may be, in a sentence."""
    error = validity.expected_error
    if error is None:
        return f"Do not rely on these latencies, for the reason noted; {INSTEAD}."
    means = f"In nine of ten simulations means like these were within {percent(error, 0)}"
    if validity.scope == "means":
        return f"{means}; take p90 and p99 from a simulation, for the reason noted."
    return f"{means}, p90 and p99 within {percent(QUANTILE_ERROR * error, 0)}."

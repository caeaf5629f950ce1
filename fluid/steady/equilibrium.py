"""Fluid equilibrium: iteration time, inventory and memory (THEORY 2.2–2.5).

How long requests take there is predicted by the laws of THEORY 9 (`fluid.steady.latency`), which
`Equilibrium.prediction` asks when it is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError, not_a_name
from fluid.result import Block, Result, Table, columns_of, notes, number, seconds
from fluid.server import Server, require_fits
from fluid.stages import class_stages
from fluid.steady.caveats import (
    approximation_caveats,
    condition_caveats,
    packing_caveats,
    profile_caveats,
    range_caveats,
)
from fluid.steady.first_order import ClassTimes, MeanTimes, first_order_times
from fluid.steady.intake import Method, intake
from fluid.steady.latency.scheduler import DEFAULT_SCHEDULER, default_scheduler, rule_for
from fluid.steady.overflow import Overflow
from fluid.steady.phase import rate_and_memory
from fluid.steady.stability import Binding, curve_stability, shares_line, verdict
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fluid.plots.latency import SimulatedTimes
    from fluid.steady.prediction import Prediction
    from fluid.transient.saturated import PredictedLoss


@dataclass(frozen=True)
class ClassEquilibrium:
    """One class at equilibrium; inventory and times are None where the workload is unstable.

    Attributes:
        stages: S_j, iterations that a request needs.
        in_service_per_stage: n*_j = λ_j·ΔT*, requests at each stage.
        first_order: Mean times of THEORY 2.6, no prediction.
    """

    name: str
    rate_per_s: float
    stages: int
    in_service_per_stage: float | None
    first_order: MeanTimes | None


@dataclass(frozen=True, repr=False)
class Equilibrium(Result):
    """The fluid equilibrium of a workload on a server.

    Attributes:
        stable: Whether the equilibrium exists and fits into memory.
        method: "closed-form" (affine f), "poisson" (E[τ] with Poisson new prompts) or "mean" (τ of
            the mean composition).
        utilisation: ρ, share of an iteration that work takes; see `Stability`.
        iteration_time_s: ΔT*; None where there is no equilibrium at any memory.
        kv_tokens: M*, mean KV held; None as above. Above `kv_capacity_tokens` it does not fit.
        max_scale: α*, largest stable multiple of the rates; with margin, binding and the two
            shares as in `fluid.steady.stability.Stability`.
        first_order: Mean times over all requests by THEORY 2.6, no prediction.
        throughput_tokens_per_s: Σ λ_j l'_j.
        stages: S_j, iterations that a request of each class needs, shape (m,).
        class_times: Mean times of each class by THEORY 2.6; None where the load is unstable.
        caveats: One sentence where few requests fit at once (THEORY 2.3), for each quantity of the
            batches that leaves the server's measured range, and one where the rates vary over time.
        first_order_caveats: One for each condition of THEORY 2.6 that does not hold.
        scheduler: Whose latencies `prediction` gives, as `NAME[:key=value,…]`.
        evictions: Share of iterations that may exceed the memory, where that was asked about.
        fluctuations: The answer; None where nothing was asked or the workload is unstable.
        loss: What admission loses once memory has filled; None where it was not asked about, or
            where memory hardly binds.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> found = fw.equilibrium(load, fw.Server.named("a100-80gb-llama-2-7b"))
    >>> print(f"{found.utilisation:.2f} {found.kv_tokens:,.0f} {found.classes[0].name}")
    0.41 7,752 chat
    """

    workload: Workload
    server: Server
    stable: bool
    method: Method
    utilisation: float
    iteration_time_s: float | None
    kv_tokens: float | None
    kv_capacity_tokens: int
    max_scale: float
    margin: float
    binding: Binding
    compute_share: float
    memory_share: float
    limit_share: float
    first_order: MeanTimes | None
    throughput_tokens_per_s: float | None
    caveats: tuple[str, ...]
    first_order_caveats: tuple[str, ...]
    stages: NDArray[np.float64] = field(compare=False)
    class_times: ClassTimes | None = field(compare=False)
    scheduler: str = DEFAULT_SCHEDULER
    evictions: float | None = None
    fluctuations: Overflow | None = None
    loss: PredictedLoss | None = None

    @property
    def title(self) -> str:
        """What is in balance where."""
        return f"{self.workload.name} on {self.server.name}"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, with its cause."""
        return verdict(self.max_scale, self.margin, self.binding)

    @cached_property
    def classes(self) -> tuple[ClassEquilibrium, ...]:
        """Every class, in the order of the workload."""
        times, served_s = self.class_times, self.iteration_time_s
        return tuple(
            ClassEquilibrium(
                name=one.name,
                rate_per_s=one.rate_per_s,
                stages=stages,
                in_service_per_stage=None if times is None else one.rate_per_s * (served_s or 0.0),
                first_order=None if times is None else times.of_class(index),
            )
            for index, (one, stages) in enumerate(
                zip(self.workload.classes, self.stages.astype(int).tolist(), strict=True)
            )
        )

    @cached_property
    def prediction(self) -> Prediction | None:
        """Means and quantiles under `scheduler` by the latency laws; None where it is unstable."""
        from fluid.steady.prediction import predict  # its kernels are slow to import

        return predict(self.workload, self.server, self.scheduler) if self.stable else None

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class; times are predicted means, None where there are none."""
        columns = columns_of(self.classes)
        del columns["first_order"]
        found = self.prediction.frame() if self.prediction else {}
        for name in ("ttft", "tpot", "latency"):
            means = found.get(f"{name}_mean_s", [])[: len(self.classes)]
            columns[f"{name}_s"] = means or [None] * len(self.classes)
        return columns

    def blocks(self) -> Iterator[Block]:
        yield Table(self.title, ("figure", "value"), self._figures())
        yield Table(
            "Classes",
            ("class", "rate /s", "stages", "n* per stage"),
            tuple(
                (
                    one.name,
                    number(one.rate_per_s),
                    str(one.stages),
                    number(one.in_service_per_stage),
                )
                for one in self.classes
            ),
        )
        yield from notes(self.caveats)
        if self.prediction is None:
            yield "No latencies: the queue of an unstable load grows for ever."
        else:
            yield from self.prediction.blocks()
        if self.fluctuations is not None:
            yield self.fluctuations.table()
        if self.loss is not None:
            yield self.loss.sentence
        yield self.sentence

    def _figures(self) -> tuple[tuple[str, str], ...]:
        return (
            ("arrival rate", f"{number(self.workload.rate_per_s)} /s"),
            ("utilisation ρ", number(self.utilisation)),
            ("iteration time ΔT*", seconds(self.iteration_time_s)),
            ("KV tokens M*", number(self.kv_tokens)),
            ("KV capacity C", number(float(self.kv_capacity_tokens))),
            ("largest stable multiple α*", number(self.max_scale)),
            shares_line(self.compute_share, self.memory_share, self.limit_share),
            ("throughput tokens/s", number(self.throughput_tokens_per_s)),
        )

    def document(self) -> dict[str, Any]:
        """The fields; `ttft_s`, `tpot_s` and `latency_s` are predicted means."""
        apart = (
            *("workload", "server", "caveats", "evictions", "fluctuations", "loss"),
            *("first_order", "first_order_caveats", "stages", "class_times"),
            *(() if self.limit_share else ("limit_share",)),
        )
        predicted = self.prediction.document() if self.prediction else None
        caveats = [*self.caveats, *(predicted["caveats"] if predicted else ())]
        first_order = None if self.first_order is None else asdict(self.first_order)
        if first_order is not None:
            first_order["caveats"] = list(self.first_order_caveats)
        document = {
            "workload": self.workload.name,
            "server": self.server.name,
            **{one.name: getattr(self, one.name) for one in fields(self) if one.name not in apart},
            **_means(predicted),
            "caveats": caveats,
            "classes": self._class_documents(predicted),
            "prediction": predicted,
            "first_order": first_order,
        }
        if self.evictions is not None:
            document["fluctuations"] = self.fluctuations and asdict(self.fluctuations)
        if self.loss is not None:
            document["predicted_loss"] = self.loss.document()
        return document

    def _class_documents(self, predicted: dict[str, Any] | None) -> list[dict[str, Any]]:
        known = (predicted and predicted["classes"]) or [None] * len(self.classes)
        return [asdict(one) | _means(times) for one, times in zip(self.classes, known, strict=True)]

    def plot(
        self,
        ax: Axes | None = None,
        picture: str = "latency",
        simulated: Sequence[SimulatedTimes] = (),
    ) -> Axes:
        """One of `PICTURES`: times by rate, KV by stage, or the margin by rate and memory.

        Args:
            simulated: What to show beside the times by rate, as `compare` found it.

        Raises:
            InputError: Another picture, or that of stages where there is no equilibrium.
        """
        if picture not in PICTURES:
            raise not_a_name("picture", picture, PICTURES)
        if picture == "latency":
            from fluid.steady.latency_by_rate import latency_by_rate  # slow to import

            return latency_by_rate(self.workload, self.server, self.scheduler).plot(ax, simulated)
        drawn: Axes = getattr(self, f"_plot_{picture}")(ax)
        return drawn

    def _plot_stages(self, ax: Axes | None) -> Axes:
        from fluid.plots.steady import plot_composition

        if not self.stable:
            raise InputError("workload", self.workload.name, "a stable workload")
        stages = [class_stages(one, self.server) for one in self.workload.classes]
        held = np.zeros((len(stages), max(int(one.index[-1]) for one in stages) + 1))
        for row, one, balanced in zip(held, stages, self.classes, strict=True):
            row[one.index] = (balanced.in_service_per_stage or 0.0) * one.held_kv_tokens
        names = [one.name for one in self.classes]
        title = f"{self.title}: {self.kv_tokens:,.0f} of {self.kv_capacity_tokens:,} tokens"
        return plot_composition(ax, dict(zip(names, held, strict=True)), title)

    def _plot_phase(self, ax: Axes | None) -> Axes:
        return rate_and_memory(self.workload, self.server).plot(ax)


PICTURES = ("latency", "stages", "phase")
"""What `Equilibrium.plot` draws."""


def _means(found: dict[str, Any] | None) -> dict[str, float | None]:
    """Means of the three times in the document of a prediction or of one of its classes."""
    names = ("ttft_s", "tpot_s", "latency_s")
    if found is None:
        return dict.fromkeys(names)
    return {name: None if found[name] is None else found[name]["mean"] for name in names}


def equilibrium(
    workload: Workload,
    server: Server,
    method: Method | None = None,
    *,
    scheduler: str | None = None,
    evictions: float | None = None,
    loss: bool = False,
) -> Equilibrium:
    """Solve ΔT* = E[τ(λΔT*)] and derive inventory and memory (THEORY 2.2, 2.5).

    Latencies are predicted when they are asked for, by the laws of THEORY 9 for a scheduler.

    Args:
        method: "closed-form" needs affine f; "poisson" and "mean" take any f. By default the
            closed form where f is affine, else "poisson".
        scheduler: Whose latencies are predicted: greedy, vllm-v1 or sarathi, with parameters as
            the policies that simulate them, ``NAME[:key=value,…]``; None for the rule of the
            server's engine, or greedy where its file names none.
        evictions: Also say when this share of the iterations exceeds the memory (THEORY 2.7, 9.2).
        loss: Also say what admission loses once memory has filled (THEORY 11).

    Raises:
        InputError: One request of a class does not fit, `method` does not suit f, the rates vary
            over time around another mean than the given ones, no law describes the scheduler on
            this server, or `evictions` is not a share.
        InfeasibleError: `evictions` of a load that needs more than the scheduler's token budget.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=1000))
    >>> found = fw.equilibrium(load, fw.Server.named("paper-long-decode"), evictions=0.01)
    >>> found.stable, round(found.fluctuations.eviction_onset_per_s, 1)
    (True, 2.5)
    """
    require_fits(workload, server)
    scheduler = scheduler or default_scheduler(server)
    rule_for(scheduler, server)  # refused at once, not when its latencies are asked for
    curve = intake(workload, server, method)
    boundary, balance_s = curve_stability(workload, curve)
    served = balance_s if boundary.stable else None
    added = times = None
    if served is not None:
        added = curve.added(served)
        times = first_order_times(curve.sums, added, served)
    fluctuations = None
    if evictions is not None and served is not None:
        from fluid.steady.prediction import overflow_under  # its kernels are slow to import

        fluctuations = overflow_under(workload, server, evictions, scheduler)
    throughput = float(workload.rates_per_s @ workload.columns.decode_tokens)
    return Equilibrium(
        workload=workload,
        server=server,
        stable=boundary.stable,
        method=curve.method,
        utilisation=boundary.utilisation,
        iteration_time_s=balance_s,
        kv_tokens=None if balance_s is None else balance_s * curve.kv_tokens_per_s,
        kv_capacity_tokens=server.usable_kv_tokens,
        max_scale=boundary.max_scale,
        margin=boundary.margin,
        binding=boundary.binding,
        compute_share=boundary.compute_share,
        memory_share=boundary.memory_share,
        limit_share=boundary.limit_share,
        first_order=None if times is None else times.over_all(workload.rates_per_s),
        throughput_tokens_per_s=throughput if boundary.stable else None,
        first_order_caveats=condition_caveats(curve, boundary.utilisation, served, added),
        caveats=(
            *approximation_caveats(curve),
            *packing_caveats(curve, boundary),
            *range_caveats(curve, served, boundary.max_scale * boundary.boundary_iteration_time_s),
            *profile_caveats(workload, boundary.max_scale),
        ),
        stages=curve.sums.count,
        class_times=times,
        scheduler=scheduler,
        evictions=evictions,
        fluctuations=fluctuations,
        loss=_loss(workload, server) if loss else None,
    )


def _loss(workload: Workload, server: Server) -> PredictedLoss | None:
    from fluid.transient.saturated import predicted_loss  # numba is slow to import

    return predicted_loss(workload, server)
